"""AdamS (arXiv:2505.16363) as Triton kernels for CUDA, which read and write each element once.

This module is imported only when a kernel is used.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from rl_posttrain.optim.adams_kernels import Scalars, update_single
from rl_posttrain.optim.chunks import DTYPES, VECTOR_BYTES, address_table, chunk_table, is_capturing
from rl_posttrain.optim.elementwise import Triple
from rl_posttrain.optim.rounding import pick
from rl_posttrain.optim.rounding_triton import round_by_chance

_BLOCK_SIZE = 2048
_NUM_WARPS = 8


def update_triton(triples: Sequence[Triple], scalars: Scalars, keys: Sequence[int] | None = None) -> None:
    """One launch for all contiguous tensors. fp64 and tensors that are not contiguous go through `update_single`.

    While a CUDA graph is captured, there is a launch for each tensor.

    Args:
        triples: on one device, with the same three dtypes.
    """
    first = triples[0]
    if any(tensor.dtype not in DTYPES for tensor in first):
        update_single(triples, scalars, keys)
        return
    fitting, aligned, others = [], [], []
    # On a GPU this loop can take longer than the update itself, so it calls as little as possible.
    rounds = keys is not None and first[0].dtype is torch.bfloat16
    for number, triple in enumerate(triples):
        weight, gradient, momentum = triple
        if not (weight.is_contiguous() and gradient.is_contiguous() and momentum.is_contiguous()):
            update_single([triple], scalars, pick(keys, [number]))
        else:
            row = (weight.data_ptr(), gradient.data_ptr(), momentum.data_ptr(), weight.numel())
            if rounds:
                row += (keys[number],)
            (others if (row[0] | row[1] | row[2]) % VECTOR_BYTES else aligned).append(row)
            fitting.append(triple)
    if not fitting:
        return
    device = first[0].device
    old, shrink, step = _on_device(scalars, device)
    numbers = (old, scalars.new, scalars.keep, scalars.add, scalars.inner_eps, scalars.outer_eps, shrink, step)
    options = {
        "IN_MEMORY": isinstance(old, torch.Tensor), "BLOCK_SIZE": _BLOCK_SIZE,
        # Without fused multiply-adds, a value does not depend on which kernel and which part of it made it.
        "num_warps": _NUM_WARPS, "enable_fp_fusion": False,
    }  # fmt: skip
    with torch.cuda.device_of(first[0]):  # Triton launches on the current device
        if is_capturing(device):  # where `rounding.step_keys` gives no keys
            for triple in fitting:
                size = triple[0].numel()
                _update_one[(triton.cdiv(size, _BLOCK_SIZE),)](*triple, size, *numbers, **options)
        else:
            types = [DTYPES[tensor.dtype] for tensor in first]
            for is_aligned, rows in ((True, aligned), (False, others)):
                if rows:
                    tensors, places = chunk_table(tuple([-(-row[3] // _BLOCK_SIZE) for row in rows]), device)
                    given = (address_table(rows, device), tensors, places, *numbers, *types)
                    _update_many[tensors.shape](*given, ALIGNED=is_aligned, ROUNDS=rounds, **options)
    # autograd does not see what the kernel does. Counted, a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version([weight for weight, _, _ in fitting])


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
def _update_many(
    table, tensors, places,
    old, new, keep, add, inner_eps, outer_eps, shrink, step,
    WEIGHT: tl.constexpr, GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, ALIGNED: tl.constexpr,
    ROUNDS: tl.constexpr, IN_MEMORY: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    row = table + tl.load(tensors + chunk) * (5 if ROUNDS else 4)
    key = tl.load(row + 4) if ROUNDS else 0
    weights = tl.load(row).to(tl.pointer_type(WEIGHT))
    gradients = tl.load(row + 1).to(tl.pointer_type(GRADIENT))
    momenta = tl.load(row + 2).to(tl.pointer_type(MOMENTUM))
    if ALIGNED:
        weights = tl.multiple_of(weights, 16)
        gradients = tl.multiple_of(gradients, 16)
        momenta = tl.multiple_of(momenta, 16)
    _update_chunk(
        weights, gradients, momenta, tl.load(row + 3), tl.load(places + chunk), key,
        old, new, keep, add, inner_eps, outer_eps, shrink, step, ROUNDS, IN_MEMORY, BLOCK_SIZE,
    )  # fmt: skip


@triton.jit
def _update_one(
    weights, gradients, momenta, size,
    old, new, keep, add, inner_eps, outer_eps, shrink, step,
    IN_MEMORY: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    _update_chunk(
        weights, gradients, momenta, size, tl.program_id(0), 0,
        old, new, keep, add, inner_eps, outer_eps, shrink, step, False, IN_MEMORY, BLOCK_SIZE,
    )  # fmt: skip


@triton.jit
def _update_chunk(
    weights, gradients, momenta, size, chunk, key,
    old, new, keep, add, inner_eps, outer_eps, shrink, step,
    ROUNDS: tl.constexpr, IN_MEMORY: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    if IN_MEMORY:
        old = tl.load(old)
        shrink = tl.load(shrink)
        step = tl.load(step)
    # 64 bits: a tensor may have more than 2**31 elements.
    start = chunk.to(tl.int64) * BLOCK_SIZE
    weights, gradients, momenta = weights + start, gradients + start, momenta + start
    if size - start >= BLOCK_SIZE:
        # Without a mask, so that each thread reads and writes 16 bytes at a time.
        _update_block(
            weights, gradients, momenta, size - start, start, key,
            old, new, keep, add, inner_eps, outer_eps, shrink, step, ROUNDS, True, BLOCK_SIZE,
        )  # fmt: skip
    else:
        _update_block(
            weights, gradients, momenta, size - start, start, key,
            old, new, keep, add, inner_eps, outer_eps, shrink, step, ROUNDS, False, BLOCK_SIZE,
        )  # fmt: skip


@triton.jit
def _update_block(
    weights, gradients, momenta, size, start, key,
    old, new, keep, add, inner_eps, outer_eps, shrink, step,
    ROUNDS: tl.constexpr, IS_WHOLE: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    places = tl.arange(0, BLOCK_SIZE)
    inside = None if IS_WHOLE else places < size
    w = tl.load(weights + places, mask=inside).to(tl.float32)
    g = tl.load(gradients + places, mask=inside).to(tl.float32)
    m = tl.load(momenta + places, mask=inside).to(tl.float32)
    nu = old * (m * m) + new * (g * g)
    m = keep * m + add * g
    w = shrink * w - step * (m / (tl.sqrt(nu + inner_eps) + outer_eps))
    tl.store(momenta + places, m.to(momenta.dtype.element_ty), mask=inside)
    if ROUNDS:
        w = round_by_chance(w, key, start + places)
    tl.store(weights + places, w.to(weights.dtype.element_ty), mask=inside)
