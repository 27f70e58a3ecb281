"""`rl-posttrain optim memory`: the ledger of a model under several optimizers, predicted and, if asked, measured."""

import os
from collections.abc import Sequence
from typing import Any

from rl_posttrain.cost.trained import make_model, optimizer_spec
from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.models.find import load_config, published_config
from rl_posttrain.models.quantized import KINDS, check_bitsandbytes
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.optim.ledger import MemoryLedger, predict_memory

_Ledgers = dict[str, MemoryLedger]  # by optimizer
_BASELINE = "adamw"
_DTYPES = ("bfloat16", "float32")
_OFFLOADS = ("none", "optimizer", "parameters")
_STAGES = ("none", "0", "1", "2", "3", "fsdp2")


def memory_of(
    model: str,
    optimizers: Sequence[str],
    *,
    zero_stage: str,
    num_processes: int,
    dtype: str,
    offload: str,
    measure: bool,
    critic: bool,
    lora_rank: int | None = None,
    quantize: str | None = None,
) -> dict[str, Any]:
    """Bytes per device of each component, for each optimizer and for adamw, to which the ratios are.

    Args:
        model: a name of `PUBLISHED_SHAPES`, the bundled model, a local folder or a hub name; its config is read.
        zero_stage: DeepSpeed's, ``none`` for plain PyTorch, where the weights have no fp32 masters, or ``fsdp2``.
        offload: what is in main memory, as a recipe's `distributed.offload` says it.
        dtype: of the weights.
        measure: also take one real step with each optimizer, on `num_processes` processes of this machine.
        critic: the model is a policy with a critic, which has a backbone of the same shapes and the same optimizer.
        lora_rank: the model is frozen, and adapters of this rank on its linear layers are trained; None: all of it is.
        quantize: the frozen weights are in 4 bits, ``nf4`` or ``fp4``; None: they are of `dtype`.

    Returns:
        The arguments, ``num_parameters``, and ``rows``: ``optimizer``; ``predicted`` and ``measured`` (or None), each
        with ``total``, ``on_device``, ``ratio`` of the total to adamw's and ``ratio_of_weights_and_state``; and
        ``difference``, measured over predicted total less one. With adapters also ``num_adapter_parameters``. With a
        critic also ``num_critic_parameters``, and each ``predicted`` and ``measured`` has the ``parts``: the ``policy``
        alone, and what the ``critic`` adds.

    Raises:
        RecipeError: an argument cannot be used.
        EngineError: the measurement fails.
    """
    for key, value, known in (
        ("--zero-stage", zero_stage, _STAGES),
        ("--dtype", dtype, _DTYPES),
        ("--offload", offload, _OFFLOADS),
    ):
        if value not in known:
            raise RecipeError(f"{key}={value}: no such value; set one of {', '.join(known)}")
    _check_quantize(quantize, lora_rank, zero_stage)
    stage = int(zero_stage) if zero_stage.isdigit() else None if zero_stage == "none" else zero_stage
    if offload == "optimizer" and stage not in (1, 2, 3):
        raise RecipeError(
            f"--offload=optimizer: DeepSpeed offloads at stages 1 to 3, not {zero_stage}; set --zero-stage to one"
        )
    if offload == "parameters" and stage not in (3, "fsdp2"):
        raise RecipeError(
            f"--offload=parameters: weights are offloaded at --zero-stage 3 and fsdp2, not {zero_stage}; set one"
        )
    config = _config(model)
    names = list(dict.fromkeys([*optimizers, _BASELINE]))
    for name in names:
        optimizer_spec(name, critic=False).refuse_shards(stage or 0, stage_key="--zero-stage")
    shared = {"zero_stage": stage, "num_processes": num_processes, "offload": offload}
    shared |= {"lora_rank": lora_rank, "quantize": quantize}
    # With a critic also the policy alone, first: what the critic adds is the difference.
    settings = [
        {"dtype": dtype, **shared, "critic": has_critic} for has_critic in ([False, True] if critic else [False])
    ]
    predicted = [{name: _predict(config, name, **setting) for name in names} for setting in settings]
    measured = _measure(config, settings, predicted) if measure else None
    shapes = _without_weights(config, dtype, critic)
    num_critic_parameters = sum(parameter.numel() for parameter in shapes.critic.parameters()) if critic else 0
    return {
        "model": model,
        "num_parameters": sum(parameter.numel() for parameter in shapes.parameters()) - num_critic_parameters,
        **({"num_critic_parameters": num_critic_parameters} if critic else {}),
        **({"num_adapter_parameters": _num_adapter_parameters(config, dtype, lora_rank)} if lora_rank else {}),
        "dtype": dtype,
        **shared,
        "rows": [_row(name, predicted, measured) for name in names],
    }


