"""Memory that `rl_posttrain.optim.ledger` predicts, counted on the live objects of one real training step.

For several processes `measure_memory` runs this module under torchrun; each process then calls `_main`.
"""

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import nn
from transformers import AutoConfig

from rl_posttrain.cost.trained import make_model, optimizer_spec
from rl_posttrain.errors import EngineError
from rl_posttrain.machine.process import prepare_process, use_cpu_if_no_gpu
from rl_posttrain.models.quantized import held_tensors, quantized_layers
from rl_posttrain.optim.ledger import MemoryLedger, Offload, offloaded, state_bytes
from rl_posttrain.optim.swap import check_and_find_shards, running_optimizer
from rl_posttrain.training.backends.deepspeed import offload_config, start_deepspeed, wrap
from rl_posttrain.training.backends.fsdp2 import shard, start_fsdp2

_NUM_TOKENS = 8


@dataclass(frozen=True)
class Setting:
    """How a model is trained, as for `predict_memory`; `dtype` is the weights', the last three are `make_model`'s."""

    dtype: str
    zero_stage: int | Literal["fsdp2"] | None
    num_processes: int = 1
    offload: Offload = "none"
    fp32_gradients: bool = False
    critic: bool = False
    lora_rank: int | None = None
    quantize: str | None = None


def measure_memory(config, optimizers: Sequence[str], setting: Setting) -> list[MemoryLedger]:
    """A ledger for each optimizer, of one step of the model with random weights: forward, backward, update.

    Weights, masters and state are counted after the step, gradients before it. On several processes, which are really
    started, it is the largest count of each. The device is CUDA if there is a GPU, else the CPU.

    Args:
        config: of a causal language model of transformers.
        optimizers: names as in a recipe.

    Raises:
        EngineError: DeepSpeed or a process fails; the message holds the error it printed.
    """
    if setting.num_processes == 1:
        return [measure_here(config, name, setting) for name in optimizers]
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        task = {"folder": folder, "optimizers": list(optimizers), "setting": vars(setting)}
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc_per_node={setting.num_processes}", "-m", __name__, json.dumps(task)]
        done = subprocess.run(start, capture_output=True, text=True)
        answer = Path(folder) / "ledgers.json"
        if done.returncode or not answer.is_file():
            lines = [line for line in done.stderr.splitlines() if "ChildFailedError" not in line]
            # A process that was killed, for want of memory perhaps, printed no error; torchrun tells its signal.
            said = [line for line in lines if "Error: " in line or "Signal " in line] or ["it printed no error"]
            raise EngineError(
                f"--num-processes={setting.num_processes}: a process failed ({said[0].strip()}); measure fewer "
                "processes or a smaller model, or leave --measure out"
            )
        ledgers = json.loads(answer.read_text())
    return [MemoryLedger(**ledger | {"on_host": tuple(ledger["on_host"])}) for ledger in ledgers]


def count_memory(model: nn.Module, name: str, setting: Setting) -> MemoryLedger:
    """Bytes that this process holds for `model`, from one step with the optimizer `name`.

    Args:
        model: of `make_model`; a critic is trained and counted too.
    """
    spec = optimizer_spec(name, critic=setting.critic)
    if setting.zero_stage == "fsdp2":
        shard(model, dtype=setting.dtype, device=model.device.type, offload=setting.offload == "parameters")
    optimizer = spec.build(model)
    if setting.zero_stage is None:
        _backward(model, model, lambda loss: loss.backward())
        gradients = _bytes(parameter.grad for parameter in model.parameters())
        optimizer.step()
        return MemoryLedger(_bytes(_weights(model)), gradients, 0, state_bytes(optimizer))
    if setting.zero_stage == "fsdp2":
        _backward(model, model, lambda loss: loss.backward())
        gradients = _bytes(parameter.grad.to_local() for parameter in model.parameters() if parameter.grad is not None)
        optimizer.step()
        weights = _bytes(parameter.to_local() for parameter in model.parameters())
        return MemoryLedger(weights, gradients, 0, state_bytes(optimizer), offloaded(setting.offload))
    engine, wrapped = wrap(model, optimizer, _deepspeed_config(setting))
    check_and_find_shards(wrapped, *spec.classes)
    _backward(model, engine, engine.backward)
    gradients = _bytes(_gradients(model, wrapped, setting))
    engine.step()
    weights = _weights(model)
    weights += [parameter.ds_tensor for parameter in model.parameters() if hasattr(parameter, "ds_tensor")]
    of_weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
    masters = [tensor for tensor in _masters(wrapped) if tensor.untyped_storage().data_ptr() not in of_weights]
    state = state_bytes(running_optimizer(wrapped))
    engine.destroy()
    return MemoryLedger(_bytes(weights), gradients, _bytes(masters), state, offloaded(setting.offload))


