"""SCALE (arXiv:2506.16659) as Triton kernels for CUDA, many matrices in one launch.

Norms along rows, the last dimension, take one pass over the data: a program has whole rows in registers. Rows that are
too long for that are read twice. Norms along columns take two launches: one adds up squares over parts of each column,
the other adds up these sums, in a fixed order, and updates.

This module is imported only when a kernel is used.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from rl_posttrain.optim.chunks import (
    DTYPES,
    address_table,
    addresses_of,
    are_aligned,
    are_contiguous,
    chunk_table,
    is_capturing,
)
from rl_posttrain.optim.rounding import pick
from rl_posttrain.optim.rounding_triton import round_by_chance
from rl_posttrain.optim.scale_kernels import SMALLEST_NORM, Matrix, update_single, value_types

_TILE_SIZE = 4096
"""Values of each tensor that a program has in registers at a time."""
_NUM_WARPS = 8
_LONGEST_ROW = 8192
_COLUMNS = 128
_PARTS = 64
"""A column is added up in at most so many parts."""


def update_triton(matrices: Sequence[Matrix], group: dict[str, Any], keys: Sequence[int] | None = None) -> None:
    """One launch for all matrices whose rows are of about one length, two for norms along columns.

    fp64 and matrices that are not contiguous go through `update_single`; so does a momentum with norms along columns.
    While a CUDA graph is captured, all do.

    Args:
        matrices: on one device, with the same dtypes, and all of them with a momentum, or none.
        keys: of stochastic rounding, for each matrix; None rounds to nearest.
    """
    device, dtypes, axis = matrices[0].weight.device, value_types(matrices[0]), group["axis"]
    usable = all(dtype in DTYPES for dtype in dtypes) and not is_capturing(device)
    has_momentum = matrices[0].momentum is not None
    rounds = keys is not None and dtypes[0] is torch.bfloat16
    # What a kernel needs to know of each tensor, for each launch.
    along_rows: dict[tuple[int, bool], list[tuple[int, ...]]] = {}
    along_columns: dict[bool, list[tuple[int, ...]]] = {}
    changed = []
    by_shape: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.weight.shape, []).append(number)
    for shape, numbers in by_shape.items():
        *slabs, rows, columns = shape
        # A group's axis counts from the front, so that it is the last one of some shapes and not of others.
        is_last = axis % len(shape) == len(shape) - 1
        alike = pick(matrices, numbers)
        fits = are_contiguous(alike) if usable and (is_last or not has_momentum) else [False] * len(alike)
        others = [number for number, does in zip(numbers, fits, strict=True) if not does]
        update_single(pick(matrices, others), group, pick(keys, others))
        fitting = list(itertools.compress(alike, fits))
        if not fitting:
            continue
        addresses = addresses_of(fitting)
        key_of = itertools.compress(pick(keys, numbers), fits) if rounds else itertools.repeat(0)
        # One matrix that cannot be read in vectors keeps all of its shape from it.
        is_aligned = are_aligned([*addresses, (columns,)])
        if is_last:
            kind = ((columns - 1).bit_length(), is_aligned)
            rest = (math.prod(shape[:-1]), columns) if has_momentum else (0, math.prod(shape[:-1]), columns)
            table = along_rows.setdefault(kind, [])
        else:
            rest = (rows, columns, math.prod(slabs))
            table = along_columns.setdefault(is_aligned, [])
        table.extend([(*places, *rest, key) for places, key in zip(addresses, key_of, strict=False)])
        changed += [matrix.weight for matrix in fitting]
    types = [DTYPES.get(dtype) for dtype in dtypes]
    with torch.cuda.device_of(matrices[0].weight):  # Triton launches on the current device
        for (bits, is_aligned), table in along_rows.items():
            options = {"HAS_MOMENTUM": has_momentum, "ALIGNED": is_aligned, "ROUNDS": rounds}
            _launch_rows(table, 2**bits, types, group, device, **options)
        for is_aligned, table in along_columns.items():
            _launch_columns(table, types[:2], group, device, rounds, ALIGNED=is_aligned)
    # autograd does not see what a kernel does. Counted, a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version(changed)


def _launch_rows(
    matrices: list[tuple[int, ...]],
    width: int,
    types: list[tl.dtype],
    group: dict[str, Any],
    device: torch.device,
    **options: bool,
) -> None:
    """Args:
    matrices: addresses of weight, gradient and momentum; number of rows, their length, and the key.
    width: the least power of two that is not below any length.
    """
    is_long = width > _LONGEST_ROW
    rows_a_tile = 1 if is_long else max(1, _TILE_SIZE // width)
    tensors, places = chunk_table(tuple(-(-count // rows_a_tile) for *_, count, _, _ in matrices), device)
    (_update_long_rows if is_long else _update_rows)[tensors.shape](
        address_table(matrices, device), tensors, places, *_numbers(group), 1 - group["momentum"], *types,
        IS_MEAN=group["norm"] == "rms", ROWS=rows_a_tile, WIDTH=_TILE_SIZE if is_long else width,
        num_warps=_NUM_WARPS, **options,
    )  # fmt: skip


def _launch_columns(
    matrices: list[tuple[int, ...]], types: list[tl.dtype], group: dict[str, Any], device: torch.device, rounds: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Args:
    matrices: addresses of weight and gradient; rows and columns of a slab, number of slabs, and the key.
    """
    table, counts, num_sums = [], [], 0
    for weight, gradient, rows, columns, slabs, key in matrices:
        # At least 64 rows, so that the sums stay small beside the matrix.
        rows_a_part = max(64, -(-rows // _PARTS))
        num_parts = -(-rows // rows_a_part)
        table.append((weight, gradient, rows, columns, rows_a_part, num_parts, num_sums, key))
        counts.append(slabs * num_parts * -(-columns // _COLUMNS))
        num_sums += slabs * num_parts * columns
    tensors, places = chunk_table(tuple(counts), device)
    sums = torch.empty(num_sums, dtype=torch.float32, device=device)
    given = (address_table(table, device), tensors, places, sums)
    options |= {"ROWS": _TILE_SIZE // _COLUMNS, "COLUMNS": _COLUMNS, "num_warps": _NUM_WARPS}
    _add_squares[tensors.shape](*given, types[1], **options)
    options |= {"IS_MEAN": group["norm"] == "rms", "ROUNDS": rounds}
    _update_columns[tensors.shape](*given, *_numbers(group), *types, **options)


def _numbers(group: dict[str, Any]) -> tuple[float, float, float]:
    lr = float(group["lr"])
    return 1 - lr * group["weight_decay"], lr, SMALLEST_NORM


@triton.jit
def _update_rows(
    table, tensors, places, shrink, lr, smallest, fresh,
    WEIGHT: tl.constexpr, GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    ALIGNED: tl.constexpr, IS_MEAN: tl.constexpr, ROUNDS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    weights, gradients, momenta, left, length, first, key = _find_rows(
        table, tensors, places, WEIGHT, GRADIENT, MOMENTUM, ALIGNED, ROWS
    )
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (rows < left) & (columns < length)
    spots = rows * length + columns
    d = tl.load(gradients + spots, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weights + spots, mask=inside, other=0.0).to(tl.float32)
    if HAS_MOMENTUM:
        d = _follow(momenta + spots, d, inside, fresh)
    step = _step_sizes(tl.sum(d * d, axis=1), length, lr, smallest, IS_MEAN)
    w = shrink * w - step[:, None] * d
    if ROUNDS:
        w = round_by_chance(w, key, first + spots)
    tl.store(weights + spots, w.to(WEIGHT), mask=inside)


@triton.jit
def _update_long_rows(
    table, tensors, places, shrink, lr, smallest, fresh,
    WEIGHT: tl.constexpr, GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    ALIGNED: tl.constexpr, IS_MEAN: tl.constexpr, ROUNDS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    weights, gradients, momenta, _, length, first, key = _find_rows(
        table, tensors, places, WEIGHT, GRADIENT, MOMENTUM, ALIGNED, ROWS
    )
    columns = tl.arange(0, WIDTH)
    squares = tl.zeros([WIDTH], tl.float32)
    for start in range(0, length, WIDTH):
        inside = columns < length - start
        d = tl.load(gradients + start + columns, mask=inside, other=0.0).to(tl.float32)
        if HAS_MOMENTUM:
            d = _follow(momenta + start + columns, d, inside, fresh)
        squares += d * d
    step = _step_sizes(tl.sum(squares, axis=0), length, lr, smallest, IS_MEAN)
    for start in range(0, length, WIDTH):
        inside = columns < length - start
        if HAS_MOMENTUM:
            d = tl.load(momenta + start + columns, mask=inside, other=0.0).to(tl.float32)
        else:
            d = tl.load(gradients + start + columns, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(weights + start + columns, mask=inside, other=0.0).to(tl.float32)
        w = shrink * w - step * d
        if ROUNDS:
            w = round_by_chance(w, key, first + start + columns)
        tl.store(weights + start + columns, w.to(WEIGHT), mask=inside)


@triton.jit
def _add_squares(
    table, tensors, places, sums, GRADIENT: tl.constexpr,
    ALIGNED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, slab, part, columns, width = _find_columns(table, tensors, places, ALIGNED, COLUMNS)
    gradients, num_rows, _ = _find_part(row, 1, slab, part, width, GRADIENT, ALIGNED)
    rows, inside = tl.arange(0, ROWS)[:, None], columns < width
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, num_rows, ROWS):
        spots = gradients + start * width + rows * width + columns[None, :]
        g = tl.load(spots, mask=(rows < num_rows - start) & inside[None, :], other=0.0).to(tl.float32)
        total += tl.sum(g * g, axis=0)
    parts = slab * tl.load(row + 5) + part
    tl.store(sums + tl.load(row + 6) + parts * width + columns, total, mask=inside)


@triton.jit
def _update_columns(
    table, tensors, places, sums, shrink, lr, smallest, WEIGHT: tl.constexpr, GRADIENT: tl.constexpr,
    ALIGNED: tl.constexpr, IS_MEAN: tl.constexpr, ROUNDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, slab, part, columns, width = _find_columns(table, tensors, places, ALIGNED, COLUMNS)
    weights, num_rows, first = _find_part(row, 0, slab, part, width, WEIGHT, ALIGNED)
    gradients, _, _ = _find_part(row, 1, slab, part, width, GRADIENT, ALIGNED)
    rows, inside = tl.arange(0, ROWS)[:, None], columns < width
    num_parts = tl.load(row + 5).to(tl.int32)
    sums += tl.load(row + 6) + slab * num_parts * width
    total = tl.zeros([COLUMNS], tl.float32)
    for number in range(0, num_parts):
        total += tl.load(sums + number * width + columns, mask=inside, other=0.0)
    step = _step_sizes(total, tl.load(row + 2), lr, smallest, IS_MEAN)
    for start in range(0, num_rows, ROWS):
        spots = start * width + rows * width + columns[None, :]
        wanted = (rows < num_rows - start) & inside[None, :]
        g = tl.load(gradients + spots, mask=wanted, other=0.0).to(tl.float32)
        w = tl.load(weights + spots, mask=wanted, other=0.0).to(tl.float32)
        w = shrink * w - step[None, :] * g
        if ROUNDS:
            w = round_by_chance(w, tl.load(row + 7), first + spots)
        tl.store(weights + spots, w.to(WEIGHT), mask=wanted)


@triton.jit
def _find_rows(
    table, tensors, places,
    WEIGHT: tl.constexpr, GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Where this program's rows begin in the three tensors, how many there are from there on, and their length.

    Then the place of their first element, and the tensor's key.
    """
    chunk = tl.program_id(0)
    row = table + tl.load(tensors + chunk) * 6
    first = tl.load(places + chunk).to(tl.int64) * ROWS
    weights = tl.load(row).to(tl.pointer_type(WEIGHT))
    gradients = tl.load(row + 1).to(tl.pointer_type(GRADIENT))
    momenta = tl.load(row + 2).to(tl.pointer_type(MOMENTUM))
    length = tl.load(row + 4)
    if ALIGNED:
        weights, gradients, momenta = (
            tl.multiple_of(weights, 16),
            tl.multiple_of(gradients, 16),
            tl.multiple_of(momenta, 16),
        )
        length = tl.multiple_of(length, 16)
    start = first * length
    left = tl.minimum(tl.load(row + 3) - first, ROWS).to(tl.int32)
    return weights + start, gradients + start, momenta + start, left, length.to(tl.int32), start, tl.load(row + 5)


@triton.jit
def _find_columns(table, tensors, places, ALIGNED: tl.constexpr, COLUMNS: tl.constexpr):
    """The row of the table; slab, part and columns of this program; and the number of columns, 64 bits."""
    chunk = tl.program_id(0)
    row = table + tl.load(tensors + chunk) * 8
    place = tl.load(places + chunk)
    width = tl.load(row + 3)
    if ALIGNED:
        width = tl.multiple_of(width, 16)
    blocks = tl.cdiv(width, COLUMNS).to(tl.int32)
    number, num_parts = place // blocks, tl.load(row + 5).to(tl.int32)
    columns = place % blocks * COLUMNS + tl.arange(0, COLUMNS)
    return row, (number // num_parts).to(tl.int64), (number % num_parts).to(tl.int64), columns, width


@triton.jit
def _find_part(row, place, slab, part, width, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Where a part of the columns begins in the tensor at `place` of the table's row, and how many rows it has.

    Then the place of its first element.
    """
    tensor = tl.load(row + place).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        tensor = tl.multiple_of(tensor, 16)
    rows, rows_a_part = tl.load(row + 2), tl.load(row + 4)
    first = part * rows_a_part
    start = (slab * rows + first) * width
    return tensor + start, tl.minimum(rows - first, rows_a_part).to(tl.int32), start


@triton.jit
def _follow(momenta, gradient, inside, fresh):
    """Updates the momentum; returns it as it was rounded."""
    m = tl.load(momenta, mask=inside, other=0.0).to(tl.float32)
    kept = (m + fresh * (gradient - m)).to(momenta.dtype.element_ty)
    tl.store(momenta, kept, mask=inside)
    return kept.to(tl.float32)


@triton.jit
def _step_sizes(squares, num_values, lr, smallest, IS_MEAN: tl.constexpr):
    if IS_MEAN:
        squares = squares / num_values.to(tl.float32)
    return lr / tl.maximum(tl.sqrt(squares), smallest, propagate_nan=tl.PropagateNan.ALL)