def _check_quantize(quantize: str | None, lora_rank: int | None, zero_stage: str) -> None:
    if quantize is None:
        return
    if quantize not in KINDS:
        raise RecipeError(f"--quantize={quantize}: no such value; set one of {', '.join(KINDS)}")
    if lora_rank is None:
        raise RecipeError(f"--quantize={quantize}: weights in 4 bits are frozen; add --lora-rank")
    if zero_stage == "fsdp2":
        raise RecipeError(f"--quantize={quantize}: FSDP2 does not train on weights in 4 bits; set another --zero-stage")
    check_bitsandbytes(quantize, key="--quantize")


def _config(name: str):
    config = published_config(name)
    if config is not None:
        return config
    try:
        return load_config(name)
    except RecipeError as error:
        raise RecipeError(
            f"MODEL={name}: no published shape of that name ({did_you_mean(name, PUBLISHED_SHAPES)}), and {error}"
        ) from error


def _without_weights(config, dtype: str, critic: bool, **form: Any):
    import torch

    with torch.device("meta"):
        return make_model(config, dtype, critic=critic, **form)


def _num_adapter_parameters(config, dtype: str, lora_rank: int) -> int:
    model = _without_weights(config, dtype, False, lora_rank=lora_rank)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _predict(
    config, name: str, *, dtype: str, critic: bool, lora_rank: int | None, quantize: str | None, **how: Any
) -> MemoryLedger:
    # A model for each: predicting takes a step, which leaves gradients behind.
    form = {"lora_rank": lora_rank, "quantize": quantize, "zero_stage": how["zero_stage"]}
    model = _without_weights(config, dtype, critic, **form)
    return predict_memory(model, optimizer_spec(name, critic=critic), **how)


def _measure(config, settings: list[dict[str, Any]], predicted: list[_Ledgers]) -> list[_Ledgers]:
    from rl_posttrain.machine.process import prepare_process

    prepare_process(verbose=False)

    from rl_posttrain.cost.measure import Setting, measure_memory

    num_processes = settings[-1]["num_processes"]
    needed = num_processes * max(sum(filter(None, ledger.components().values())) for ledger in predicted[-1].values())
    free = _free_bytes(num_processes)
    if needed > free:
        raise RecipeError(
            f"--measure: it needs {gib(needed)} GiB before activations, and {gib(free)} GiB are free here; leave it "
            "out for the prediction, or name a smaller model"
        )
    names = list(predicted[-1])
    return [dict(zip(names, measure_memory(config, names, Setting(**setting)), strict=True)) for setting in settings]


def _free_bytes(num_processes: int) -> int:
    import torch

    if torch.cuda.is_available():
        return sum(torch.cuda.mem_get_info(index)[0] for index in range(min(num_processes, torch.cuda.device_count())))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _row(name: str, predicted: list[_Ledgers], measured: list[_Ledgers] | None) -> dict[str, Any]:
    difference = None
    if measured and predicted[-1][name].total() is not None:
        difference = measured[-1][name].total() / predicted[-1][name].total() - 1
    return {
        "optimizer": name,
        "predicted": _entry(name, predicted),
        "measured": _entry(name, measured) if measured else None,
        "difference": difference,
    }


def _entry(name: str, ledgers: list[_Ledgers]) -> dict[str, Any]:
    ledger, baseline = ledgers[-1][name], ledgers[-1][_BASELINE]
    known = ledger.optimizer_state is not None
    return {
        **_sizes(ledger),
        "on_device": ledger.on_device(),
        "ratio": ledger.total() / baseline.total() if known else None,
        "ratio_of_weights_and_state": ledger.weights_and_state() / baseline.weights_and_state() if known else None,
        "unknown": ledger.unknown,
        **({"parts": _parts(ledgers[0][name], ledger)} if len(ledgers) > 1 else {}),
    }


def _sizes(ledger: MemoryLedger) -> dict[str, int | None]:
    return {**ledger.components(), "total": ledger.total()}


def _parts(policy: MemoryLedger, together: MemoryLedger) -> dict[str, dict[str, int | None]]:
    """The policy's sizes when it is trained alone, and what its critic adds to them."""
    alone, both = _sizes(policy), _sizes(together)
    added = {name: None if size is None or alone[name] is None else size - alone[name] for name, size in both.items()}
    return {"policy": alone, "critic": added}


def gib(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:,.3f}"
