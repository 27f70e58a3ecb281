"""What an update changes and needs: norm of the change, bytes of optimizer state, peak memory."""

import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import TrainerCallback

from rl_posttrain.optim.ledger import state_bytes
from rl_posttrain.optim.swap import running_optimizer

# Weights whose change is measured. Measuring all of them would need a second copy of the weights during the step, which
# is more than a lean optimizer saves.
_SAMPLE_SIZE = 2**22


class UpdateNorm:
    """The L2 norm of what one optimizer step changes, from an even sample of all weights (all, up to 4 M of them).

    It reads the weights that the optimizer really steps on (fp32 masters, and under ZeRO this process's shard), before
    and after each ``step()``. DeepSpeed calls that once a parameter group; the parts add up until `take`.

    Args:
        optimizer: the one that runs, as `running_optimizer` finds it.
        num_parameters: trainable weights of the whole model.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, num_parameters: int):
        self._num_parameters = num_parameters
        self._stride = _prime_from(math.ceil(num_parameters / _SAMPLE_SIZE))
        self._before: list[torch.Tensor] = []
        self._squares = self._count = self._weights = 0.0
        optimizer.register_step_pre_hook(lambda running, *_: self._remember(running))
        optimizer.register_step_post_hook(lambda running, *_: self._compare(running))

    def take(self) -> tuple[float, float, float]:
        """Squared changes, number of sampled weights and their squares before, summed over the updates since then."""
        taken = self._squares, self._count, self._weights
        self._squares = self._count = self._weights = 0.0
        return taken

    def norm(self, squares: float, count: float) -> float:
        """The whole model's norm from the sums over all processes; NaN before the first step."""
        return math.sqrt(self._num_parameters * squares / count) if count else math.nan

    def _remember(self, optimizer: torch.optim.Optimizer) -> None:
        self._before = [part.clone() for part in self._sampled(optimizer)]
        # Added up on the device, which is waited for once.
        self._weights += float(sum(part.float().square().sum(dtype=torch.float64) for part in self._before))

    def _compare(self, optimizer: torch.optim.Optimizer) -> None:
        for before, after in zip(self._before, self._sampled(optimizer), strict=True):
            self._squares += (after - before).float().square().sum(dtype=torch.float64).item()
            self._count += before.numel()
        self._before = []

    def _sampled(self, optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
        """Every stride-th value of all weights in a row, so that small tensors give their share too."""
        passed = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                tensor = parameter.detach()
                tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
                yield tensor.reshape(-1)[-passed % self._stride :: self._stride]
                passed += tensor.numel()


class UpdateWatch(TrainerCallback):
    """A callback of transformers: follows the update norm once the optimizer that really runs is there."""

    def __init__(self, model: torch.nn.Module):
        # Under ZeRO-3 a parameter's own size is 0; ds_numel is its whole size.
        self._num_parameters = sum(
            getattr(parameter, "ds_numel", parameter.numel())
            for parameter in model.parameters()
            if parameter.requires_grad
        )
        self._norm: UpdateNorm | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        self._optimizer = running_optimizer(optimizer)
        self._norm = UpdateNorm(self._optimizer, self._num_parameters)

    def metrics(self, accelerator) -> dict[str, float]:
        """`update_norm`, `weight_norm`, `optimizer_state_bytes` and `peak_memory_bytes` of the step just made.

        All processes call it.

        Bytes are those of the process with the most.
        """
        of_memory = state_bytes(self._optimizer), peak_memory_bytes(accelerator.device)
        mine = torch.tensor([*self._norm.take(), *of_memory], dtype=torch.float64)
        every = accelerator.gather(mine.to(accelerator.device).unsqueeze(0))
        squares, count, weights = every[:, :3].sum(0).tolist()
        state, peak = every[:, 3:].max(0).values.tolist()
        return {
            "update_norm": self._norm.norm(squares, count),
            "weight_norm": self._norm.norm(weights, count),
            "optimizer_state_bytes": int(state),
            "peak_memory_bytes": int(peak),
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process has used: of the GPU, or main memory where it trains on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux it includes the parent's memory at the moment it started this process.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _prime_from(number: int) -> int:
    """The smallest prime from `number` on, or 1: such a stride meets all columns of a matrix, whatever its width."""
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