def measure_here(config, name: str, setting: Setting) -> MemoryLedger:
    """The ledger of this process, from one step of a new model with the optimizer `name`."""
    device = "cpu" if use_cpu_if_no_gpu() else f"cuda:{torch.distributed.get_rank() if _several() else 0}"
    if setting.zero_stage == "fsdp2":
        start_fsdp2(on_cpu=device == "cpu")
    elif setting.zero_stage is not None:
        start_deepspeed(on_cpu=device == "cpu")
    with torch.device(device):
        model = make_model(
            config,
            setting.dtype,
            critic=setting.critic,
            lora_rank=setting.lora_rank,
            quantize=setting.quantize,
            zero_stage=setting.zero_stage,
        )
    ledger = count_memory(model, name, setting)
    del model
    gc.collect()  # an engine and its hooks refer to each other
    return ledger


def _several() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _backward(model: nn.Module, forward, backward) -> None:
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.randint(vocabulary, (1, _NUM_TOKENS), device=next(model.parameters()).device)
    with model.critic.watching(_NUM_TOKENS - 1) if hasattr(model, "critic") else contextlib.nullcontext([]) as values:
        loss = forward(input_ids=tokens, labels=tokens).loss
    backward(sum((value.square().mean() for value in values), loss))


def _deepspeed_config(setting: Setting) -> dict[str, Any]:
    return {
        **({"data_types": {"grad_accum_dtype": "fp32"}} if setting.fp32_gradients else {}),
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": setting.dtype == "bfloat16"},
        "zero_optimization": {"stage": setting.zero_stage, **offload_config(setting.offload)},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _masters(wrapped) -> list[torch.Tensor]:
    """DeepSpeed's fp32 weights, flat under ZeRO-1 to 3; under ZeRO-0 in fp32 they are the model's own."""
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):  # ZeRO-1 and 2, ZeRO-3
        if hasattr(wrapped, name):
            return list(getattr(wrapped, name))
    return [parameter for group in running_optimizer(wrapped).param_groups for parameter in group["params"]]


def _gradients(model: nn.Module, wrapped, setting: Setting) -> list[torch.Tensor | None]:
    """Reduced gradients where each ZeRO stage keeps them before its step."""
    found = [parameter.grad for parameter in model.parameters()]
    if setting.zero_stage in (1, 2) and setting.offload == "none":
        found += [part for parts in wrapped.averaged_gradients.values() for part in parts]
    if setting.zero_stage == 3:
        found.append(wrapped.grad_partitions_flat_buffer)
    if setting.offload != "none":
        found += [master.grad for master in _masters(wrapped)]
    return found


def _weights(model: nn.Module) -> list[torch.Tensor]:
    """All tensors that stand for weights; a weight in 4 bits has several."""
    in_4_bits = [tensor for _, layer in quantized_layers(model) for tensor in held_tensors(layer)]
    return [*in_4_bits, *(parameter.data for parameter in model.parameters())]


def _bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes of the storages behind `tensors`, each counted once: many views share one flat buffer, padding included."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _largest(ledger: MemoryLedger) -> MemoryLedger:
    """The largest count over all processes, by component."""
    components = ledger.components()
    counts = torch.tensor(list(components.values()))
    torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)
    return MemoryLedger(**dict(zip(components, counts.tolist(), strict=True)), on_host=ledger.on_host)


def _main(task: dict[str, Any]) -> None:
    prepare_process(verbose=False)
    transformers.set_seed(0)
    setting = Setting(**task["setting"])
    # Also for plain PyTorch, which needs no process group: the processes compare their counts.
    torch.distributed.init_process_group("gloo" if use_cpu_if_no_gpu() else "cpu:gloo,cuda:nccl")
    config = AutoConfig.from_pretrained(task["folder"])
    ledgers = [_largest(measure_here(config, name, setting)) for name in task["optimizers"]]
    if torch.distributed.get_rank() == 0:
        (Path(task["folder"]) / "ledgers.json").write_text(json.dumps([vars(ledger) for ledger in ledgers]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
