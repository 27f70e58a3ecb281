"""`rl-posttrain optim memory`: the ledger of a model under several optimizers, predicted and, if asked, measured."""

import os
from collections.abc import Sequence
from typing import Any

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.models.find import load_config, model_without_weights, published_config
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.optim import resolve_optimizer
from rl_posttrain.optim.ledger import MemoryLedger, predict_memory

_BASELINE = "adamw"
_DTYPES = ("bfloat16", "float32")
_STAGES = ("none", "0", "1", "2", "3")


def memory_of(
    model: str,
    optimizers: Sequence[str],
    *,
    zero_stage: str,
    num_processes: int,
    dtype: str,
    offload: bool,
    measure: bool,
) -> dict[str, Any]:
    """Bytes per device of each component, for each optimizer and for adamw, to which the ratios are.

    Args:
        model: a name of `PUBLISHED_SHAPES`, the bundled model, a local folder or a hub name; its config is read.
        zero_stage: DeepSpeed's, or ``none`` for plain PyTorch, where the weights have no fp32 masters.
        dtype: of the weights.
        measure: also take one real step with each optimizer, on `num_processes` processes of this machine.

    Returns:
        The arguments, ``num_parameters``, and ``rows``: ``optimizer``; ``predicted`` and ``measured`` (or None), each
        with ``total``, ``on_device``, ``ratio`` of the total to adamw's and ``ratio_of_weights_and_state``; and
        ``difference``, measured over predicted total less one.

    Raises:
        RecipeError: an argument cannot be used.
        EngineError: the measurement fails.
    """
    for key, value, known in (("--zero-stage", zero_stage, _STAGES), ("--dtype", dtype, _DTYPES)):
        if value not in known:
            raise RecipeError(f"{key}={value}: no such value; set one of {', '.join(known)}")
    stage = None if zero_stage == "none" else int(zero_stage)
    if offload and not stage:
        raise RecipeError(f"--offload: DeepSpeed offloads at stages 1 to 3, not {zero_stage}; set --zero-stage")
    config = _config(model)
    names = list(dict.fromkeys([*optimizers, _BASELINE]))
    specs = {name: resolve_optimizer(name, lr=1e-5, key="--optimizers") for name in names}
    for spec in specs.values():
        spec.refuse_shards(stage or 0, stage_key="--zero-stage")
    shared = {"zero_stage": stage, "num_processes": num_processes, "offload": offload}
    predicted = {
        # A model for each: predicting takes a step, which leaves gradients behind.
        name: predict_memory(model_without_weights(config, dtype), specs[name], **shared)
        for name in names
    }
    measured = _measure(config, predicted, dtype, shared) if measure else {}
    return {
        "model": model,
        "num_parameters": sum(parameter.numel() for parameter in model_without_weights(config).parameters()),
        "dtype": dtype,
        **shared,
        "rows": [_row(name, predicted, measured) for name in names],
    }


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


def _measure(config, predicted: dict[str, MemoryLedger], dtype: str, shared: dict[str, Any]) -> dict[str, MemoryLedger]:
    from rl_posttrain.machine.process import prepare_process

    prepare_process(verbose=False)

    from rl_posttrain.cost.measure import Setting, measure_memory

    setting = Setting(dtype=dtype, **shared)
    needed = setting.num_processes * max(
        sum(filter(None, ledger.components().values())) for ledger in predicted.values()
    )
    free = _free_bytes(setting.num_processes)
    if needed > free:
        raise RecipeError(
            f"--measure: it needs {gib(needed)} GiB before activations, and {gib(free)} GiB are free here; leave it "
            "out for the prediction, or name a smaller model"
        )
    return dict(zip(predicted, measure_memory(config, list(predicted), setting), strict=True))


def _free_bytes(num_processes: int) -> int:
    import torch

    if torch.cuda.is_available():
        return sum(torch.cuda.mem_get_info(index)[0] for index in range(min(num_processes, torch.cuda.device_count())))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _row(name: str, predicted: dict[str, MemoryLedger], measured: dict[str, MemoryLedger]) -> dict[str, Any]:
    difference = None
    if measured and predicted[name].total() is not None:
        difference = measured[name].total() / predicted[name].total() - 1
    return {
        "optimizer": name,
        "predicted": _entry(predicted[name], predicted[_BASELINE]),
        "measured": _entry(measured[name], measured[_BASELINE]) if measured else None,
        "difference": difference,
    }


def _entry(ledger: MemoryLedger, baseline: MemoryLedger) -> dict[str, Any]:
    known = ledger.optimizer_state is not None
    return {
        **ledger.components(),
        "total": ledger.total(),
        "on_device": ledger.on_device(),
        "ratio": ledger.total() / baseline.total() if known else None,
        "ratio_of_weights_and_state": ledger.weights_and_state() / baseline.weights_and_state() if known else None,
        "unknown": ledger.unknown,
    }


def gib(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:,.3f}"
