"""What a reward may return: one number, or None, for each completion."""

import math
import numbers
from collections.abc import Collection, Iterator, Mapping, Set
from itertools import islice
from typing import Any

_FIX = "return a list with one float or None each"
_SHOWN = 60  # characters of a value


class NotNumbers(Exception):
    """A reward returned something else than one number or None for each completion; the message says what."""


def numbers_of(returned: Any, num_completions: int) -> list[float | None]:
    """What a reward returned, as a list of `num_completions` floats and Nones.

    It may return a list, a tuple, a generator or another iterator, the values of a dict; or an array, a tensor or a
    Series of the shape (B,) or (B, 1). Values are numbers of any type, also numpy's and torch's; True is 1.0.

    Raises:
        NotNumbers: it returned something else.
    """
    expected = f"for {num_completions} completions; {_FIX}"
    if hasattr(returned, "shape") and hasattr(returned, "tolist"):
        returned = _list_of_array(returned, expected)
    is_listed = isinstance(returned, (Collection, Iterator))
    if not is_listed or isinstance(returned, (str, bytes, Mapping, Set)) or hasattr(returned, "columns"):
        kind = "a single number" if isinstance(returned, numbers.Number) else _kind(returned)
        raise NotNumbers(f"returned {kind} {expected}")
    values = list(islice(returned, num_completions + 1))  # a generator may have no end
    if len(values) != num_completions:
        count = len(returned) if hasattr(returned, "__len__") else len(values)
        more = "at least " if count > num_completions and not hasattr(returned, "__len__") else ""
        raise NotNumbers(f"returned {more}{count} values {expected}")
    return [_number(value, f"row {place} of {num_completions}") for place, value in enumerate(values)]


def _list_of_array(returned: Any, expected: str) -> list[Any]:
    shape = tuple(returned.shape)
    if not shape:
        raise NotNumbers(f"returned a single number {expected}")
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1 and hasattr(returned, "reshape")):
        try:
            return (returned if len(shape) == 1 else returned.reshape(-1)).tolist()
        except RuntimeError:  # sparse, or without memory
            pass
    raise NotNumbers(f"returned a {type(returned).__name__} of the shape {shape} {expected}")


def _number(value: Any, where: str) -> float | None:
    if value is None or type(value) is float:
        return value
    try:
        # numpy's and torch's numbers, also those in an array of one.
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, numbers.Real) or hasattr(plain, "as_integer_ratio"):  # Decimal is no Real
            return float(plain)
    except OverflowError:  # larger than any float
        return math.inf if plain > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):
        pass
    raise NotNumbers(
        f"returned a value that is not a number: {_shown(value)} ({type(value).__name__}) on {where}; return "
        "floats or None"
    )


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a number of thousands of digits; or whatever somebody's class does
        return "a value that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of the type {type(value).__name__}"
