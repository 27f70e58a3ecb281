"""Stochastic rounding of fp32 values to bf16: up or down by chance, so that the mean is the value (arXiv:2010.06192).

A bf16 weight has 8 bits. To nearest, a step below about 1/512 of the weight is lost each time; by chance it arrives on
average. The chance of an element is a hash of its tensor's key and of its place in the tensor, so every way to run a
step (torch's operations, C++, Triton) rounds alike, and so do a resumed run and the processes of data parallelism.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from rl_posttrain.errors import EngineError

OFF = {"stochastic_rounding": False, "rounding_step": 0}
"""What a group says of it: whether bf16 weights are rounded so, and the steps that were."""
_MASK = 0xFFFFFFFF
_EXPONENT = 0x7F800000


def tensor_key(step: int, number: int) -> int:
    """The key of a tensor in a step, 32 bits.

    Args:
        step: which step of the optimizer it is.
        number: the tensor's number among those of its optimizer.
    """
    return _mixed_int(_mixed_int(step & _MASK) ^ (number & _MASK))


def step_keys(group: dict[str, Any], numbers: Iterator[int]) -> Iterator[int] | None:
    """Count a step of `group`; the keys of its tensors, without end, or None where it rounds to nearest.

    Args:
        group: of `param_groups`, with what `OFF` has.
        numbers: counts the tensors of the optimizer's step.

    Raises:
        EngineError: a CUDA graph is being captured, and would repeat the chance of this step.
    """
    if not group["stochastic_rounding"]:
        return None
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise EngineError(
            "stochastic_rounding=True: a CUDA graph would repeat the chance of one step; leave it out, or capture none"
        )
    group["rounding_step"] += 1
    return (tensor_key(group["rounding_step"], number) for number in numbers)


def by_chance(way: Callable, keys: Iterator[int] | None) -> Callable:
    """A way to run a step of many tensors, with the next key for each of them; without keys, the way itself.

    Args:
        way: takes a list of tensors, settings, and a key for each in the list.
    """
    if keys is None:
        return way
    return lambda tensors, settings: way(tensors, settings, list(itertools.islice(keys, len(tensors))))


def pick(values: Sequence | None, numbers: Sequence[int]) -> list | None:
    """Those of the `values` with these numbers, such as the keys of some tensors; None stays None."""
    return None if values is None else [values[number] for number in numbers]


def store(kept: torch.Tensor, value: torch.Tensor, key: int | None, start: int = 0) -> None:
    """Copy `value` into `kept`: bf16 stochastically where there is a key, anything else to nearest.

    Args:
        kept: any shape.
        value: the same shape; fp32 where `kept` is bf16.
        start: the place of the first element in the tensor of the key.
    """
    if key is None or kept.dtype is not torch.bfloat16:
        kept.copy_(value)
        return
    bits = value.contiguous().view(torch.int32)
    places = torch.arange(start, start + bits.numel(), dtype=torch.int64, device=bits.device).view(bits.shape)
    added = bits + (_mixed(places & _MASK, key) & 0xFFFF).to(torch.int32)
    rounded = (added & -0x10000).view(torch.float32)
    # Adding to the bits of an infinity or a NaN would make it another value.
    kept.copy_(torch.where(bits & _EXPONENT == _EXPONENT, value, rounded))


# The hash is lowbias32 of Chris Wellons' hash-prospector (public domain): every bit depends on every bit.
def _mixed_int(value: int) -> int:
    value ^= value >> 16
    value = value * 0x7FEB352D & _MASK
    value ^= value >> 15
    value = value * 0x846CA68B & _MASK
    return value ^ value >> 16


def _mixed(places: torch.Tensor, key: int) -> torch.Tensor:
    value = places ^ key
    value ^= value >> 16
    value = value * 0x7FEB352D & _MASK
    value ^= value >> 15
    value = value * 0x846CA68B & _MASK
    return value ^ value >> 16
