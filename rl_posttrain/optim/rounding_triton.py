"""Stochastic rounding to bf16 inside Triton kernels, with the bits of `rl_posttrain.optim.rounding`.

This module is imported only when a kernel is used.
"""

import triton
import triton.language as tl


@triton.jit
def round_by_chance(value, key, places):
    """fp32 values that bf16 has: those below or above, as `rounding.store` chooses.

    Args:
        value: fp32, finite or not.
        key: of the tensor, an integer.
        places: of the values in their tensor, integers of the same shape.
    """
    hashed = places.to(tl.uint32) ^ key.to(tl.uint32)
    hashed = hashed ^ (hashed >> 16)
    hashed = hashed * 0x7FEB352D
    hashed = hashed ^ (hashed >> 15)
    hashed = hashed * 0x846CA68B
    hashed = hashed ^ (hashed >> 16)
    bits = value.to(tl.uint32, bitcast=True)
    rounded = ((bits + (hashed & 0xFFFF)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return tl.where((bits & 0x7F800000) == 0x7F800000, value, rounded)
