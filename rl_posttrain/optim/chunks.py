"""Many tensors in one launch of a Triton kernel: tables on the device, of chunks and of addresses.

Each program of a launch handles one chunk. It looks up which tensor that is of and which chunk of it; then where the
tensor is and how large. The table of chunks depends on sizes alone. That of addresses is sent again where one of them
has changed, as gradients' often do. Neither waits for the device.

This module is imported only when a kernel is used.
"""

import array
import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import triton.language as tl

DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
"""What the kernels read and write; they compute in fp32."""
VECTOR_BYTES = 16
"""Memory from an address that is a multiple of this on can be read so many bytes at a time."""


class Chunks(NamedTuple):
    """For each program of a launch, int32 (num_chunks,) on the device."""

    tensors: torch.Tensor
    """The tensor's number."""
    numbers: torch.Tensor
    """The chunk's number within its tensor."""


@functools.lru_cache(maxsize=32)
def chunk_table(counts: tuple[int, ...], device: torch.device) -> Chunks:
    """The chunks of tensors of which number i has ``counts[i]``."""
    sizes = torch.tensor(counts)
    tensors = torch.arange(len(counts)).repeat_interleave(sizes)
    first = sizes.cumsum(0) - sizes
    numbers = torch.arange(len(tensors)) - first[tensors]
    return Chunks(tensors.int().to(device), numbers.int().to(device))


def address_table(rows: Iterable[tuple[int, ...]], device: torch.device) -> torch.Tensor:
    """What a kernel needs to know of each tensor, as int64 on the device: (number of tensors, numbers in a row)."""
    # On another stream, a table that was sent before might not have arrived.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return _send(tuple(rows), device, stream)


def are_contiguous(tensors: Sequence[tuple[torch.Tensor | None, ...]]) -> list[bool]:
    """For each, whether all of its tensors are contiguous. All of them have None in the same places."""
    # Loops in C: on a GPU, Python's can take longer than the update itself.
    columns = [map(torch.Tensor.is_contiguous, column) for column in _columns(tensors)]
    return list(map(all, zip(*columns, strict=True)))


def addresses_of(tensors: Sequence[tuple[torch.Tensor | None, ...]]) -> list[tuple[int, ...]]:
    """The addresses of the tensors in each; a None has none."""
    return list(zip(*[map(torch.Tensor.data_ptr, column) for column in _columns(tensors)], strict=True))


def are_aligned(rows: Iterable[Iterable[int]]) -> bool:
    """Whether all of these numbers are multiples of `VECTOR_BYTES`."""
    return not functools.reduce(operator.or_, itertools.chain.from_iterable(rows), 0) % VECTOR_BYTES


def _columns(tensors: Sequence[tuple[torch.Tensor | None, ...]]) -> list[tuple[torch.Tensor, ...]]:
    return [column for column in zip(*tensors, strict=True) if column[0] is not None]


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being made. It must not hold tables: the host's memory behind them is used again."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@functools.lru_cache(maxsize=32)
def _send(rows: tuple[tuple[int, ...], ...], device: torch.device, stream: int) -> torch.Tensor:
    # torch.tensor would take most of a step's time on the CPU.
    numbers = array.array("q", itertools.chain.from_iterable(rows))
    table = torch.frombuffer(numbers, dtype=torch.int64).view(len(rows), -1)
    if device.type == "cuda":
        table = table.pin_memory()  # else the copy would wait for all that the device has still to do
    return table.to(device, non_blocking=True, copy=True)
