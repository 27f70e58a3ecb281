"""Bytes of activations and logits, predicted by `check` and measured: what torch's allocator hands out at most.

    python experiments/memory/activations.py [--models bundled,small] [--precisions float32,bfloat16,autocast]
                                             [--batches 3] [--process]

For each precision, with and without gradient checkpointing, and for several micro batches: forward and backward passes
of a later micro batch of an update, whose gradients are added to those that are there. torch's profiler reports every
piece of memory that its allocator gives and takes back, so the peak is exact, and the same each time. On a GPU
`torch.cuda.max_memory_allocated` shows this. `small` is a Llama of 6 M parameters with an output layer of its own.

With `--process` the second micro batch runs in a process of its own besides: weights, gradients and all of the above
together, and what its resident memory grew by at most from before the model was there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRECISIONS = ("float32", "bfloat16", "autocast")
BATCHES = ((8, 12, 16), (32, 12, 16), (4, 32, 96))  # sequences, tokens of a prompt, tokens of a completion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bundled,small")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--batches", type=int, default=len(BATCHES), help="the first so many")
    parser.add_argument("--process", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(grown_by(**json.loads(arguments.one))))
        return
    head = ["model", "precision", "checkpointing", "sequences x tokens", "predicted", "allocated", "error"]
    head += ["predicted process", "measured", "error"] if arguments.process else []
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|", flush=True)
    for name in arguments.models.split(","):
        for precision in arguments.precisions.split(","):
            for checkpointing in (False, True):
                model = model_of(name, precision, checkpointing)
                for batch in BATCHES[: arguments.batches]:
                    cells = [name, precision, "yes" if checkpointing else "no", f"{batch[0]} x {sum(batch[1:])}"]
                    cells += compared(*of_a_step(model, precision, checkpointing, *batch))
                    if arguments.process and batch == BATCHES[1]:
                        cells += in_a_process(name, precision, checkpointing, batch)
                    print(f"| {' | '.join(cells)} |", flush=True)


def in_a_process(name: str, precision: str, checkpointing: bool, batch: tuple[int, int, int]) -> list[str]:
    """Cells of the predicted and the measured memory of a whole process."""
    case = {"name": name, "precision": precision, "checkpointing": checkpointing, "batch": batch}
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return compared(*json.loads(done.stdout.splitlines()[-1]))


def compared(predicted: int, measured: int) -> list[str]:
    return [mib(predicted), mib(measured), f"{predicted / measured - 1:+.1%}"]


def mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def model_of(name: str, precision: str, checkpointing: bool) -> Any:
    """A model that is ready for `of_a_step`."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rl_posttrain.models.find import BUNDLED, resolve_model
    from rl_posttrain.training.logprobs import add_completion_scoring

    if name == "bundled":
        model = AutoModelForCausalLM.from_pretrained(resolve_model(BUNDLED))
    elif name == "small":
        sizes = {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 6, "num_key_value_heads": 2}
        config = LlamaConfig(**sizes, num_hidden_layers=6, vocab_size=8192, tie_word_embeddings=False)
        model = AutoModelForCausalLM.from_config(config)
    else:
        sys.exit(f"--models={name}: no such model; name bundled or small")
    model = model.to(torch.bfloat16 if precision == "bfloat16" else torch.float32).train()
    add_completion_scoring(model, 1.0)
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model


def of_a_step(
    model: Any, precision: str, checkpointing: bool, sequences: int, prompt: int, completion: int
) -> tuple[int, int]:
    """Bytes at the peak of a micro batch on top of weights and gradients, predicted and allocated."""
    step(model, precision, 1, prompt, completion)
    allocated = allocated_at_most(lambda: step(model, precision, sequences, prompt, completion))
    return predicted(model, precision, checkpointing, sequences, prompt, completion), allocated


def predicted(model: Any, precision: str, checkpointing: bool, sequences: int, prompt: int, completion: int) -> int:
    from rl_posttrain.cost.activations import activations
    from rl_posttrain.cost.model_shape import shape_of

    found = activations(
        shape_of(model.config, num_parameters=0, tensors=0),
        sequences=sequences,
        length=prompt + completion,
        scored=completion,
        precision=precision,
        checkpointing=checkpointing,
        on_cpu=True,
    )
    return sum(found)


def step(model: Any, precision: str, sequences: int, prompt: int, completion: int) -> None:
    """Forward and backward passes of random tokens, the first of each sequence padding."""
    import torch

    ids = torch.randint(model.config.vocab_size, (sequences, prompt + completion))
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        logprobs, _ = model(input_ids=ids, attention_mask=mask, completion_tokens=completion)
    logprobs.sum().backward()


def allocated_at_most(do: Callable[[], None]) -> int:
    """Bytes that torch's CPU allocator has handed out at most during `do`, beyond those at its start."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        do()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):  # a stable sort
        held += event.nbytes()
        most = max(most, held)
    return most


def grown_by(name: str, precision: str, checkpointing: bool, batch: list[int]) -> tuple[int, int]:
    """Bytes of weights, gradients and a micro batch, predicted, and what this process's resident memory grows by."""
    from rl_posttrain.machine.process import use_cpu_if_no_gpu

    use_cpu_if_no_gpu()
    step(model_of("small", precision, checkpointing), precision, 1, *batch[1:])  # libraries have what they need
    before = resident("VmRSS")
    model = model_of(name, precision, checkpointing)
    for sequences in (1, batch[0], batch[0]):
        step(model, precision, sequences, *batch[1:])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return 2 * weights + predicted(model, precision, checkpointing, *batch), resident("VmHWM") - before


def resident(which: str) -> int:
    """Bytes of this process that are in memory: VmRSS now, VmHWM at most so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
