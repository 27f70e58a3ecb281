"""AdamS (arXiv:2505.16363) as one Triton kernel for CUDA, which reads and writes each element once.

This module is imported only when the kernel is used.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from rl_posttrain.optim.adams_kernels import Scalars, Triple, update_single

_BLOCK_SIZE = 1024


def update_triton(triples: Sequence[Triple], scalars: Scalars) -> None:
    """One launch for each contiguous tensor, of any shape; fp64 and the others go through `update_single`."""
    numbers = {}
    for weight, gradient, momentum in triples:
        if not weight.numel():
            continue
        if weight.dtype is torch.float64 or not all(t.is_contiguous() for t in (weight, gradient, momentum)):
            update_single([(weight, gradient, momentum)], scalars)
            continue
        if weight.device not in numbers:
            numbers[weight.device] = _on_device(scalars, weight.device)
        old, shrink, step = numbers[weight.device]
        grid = (triton.cdiv(weight.numel(), _BLOCK_SIZE),)
        _update[grid](
            weight, gradient, momentum, weight.numel(),
            old, scalars.new, scalars.keep, scalars.add, scalars.inner_eps, scalars.outer_eps, shrink, step,
            IN_MEMORY=isinstance(old, torch.Tensor), BLOCK_SIZE=_BLOCK_SIZE,
        )  # fmt: skip


def _on_device(scalars: Scalars, device: torch.device) -> tuple:
    """`old`, `shrink` and `step`: all plain numbers, or all tensors of shape () on the device if one of them is."""
    values = (scalars.old, scalars.shrink, scalars.step)
    if not any(isinstance(value, torch.Tensor) for value in values):
        return values
    # Filled and copied on the device: reading a value back would stop a CUDA graph's capture.
    return tuple(
        value.to(device, torch.float32)
        if isinstance(value, torch.Tensor)
        else torch.full((), value, dtype=torch.float32, device=device)
        for value in values
    )


@triton.jit
def _update(
    weights, gradients, momenta, size,
    old, new, keep, add, inner_eps, outer_eps, shrink, step,
    IN_MEMORY: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    if IN_MEMORY:
        old = tl.load(old)
        shrink = tl.load(shrink)
        step = tl.load(step)
    # 64 bits: a tensor may have more than 2**31 elements.
    places = tl.program_id(0).to(tl.int64) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    inside = places < size
    w = tl.load(weights + places, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradients + places, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(momenta + places, mask=inside, other=0.0).to(tl.float32)
    nu = old * (m * m) + new * (g * g)
    m = keep * m + add * g
    w = shrink * w - step * (m / (tl.sqrt(nu + inner_eps) + outer_eps))
    tl.store(momenta + places, m.to(momenta.dtype.element_ty), mask=inside)
    tl.store(weights + places, w.to(weights.dtype.element_ty), mask=inside)
