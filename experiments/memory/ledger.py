"""Memory of weights, gradients, masters and state, predicted and measured, for several engines, offloads and LoRA.

    python experiments/memory/ledger.py [--models smollm2-135m,llama-60m] [--processes 1,2] [--optimizer adams]

Each row is one real step of a model with random weights, in processes of its own: forward, backward, update. `held`
are the bytes of its live tensors, as `rl-posttrain optim memory --measure` counts them, beside the prediction.
`process` is what the resident memory of one process grew by at most, from before the model was there until after the
step: also activations of 8 tokens, what the engine needs besides, and what the allocator keeps.
"""

import argparse
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

from activations import compared, mib, resident


class Row(NamedTuple):
    said: str
    zero_stage: int | str | None
    offload: str = "none"
    lora_rank: int | None = None
    dtype: str = "bfloat16"


ROWS = (
    Row("plain PyTorch, fp32", None, dtype="float32"),
    Row("ZeRO-2", 2),
    Row("ZeRO-2, offload: optimizer", 2, "optimizer"),
    Row("ZeRO-3", 3),
    Row("ZeRO-3, offload: optimizer", 3, "optimizer"),
    Row("ZeRO-3, offload: parameters", 3, "parameters"),
    Row("FSDP2", "fsdp2"),
    Row("FSDP2, offload: parameters", "fsdp2", "parameters"),
    Row("LoRA, plain PyTorch, fp32", None, lora_rank=16, dtype="float32"),
    Row("LoRA, ZeRO-2", 2, lora_rank=16),
    Row("LoRA, ZeRO-3", 3, lora_rank=16),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="smollm2-135m,llama-60m")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--optimizer", default="adams")
    arguments = parser.parse_args()

    from rl_posttrain.machine.process import prepare_process, use_cpu_if_no_gpu

    prepare_process(verbose=False)
    use_cpu_if_no_gpu()
    import deepspeed  # noqa: F401, the processes of all rows have it from this one
    import peft  # noqa: F401
    import torch

    from rl_posttrain.cost import measure

    torch.set_num_threads(1)
    head = ("model", "processes", "engine", "predicted", "held", "error", "process", "more than predicted")
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|", flush=True)
    for model in arguments.models.split(","):
        for num_processes in map(int, arguments.processes.split(",")):
            for row in ROWS:
                setting = measure.Setting(
                    row.dtype, row.zero_stage, num_processes, row.offload, lora_rank=row.lora_rank
                )
                predicted = predict(model, arguments.optimizer, setting)
                held, process = measured(model, arguments.optimizer, setting)
                cells = [model, str(num_processes), row.said, *compared(predicted, held)]
                print(f"| {' | '.join([*cells, mib(process), mib(process - predicted)])} |", flush=True)


def predict(model: str, optimizer: str, setting: Any) -> int:
    import torch

    from rl_posttrain.cost.trained import make_model, optimizer_spec
    from rl_posttrain.models.find import published_config
    from rl_posttrain.optim.ledger import predict_memory

    how = {"critic": False, "lora_rank": setting.lora_rank, "zero_stage": setting.zero_stage}
    with torch.device("meta"):
        shapes = make_model(published_config(model), setting.dtype, **how)
    ledger = predict_memory(
        shapes,
        optimizer_spec(optimizer, critic=False),
        zero_stage=setting.zero_stage,
        num_processes=setting.num_processes,
        offload=setting.offload,
    )
    return ledger.total()


def measured(model: str, optimizer: str, setting: Any) -> tuple[int, int]:
    """Bytes held, and those that a process grows by: the most of the processes, which are forks of this one."""
    start = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found, gives = start.Pipe(duplex=False)
    ranks = [
        start.Process(target=measure_as, args=(rank, port, model, optimizer, setting, gives))
        for rank in range(setting.num_processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        if process.exitcode:
            sys.exit(f"a process ended with status {process.exitcode}")
    every = [found.recv() for _ in ranks]
    return max(held for held, _ in every), max(grown for _, grown in every)


def measure_as(rank: int, port: int, model: str, optimizer: str, setting: Any, gives: Any) -> None:
    """Send the bytes that this process holds, and by which it grew."""
    from transformers import LlamaConfig

    from rl_posttrain.cost import measure
    from rl_posttrain.models.find import published_config

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(setting.num_processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # A tiny model first, so that libraries have what they need.
    tiny = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    measure.measure_here(LlamaConfig(**tiny, vocab_size=64), optimizer, setting)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    held = measure.measure_here(published_config(model), optimizer, setting).total()
    gives.send((held, resident("VmHWM") - before))


if __name__ == "__main__":
    main()
