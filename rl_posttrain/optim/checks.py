"""What the project's optimizers share: checks of their settings and gradients, and what surrounds a step."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rl_posttrain.errors import EngineError

SHAPED_STATE = {"exp_avg", "exp_avg_sq", "momentum_buffer"}
"""What AdamS, SCALE and PowerStep keep in the shape of the parameter. Their kernels trust it."""


def check_settings(
    *, lr: float | torch.Tensor, weight_decay: float, betas: tuple[float, ...] = (0.0, 0.0), eps: float | None = None
) -> None:
    """Fail on a hyperparameter out of its range. An optimizer without betas or eps names none.

    Raises:
        ValueError: names the hyperparameter, its value and its range.
    """
    if isinstance(lr, torch.Tensor) and lr.numel() != 1:
        raise ValueError(f"Invalid lr: a tensor of shape {tuple(lr.shape)}; it must have one element")
    if not lr >= 0:
        raise ValueError(f"Invalid lr: {lr}; it must be a number, 0 or above")
    if len(betas) != 2:
        raise ValueError(f"Invalid betas: {betas}; there are two of them, for the momentum and the normalizer")
    for index, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta{index + 1}: betas[{index}]={beta}; it must be in [0, 1)")
    if eps is not None and not eps > 0:
        raise ValueError(f"Invalid eps: {eps}; it must be above 0: a zero gradient would divide by zero")
    if not weight_decay >= 0:
        raise ValueError(f"Invalid weight_decay: {weight_decay}; it must be a number, 0 or above")


def check_gradient(gradient: torch.Tensor, name: str) -> None:
    """Fail on gradients that the optimizer `name` does not take.

    Raises:
        ValueError: the gradient is sparse or complex.
    """
    if gradient.is_sparse or gradient.is_complex():
        kind = "sparse" if gradient.is_sparse else "complex"
        raise ValueError(f"gradient={kind}: {name} takes dense real gradients only; use torch.optim for this parameter")


def check_gradients(optimizer: torch.optim.Optimizer) -> None:
    """`check_gradient` of all gradients of `optimizer`, before any of them moves anything."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                check_gradient(parameter.grad, type(optimizer).__name__)


def check_shapes(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Fail on a state of a model of other shapes, such as one with another vocabulary, before anything is loaded.

    Raises:
        ValueError: names the first such parameter, and both shapes.
    """
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=False)):
        names = group.get("param_names") or [
            f"parameter {place} of group {number}" for place in range(len(saved["params"]))
        ]
        for name, parameter, place in zip(names, group["params"], saved["params"], strict=False):
            for kept in SHAPED_STATE & state_dict["state"].get(place, {}).keys():
                check_shape(parameter, state_dict["state"][place][kept], name, kept)


def check_shape(parameter: torch.Tensor, kept: torch.Tensor, name: str = "a parameter", what: str = "exp_avg") -> None:
    """Fail where `kept`, what the state holds under `what`, has another shape than its parameter.

    Raises:
        ValueError: names `name` and both shapes.
    """
    if kept.shape != parameter.shape:
        raise ValueError(
            f"{name}={tuple(parameter.shape)}: the loaded state has {what} of shape {tuple(kept.shape)}, so it is of "
            "another model; load the state of this one, or none"
        )


def unhooked(step: Callable) -> Callable:
    """The function of a bound method `step` without torch's hooks, for the optimizer around it has run them.

    torch puts its hooks around the `step` of every class that an object was made of.
    """
    function = step.__func__
    return function.__wrapped__ if getattr(function, "hooked", False) else function


def evaluate(closure: Callable[[], torch.Tensor] | None) -> torch.Tensor | None:
    """Call the closure with gradients on, inside a step that has them off; its loss, a scalar tensor."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def local_parts(parameter: torch.Tensor, gradient: torch.Tensor, *state: torch.Tensor | None) -> tuple:
    """The tensors that a step is done on: this process's own part of each DTensor (FSDP2), others as they are.

    Args:
        parameter, gradient, *state: of one shape.

    Returns:
        As many tensors, of one shape: that of the part. None stays None.
    """
    if not hasattr(parameter, "to_local"):
        return parameter, gradient, *state
    if hasattr(gradient, "placements") and gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return tuple(None if tensor is None else tensor.to_local() for tensor in (parameter, gradient, *state))


@functools.cache
def has_triton(device: str) -> bool:
    """Whether kernels of Triton run on this type of device."""
    return device == "cuda" and importlib.util.find_spec("triton") is not None


def kernel_missing(name: str, device: str) -> EngineError:
    """The error for ``fused=True`` on a device that the optimizer `name` has no kernel for."""
    needs = "a CPU, or CUDA with Triton"
    return EngineError(
        f"fused=True: the parameters are on {device}, and {name}'s kernel needs {needs}; leave fused out"
    )


def adopt_old_names(group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Complete a group of a state dict of an earlier version with `defaults`, and translate what it calls otherwise.

    Earlier versions had one argument, `implementation`, for what `foreach` and `fused` say as in torch.
    """
    old = group.pop("implementation", "auto")
    if old != "auto":
        group |= {"foreach": {"foreach": True}, "single": {"fused": False}}.get(old, {"fused": True})
    for name, value in defaults.items():
        group.setdefault(name, value)
