"""Points at which expressions are evaluated, and what comes of it."""

import functools
from fractions import Fraction
from typing import Any, NamedTuple

DIGITS = 60


class Point(NamedTuple):
    """Values of the variables, and the number of digits to compute in."""

    values: tuple[tuple[str, Fraction], ...]
    digits: int = DIGITS


class Value(NamedTuple):
    """The value of an expression at a point.

    Attributes:
        number: a Fraction, or a real or complex number of mpmath.
        is_real: whether each step stayed within the real numbers.
        hidden_digits: by how many digits the smaller part of a sum lay below the larger one, at most.
    """

    number: Any
    is_real: bool
    hidden_digits: int


class UndefinedError(ArithmeticError):
    """The expression has no value at this point."""


class TooLargeError(ValueError):
    """The value would take too long, or this module cannot compute it."""


@functools.lru_cache(maxsize=64)
def context_of(digits: int) -> Any:
    """mpmath's numbers of so many digits. A context of its own: another thread could change a shared precision."""
    import mpmath  # takes 0.2 s, and integers need none of it

    context = mpmath.MPContext()
    context.dps = digits
    return context
