"""What the project's optimizers have in common: what they refuse, and what stands around a step."""

from collections.abc import Callable

import torch


def check_settings(*, lr: float | torch.Tensor, betas: tuple[float, ...], eps: float, weight_decay: float) -> None:
    """Fail on a hyperparameter out of its range.

    Raises:
        ValueError: names the hyperparameter, its value and its range.
    """
    if isinstance(lr, torch.Tensor) and lr.numel() != 1:
        raise ValueError(f"Invalid lr: a tensor of shape {tuple(lr.shape)}; it must have one element")
    if not lr >= 0:
        raise ValueError(f"Invalid lr: {lr}; it must not be negative")
    if len(betas) != 2:
        raise ValueError(f"Invalid betas: {betas}; there are two of them, for the momentum and the normalizer")
    for index, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta{index + 1}: betas[{index}]={beta}; it must be in [0, 1)")
    if not eps > 0:
        raise ValueError(f"Invalid eps: {eps}; it must be above 0: a zero gradient would divide by zero")
    if not weight_decay >= 0:
        raise ValueError(f"Invalid weight_decay: {weight_decay}; it must not be negative")


def check_gradient(gradient: torch.Tensor, name: str) -> None:
    """Fail on gradients that no optimizer here takes.

    Raises:
        ValueError: the gradient is sparse or complex.
    """
    if gradient.is_sparse or gradient.is_complex():
        kind = "sparse" if gradient.is_sparse else "complex"
        raise ValueError(f"gradient={kind}: {name} takes dense real gradients only; use torch.optim for this parameter")


def evaluate(closure: Callable[[], torch.Tensor] | None) -> torch.Tensor | None:
    """The closure's loss, for a step that runs without gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def local_parts(parameter: torch.Tensor, gradient: torch.Tensor, *state: torch.Tensor | None) -> tuple:
    """The tensors that a step is done on: of DTensors (FSDP2) this process's own parts, others as they are."""
    if not hasattr(parameter, "to_local"):
        return parameter, gradient, *state
    if hasattr(gradient, "placements") and gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return tuple(None if tensor is None else tensor.to_local() for tensor in (parameter, gradient, *state))
