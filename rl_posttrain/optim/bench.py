"""Step time of optimizers on the parameter shapes of a model, compared with torch's fused AdamW.

It is the command `rl-posttrain optim bench`. On a machine with torch (and Triton) and nothing else,
`python -m rl_posttrain.optim.bench` takes the same arguments.
"""

import argparse
import inspect
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.optim.ledger import state_bytes
from rl_posttrain.optim.spec import resolve_optimizer

_BASELINE = "adamw fused"
# Large enough that on a GPU the launch takes no part of the time.
_COPY_VALUES = {"cpu": 2**26, "cuda": 2**28}
_FLAT = ("adams", "adamw", "sgd", "lion", "sign_sgd", "stateless_adam", "powerstep")
OPTIMIZERS_BY_DEFAULT = "adams,adamw,scale,sgd"
FLAT_BY_DEFAULT = "adams,adamw,sgd"


class Llama(nn.Module):
    """The parameters of a Llama or Qwen2 in layers of the right kinds, without a forward pass."""

    def __init__(self, shapes: Mapping[str, Any]):
        super().__init__()
        hidden, intermediate, vocabulary = shapes["hidden_size"], shapes["intermediate_size"], shapes["vocab_size"]
        key_value = hidden // shapes["num_attention_heads"] * shapes["num_key_value_heads"]
        biased = shapes["model_type"] == "qwen2"
        linears = [(hidden, hidden, biased), (hidden, key_value, biased), (hidden, key_value, biased)]
        linears += [(hidden, hidden, False), (hidden, intermediate, False), (hidden, intermediate, False)]
        linears += [(intermediate, hidden, False)]
        layers = range(shapes["num_hidden_layers"])
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.linears = nn.ModuleList(nn.Linear(*sizes) for _ in layers for sizes in linears)
        self.norms = nn.ParameterList(torch.ones(hidden) for _ in range(2 * len(layers) + 1))
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        if shapes["tie_word_embeddings"]:
            self.lm_head.weight = self.embedding.weight


class Flat(nn.Module):
    """As many parameters as a Llama has, in one tensor, as DeepSpeed's ZeRO-1 to 3 hand them to an optimizer."""

    def __init__(self, shapes: Mapping[str, Any]):
        super().__init__()
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in Llama(shapes).parameters())
        self.flat = nn.Parameter(torch.randn(count))


def bench(
    model: str, optimizers: Sequence[str], *, device: str, dtype: str, num_steps: int, flat: bool = False
) -> dict[str, Any]:
    """Median and least milliseconds of a step of each optimizer, ratios to fused AdamW, and GB/s.

    In each of `num_steps` rounds every optimizer makes one step, so that a slow moment of the machine affects all of
    them. A ratio is the median over the rounds. The first step, which compiles and allocates, is reported apart.
    ``gb_per_s`` counts each byte of weight, gradient and state that a step must read or write. ``copy_gb_per_s`` is the
    same for a large copy in this process. On a GPU, ``launches`` and ``kernel_ms`` are the kernels of a further step
    and their time on the device, by torch's profiler.

    Args:
        model: a name of `PUBLISHED_SHAPES`.
        optimizers: names as in a recipe. If `dtype` is bfloat16, an optimizer with a `state_dtype` also runs with fp32
            state.
        dtype: of weights and gradients.
        flat: all parameters in one tensor.

    Raises:
        RecipeError: no such model, device or optimizer, or an optimizer that needs matrices is given one flat tensor.
    """
    if model not in PUBLISHED_SHAPES:
        raise RecipeError(f"MODEL={model}: no shapes of that name; {did_you_mean(model, PUBLISHED_SHAPES)}")
    for key, value, known in (("--device", device, ("cpu", "cuda")), ("--dtype", dtype, ("float32", "bfloat16"))):
        if value not in known:
            raise RecipeError(f"{key}={value}: no such value; set one of {', '.join(known)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device=cuda: torch finds no CUDA device; see `rl-posttrain doctor`, or leave it out")
    if flat and (unfit := [name for name in optimizers if name not in _FLAT]):
        raise RecipeError(f"--flat: {unfit[0]} needs whole matrices; leave it out, or choose of {', '.join(_FLAT)}")
    with torch.device(device):
        torch.manual_seed(0)
        holder = (Flat if flat else Llama)(PUBLISHED_SHAPES[model]).to(getattr(torch, dtype))
    for parameter in holder.parameters():
        parameter.grad = torch.randn_like(parameter)
    running = {_BASELINE: torch.optim.AdamW(holder.parameters(), fused=True)}
    for name in optimizers:
        spec = resolve_optimizer(name, lr=1e-5, key="--optimizers")
        running[name] = spec.build(holder)
        if dtype != "float32" and "state_dtype" in inspect.signature(spec.cls).parameters:
            in_fp32 = {"state_dtype": "float32"}
            wide = resolve_optimizer(name, lr=1e-5, options=in_fp32, key="--optimizers")
            running[f"{name}, fp32 state"] = wide.build(holder)
    first = {name: _timed(optimizer.step, device) for name, optimizer in running.items()}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(num_steps):
        for name, optimizer in running.items():
            seconds[name].append(_timed(optimizer.step, device))
    rows = []
    for name, optimizer in running.items():
        ratios = [own / base for own, base in zip(seconds[name], seconds[_BASELINE], strict=True)]
        rows.append(
            {
                "optimizer": name,
                "median_ms": 1e3 * statistics.median(seconds[name]),
                "least_ms": 1e3 * min(seconds[name]),
                "ratio": statistics.median(ratios),
                "first_step_s": first[name],
                "gb_per_s": _bytes_moved(holder, optimizer) / statistics.median(seconds[name]) / 1e9,
                **(_kernels(optimizer.step) if device == "cuda" else {}),
            }
        )
    return {
        "model": model,
        "num_parameters": sum(parameter.numel() for parameter in holder.parameters()),
        "num_tensors": len(list(holder.parameters())),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "dtype": dtype,
        "torch": torch.__version__,
        "num_steps": num_steps,
        "copy_gb_per_s": _copy_bandwidth(device),
        "steps": rows,
    }


