"""Which numbers can be a reward: finite ones, whose squares are finite, too."""

import math
from typing import Literal

# What becomes of a reward that is none of them: an error, None in its place, or nothing.
Unusable = Literal["refuse", "collect", "keep"]
# Advantages are made in float32, with squares of rewards; a square above 3.4e38 is infinite there.
LARGEST = 1e18


def is_usable(value: float | None) -> bool:
    """Whether advantages can be made of a reward; None counts in no mean."""
    return value is None or abs(value) <= LARGEST  # NaN is not


def what_is_wrong(value: float) -> str:
    """In words, of a value that is not usable."""
    if math.isinf(value):
        return f"{value:g} (infinite, or larger than any float)"
    return "nan" if math.isnan(value) else f"{value:g}, above the largest that can be used, {LARGEST:g}"
