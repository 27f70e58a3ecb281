"""Stochastic rounding of fp32 values to bf16: up or down by chance, so that the mean is the value (arXiv:2010.06192).

A bf16 weight has 8 bits. To nearest, a step below about 1/512 of the weight is lost each time; by chance it arrives on
average. The chance of an element is a hash of its tensor's key and of its place in the tensor, so every way to run a
step (torch's operations, C++, Triton) rounds alike, and so do a resumed run and the processes of data parallelism.
"""

import torch

_MASK = 0xFFFFFFFF
_EXPONENT = 0x7F800000


def tensor_key(step: int, number: int) -> int:
    """The key of a tensor in a step, 32 bits.

    Args:
        step: which step of the optimizer it is.
        number: the tensor's number among those of its optimizer.
    """
    return _mixed_int(_mixed_int(step & _MASK) ^ (number & _MASK))


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
