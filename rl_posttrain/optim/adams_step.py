"""What a step of AdamS is run with: the numbers of a group, and one of the ways of `adams_kernels`."""

from collections.abc import Callable
from typing import Any

import torch

import rl_posttrain.optim.adams_kernels as kernels
from rl_posttrain.optim.checks import has_triton, kernel_missing
from rl_posttrain.optim.elementwise import Triple, rate
from rl_posttrain.optim.native import can_compile

COMPILED_FROM = 2**16
"""Elements of all parameters from which a step on a CPU compiles its kernel; below, compiling takes more time than it
saves."""


def scalars_of(group: dict[str, Any], step: Any, device: torch.device) -> kernels.Scalars:
    """The numbers of a group's step.

    Args:
        step: of the bias correction, from 1 on, a number or a tensor of shape (); None where there is none.
    """
    beta1, beta2 = group["betas"]
    lr = rate(group, device)
    if isinstance(step, torch.Tensor):
        step = step.double()  # 1 - beta1**step loses digits while step is small
    correction = 1.0 if step is None else 1 / (1 - beta1**step)
    inside = group["eps_inside_sqrt"]
    return kernels.Scalars(
        old=beta2 * correction**2,
        new=1 - beta2,
        keep=beta1,
        add=beta1 - 1 if group["maximize"] else 1 - beta1,
        inner_eps=group["eps"] if inside else 0.0,
        outer_eps=0.0 if inside else group["eps"],
        shrink=1 - lr * group["weight_decay"],
        step=lr * correction,
        new_momentum=group["variant"] == "new_momentum",
    )


def choose_way(group: dict[str, Any], triple: Triple, num_elements: int) -> Callable:
    """The function that runs the step, as `foreach` and `fused` say, or by device and size.

    Raises:
        EngineError: `fused` is True, and there is no kernel for this device.
    """
    foreach, fused, device = group["foreach"], group["fused"], triple[0].device.type
    if device == "meta":
        return kernels.update_foreach  # shapes alone, such as the ledger's
    if foreach is None and fused is None:
        if group["variant"] == "new_momentum":
            foreach = device != "cpu"
        elif device == "cpu":
            dtypes = (tensor.dtype for tensor in triple)
            fused = num_elements >= COMPILED_FROM and can_compile("adams", *dtypes)
        else:
            fused = has_triton(device)
            foreach = not fused
    if not fused:
        return kernels.update_foreach if foreach else kernels.update_single
    if device == "cpu":
        return kernels.update_compiled
    if not has_triton(device):
        raise kernel_missing("AdamS", device)
    from rl_posttrain.optim.adams_triton import update_triton

    return update_triton
