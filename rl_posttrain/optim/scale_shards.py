"""SCALE (arXiv:2506.16659) where matrices are spread over processes.

DeepSpeed's ZeRO-1 to 3 hand an optimizer flat shards that begin and end anywhere in a matrix. The square of a norm is a
sum over the elements of a row or column, so each process adds up the squares in its shard, and one all-reduce adds up
these sums: one value for each norm. With DTensors (FSDP2) the same is done along a dimension that is both sharded and
normalized.

What a shard holds is read from attributes of DeepSpeed that are not documented; tests/contracts pins them.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from rl_posttrain.optim.rounding import store
from rl_posttrain.optim.scale_kernels import Matrix, descend, direction_of, norms


class Piece(NamedTuple):
    """The part of one matrix in a flat shard, counted in elements: nothing, some of it, or all."""

    start: int
    """Where it begins in the shard."""
    count: int
    place: int
    """Where it begins in the matrix, row by row."""
    shape: tuple[int, ...]
    """The whole matrix."""


class Shard(NamedTuple):
    """The matrices of one parameter group, in the same order in every process, and the processes that share them."""

    pieces: list[Piece]
    process_group: Any
    device: torch.device
    """Where the process group's tensors are."""


class _Lines(NamedTuple):
    """Consecutive whole or partial rows of a matrix in a flat shard: `count` rows of `width` values each."""

    start: int
    count: int
    width: int
    first_norm: int
    across: bool
    """Whether a norm runs across the rows (over columns), or along each row."""

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """These rows of a shard of shape (n,), as (count, width)."""
        return flat[self.start : self.start + self.count * self.width].view(self.count, self.width)

    def norms_of(self, values: torch.Tensor) -> torch.Tensor:
        """Of the values for all norms of the matrix, (m,), those of these rows: (width,) or (count, 1)."""
        if self.across:
            return values[self.first_norm : self.first_norm + self.width]
        return values[self.first_norm : self.first_norm + self.count].unsqueeze(1)


def find_shards(wrapper: Any) -> dict[torch.Tensor, Shard]:
    """What each flat shard of DeepSpeed's ZeRO-1, 2 or 3 holds; nothing under a wrapper without flat shards.

    Args:
        wrapper: what DeepSpeed or accelerate wrapped around the optimizer.
    """
    while wrapper is not None:
        if hasattr(wrapper, "round_robin_bit16_groups"):
            return _shards_of_stages_1_and_2(wrapper)
        if hasattr(wrapper, "fp16_partitioned_groups"):
            return _shards_of_stage_3(wrapper)
        wrapper = getattr(wrapper, "optimizer", None)
    return {}


def update_shard(matrix: Matrix, shard: Shard, group: dict[str, Any], key: int | None = None) -> None:
    """A step of the matrices in a flat shard. Every process of the shard's group must call it.

    Args:
        matrix: weight, gradient and momentum of the shard, (n,) each.
        key: of stochastic rounding, whose places are those in the shard; None rounds to nearest.
    """
    direction = direction_of(matrix, group)
    sizes = [math.prod(piece.shape) // piece.shape[group["axis"]] for piece in shard.pieces]
    squares = [direction.new_zeros(size) for size in sizes]
    for piece, sums in zip(shard.pieces, squares, strict=True):
        for lines in _lines(piece, group["axis"]):
            place = lines.norms_of(sums)
            place += torch.linalg.vector_norm(lines.of(direction), dim=0 if lines.across else 1).square().view_as(place)
    total = torch.cat(squares).to(shard.device)
    dist.all_reduce(total, group=shard.process_group)
    lengths = total.to(direction.device).sqrt_().split(sizes)
    weight = matrix.weight.to(direction.dtype)
    for piece, length in zip(shard.pieces, lengths, strict=True):
        divisors = norms(length, piece.shape[group["axis"]], group)
        for lines in _lines(piece, group["axis"]):
            block = lines.of(weight).mul_(1 - group["lr"] * group["weight_decay"])
            block.addcdiv_(lines.of(direction), lines.norms_of(divisors), value=-group["lr"])
    if weight is not matrix.weight:
        store(matrix.weight, weight, key)


def update_dtensor(parameter: torch.Tensor, matrix: Matrix, group: dict[str, Any], key: int | None = None) -> None:
    """A step of a DTensor. Every process of its mesh must call it.

    Args:
        matrix: this process's own parts of weight, gradient and momentum, as plain tensors.
        key: of stochastic rounding, whose places are those in the part; None rounds to nearest.
    """
    axis = group["axis"] % parameter.ndim
    over = [number for number, placement in enumerate(parameter.placements) if placement.is_shard(axis)]

    def add_up(squares: torch.Tensor) -> None:
        for number in over:
            dist.all_reduce(squares, group=parameter.device_mesh.get_group(number))

    descend(matrix.weight, direction_of(matrix, group), group, key, length=parameter.shape[axis], add_up=add_up)


def _lines(piece: Piece, axis: int) -> Iterator[_Lines]:
    """The rows in a piece: the rest of the first, the whole ones, the begin of the last."""
    length = piece.shape[axis]
    inner = math.prod(piece.shape[axis % len(piece.shape) + 1 :])
    across = inner > 1
    width = inner if across else length
    start, place, end = piece.start, piece.place, piece.place + piece.count
    while place < end:
        line, column = divmod(place, width)
        if column or end - place < width:
            count, part = 1, min(width - column, end - place)
        else:
            # Norms across rows are those of one slab, such as an expert.
            last = (line // length + 1) * length if across else end // width
            count, part = min(end // width, last) - line, width
        first_norm = line // length * inner + column if across else line
        yield _Lines(start, count, part, first_norm, across)
        start, place = start + count * part, place + count * part


def _shards_of_stages_1_and_2(wrapper: Any) -> dict[torch.Tensor, Shard]:
    shards = {}
    for number, flat in enumerate(wrapper.single_partition_of_fp32_groups):
        parameters, group = wrapper.round_robin_bit16_groups[number], wrapper.real_dp_process_group[number]
        begin = dist.get_rank(group) * flat.numel()
        pieces = []
        for parameter, offset in zip(parameters, wrapper.round_robin_bit16_offsets[number], strict=True):
            first, last = max(offset, begin), min(offset + parameter.numel(), begin + flat.numel())
            pieces.append(Piece(first - begin, max(0, last - first), first - offset, tuple(parameter.shape)))
        shards[flat] = Shard(pieces, group, parameters[0].device)
    return shards


def _shards_of_stage_3(wrapper: Any) -> dict[torch.Tensor, Shard]:
    shards = {}
    for number, flat in enumerate(wrapper.fp32_partitioned_groups_flat):
        parameters, group = wrapper.fp16_groups[number], wrapper.sub_group_process_groups[number]
        start, pieces = 0, []
        for parameter in parameters:
            size = parameter.partition_numel()
            place = dist.get_rank(group) * size
            count = max(0, min(size, parameter.ds_numel - place))
            pieces.append(Piece(start, count, place, tuple(parameter.ds_shape)))
            start += size
        shards[flat] = Shard(pieces, group, parameters[0].ds_tensor.device)
    return shards