def print_bench(result: dict[str, Any]) -> None:
    """The result for people: a row for each optimizer."""
    tensors = "1 tensor" if result["num_tensors"] == 1 else f"{result['num_tensors']} tensors"
    print(
        f"{result['model']}: {result['num_parameters']:,} parameters in {tensors}, {result['dtype']}, on "
        f"{result['device']}; a copy moves {result['copy_gb_per_s']:.0f} GB/s"
    )
    on_gpu = "launches" in result["steps"][0]
    width = max(len(row["optimizer"]) for row in result["steps"])
    print(
        f"{'optimizer':<{width}}  median ms  least ms  ratio  GB/s  of copy  first step s"
        + ("  launches  kernels ms" if on_gpu else "")
    )
    for row in result["steps"]:
        print(
            f"{row['optimizer']:<{width}} {row['median_ms']:10.2f} {row['least_ms']:9.2f} {row['ratio']:6.2f} "
            f"{row['gb_per_s']:5.0f} {row['gb_per_s'] / result['copy_gb_per_s']:8.0%} {row['first_step_s']:13.1f}"
            + (f" {row['launches']:9} {row['kernel_ms']:11.2f}" if on_gpu else "")
        )


def optimizers_of(option: str | None, flat: bool) -> list[str]:
    """The names that ``--optimizers`` gives, or those that are timed without it."""
    return (option or (FLAT_BY_DEFAULT if flat else OPTIMIZERS_BY_DEFAULT)).split(",")


def main() -> None:
    """The command without typer."""
    parser = argparse.ArgumentParser(
        prog="python -m rl_posttrain.optim.bench", description=bench.__doc__.split("\n")[0]
    )
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--optimizers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--flat", action="store_true")
    given = parser.parse_args()
    try:
        result = bench(
            given.model,
            optimizers_of(given.optimizers, given.flat),
            device=given.device,
            dtype=given.dtype,
            num_steps=given.steps,
            flat=given.flat,
        )
    except RecipeError as error:
        parser.error(str(error))
    print_bench(result)


def _timed(step: Callable[[], Any], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _kernels(step: Callable[[], Any]) -> dict[str, Any]:
    """The kernels of one step: how many were launched, and their milliseconds on the device. Copies do not count."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [e for e in events if not (e.is_user_annotation or e.name.startswith(("Memcpy", "Memset")))]
    return {"launches": len(kernels), "kernel_ms": sum(event.device_time for event in kernels) / 1e3}


def _bytes_moved(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of a step: weights and state are read and written, gradients read."""
    total = 0
    for parameter in model.parameters():
        total += 2 * parameter.nbytes + parameter.grad.nbytes + 2 * state_bytes(optimizer, [parameter])
    return total


def _copy_bandwidth(device: str) -> float:
    source = torch.ones(_COPY_VALUES[device], device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / min(_timed(lambda: target.copy_(source), device) for _ in range(8)) / 1e9


if __name__ == "__main__":
    main()
