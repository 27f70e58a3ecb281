"""Step time of optimizers on a model's parameter shapes, in turn, beside torch's fused AdamW; torch alone."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.table import build_optimizer, optimizer_class_and_arguments
from rl_posttrain.plugins import did_you_mean

# Published sizes: vocabulary, hidden, intermediate, layers, key-value width; all with tied embeddings.
MODELS = {
    "smollm2-135m": (49152, 576, 1536, 30, 192),
    "smollm2-360m": (49152, 960, 2560, 32, 320),
    "qwen2.5-0.5b": (151936, 896, 4864, 24, 128),
}
_BASELINE = "adamw fused"
_COPY_VALUES = 2**26


class Llama(nn.Module):
    """The parameters of a Llama, under its layers' kinds, and no forward pass."""

    def __init__(self, vocabulary: int, hidden: int, intermediate: int, layers: int, key_value: int):
        super().__init__()
        shapes = [(hidden, hidden), (hidden, key_value), (hidden, key_value), (hidden, hidden)]
        shapes += [(hidden, intermediate), (hidden, intermediate), (intermediate, hidden)]
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.linears = nn.ModuleList(nn.Linear(*shape, bias=False) for _ in range(layers) for shape in shapes)
        self.norms = nn.ParameterList(torch.ones(hidden) for _ in range(2 * layers + 1))
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        self.lm_head.weight = self.embedding.weight


def bench(model: str, optimizers: Sequence[str], *, device: str, dtype: str, num_steps: int) -> dict[str, Any]:
    """Median and least milliseconds of a step of each optimizer, ratios to fused AdamW, and GB/s.

    Every optimizer steps once in turn, `num_steps` times, so that a slow spell of the machine meets all of them; a
    ratio is the median over these rounds. Its first step, which compiles and allocates, is reported apart. ``gb_per_s``
    counts each byte of weight, gradient and state that a step must read or write once; ``copy_gb_per_s`` is a large
    copy's bytes, read and written, in the same process.

    Args:
        model: a name of `MODELS`.
        optimizers: names as in a recipe.
        dtype: of weights and gradients.

    Raises:
        RecipeError: no such model, device or optimizer.
    """
    if model not in MODELS:
        raise RecipeError(f"MODEL={model}: no shapes of that name; {did_you_mean(model, MODELS)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device=cuda: torch finds no CUDA device; see `rl-posttrain doctor`, or leave it out")
    with torch.device(device):
        torch.manual_seed(0)
        holder = Llama(*MODELS[model]).to(getattr(torch, dtype))
    for parameter in holder.parameters():
        parameter.grad = torch.randn_like(parameter)
    running = {_BASELINE: torch.optim.AdamW(holder.parameters(), fused=True)}
    for name in optimizers:
        cls, arguments = optimizer_class_and_arguments(name, lr=1e-5, weight_decay=0.0, options={})
        running[name] = build_optimizer(cls, holder, **arguments)
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
            }
        )
    return {
        "model": model,
        "num_parameters": sum(parameter.numel() for parameter in holder.parameters()),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "dtype": dtype,
        "torch": torch.__version__,
        "num_steps": num_steps,
        "copy_gb_per_s": _copy_bandwidth(device),
        "steps": rows,
    }


def _timed(step: Callable[[], Any], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _bytes_moved(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Weights and state in and out, gradients in."""
    total = 0
    for parameter in model.parameters():
        state = sum(value.nbytes for value in optimizer.state[parameter].values() if torch.is_tensor(value))
        total += 2 * parameter.nbytes + parameter.grad.nbytes + 2 * state
    return total


def _copy_bandwidth(device: str) -> float:
    source = torch.ones(_COPY_VALUES, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / min(_timed(lambda: target.copy_(source), device) for _ in range(8)) / 1e9
