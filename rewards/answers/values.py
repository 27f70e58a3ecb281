"""Are two expressions equal? They are compared by their values at several points, exactly or in 60 digits and more.

Rational numbers stay exact. Other values are computed twice, the second time with 30 digits more: what is zero then
shrinks with the precision, and what is only near zero does not. So 1/2^98 is not 1/2^99, and e^{i pi} is -1. The time
is bounded: numbers that are too large are refused before they are computed.

Two expressions are the same if they agree at all points where both have real values; if there is no such point, in
their complex principal values. sqrt(x^2) is then not x, and ln(x^2) is 2 ln(x).
"""

import functools
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from rl_posttrain.rewards.answers.evaluation import evaluate
from rl_posttrain.rewards.answers.nodes import ZERO, Node, variables
from rl_posttrain.rewards.answers.points import DIGITS, Point, TooLargeError, UndefinedError

_MORE_DIGITS = 30
_SPARE = 15  # digits that rounding may have changed
_MAX_HIDDEN = 700
_MAX_BITS = 60_000
_PRIME = 1_000_003


@functools.lru_cache(maxsize=16384)
def equal(a: Node, b: Node) -> bool | None:
    """Whether two expressions have the same value wherever both are real; None where that cannot be told."""
    if a == b:
        return True
    num_agreeing, complex_same = 0, []
    for point in _points(a, b):
        try:
            same, is_real = _same_at(a, b, point)
        except TooLargeError:
            continue
        if same is None:
            continue
        if is_real and not same:
            return False
        if is_real:
            num_agreeing += 1
        else:
            complex_same.append(same)
    if num_agreeing:
        return True
    return all(complex_same) if complex_same else None


def proportional(a: Node, b: Node, *, only_positive: bool = False) -> bool | None:
    """Whether a = c b for a number c that is not 0, or that is above 0; None where that cannot be told."""
    names = variables(a) | variables(b)
    if not names:
        return None
    # a(x) b(y) = a(y) b(x) for all x and y.
    same = equal(("*", a, _elsewhere(b)), ("*", b, _elsewhere(a)))
    if not same or equal(a, ZERO) or equal(b, ZERO):
        return same and False
    return sign(("/", a, b)) == 1 if only_positive else True


def sign(node: Node) -> int | None:
    """1, 0 or -1: the sign at the first point where the value is real; None if there is none."""
    for point in _points(node, node):
        try:
            number, is_real, _ = evaluate(node, point)
        except UndefinedError:
            continue
        except TooLargeError:
            return None
        if is_real and not number.imag:
            return (number.real > 0) - (number.real < 0)
    return None


def real_value(node: Node) -> Any | None:
    """The value of an expression without variables, exact or in 60 digits; None if it is not one real number."""
    if variables(node):
        return None
    try:
        number = evaluate(node, Point(())).number
    except (UndefinedError, TooLargeError):
        return None
    if not number.imag:  # exact fractions may be larger than any float
        return number.real
    return None if abs(number.imag) > abs(number) * 10.0 ** (20 - DIGITS) else number.real


def near_value(node: Node) -> Fraction | None:
    """The value of an expression without variables to 60 digits, as a Fraction: many are too large for a float."""
    value = real_value(node)
    if value is None or isinstance(value, Fraction):
        return value
    is_negative, mantissa, exponent, num_bits = value._mpf_
    if abs(exponent) + num_bits > _MAX_BITS:
        return None
    return (-1 if is_negative else 1) * int(mantissa) * Fraction(2) ** exponent


def _same_at(a: Node, b: Node, point: Point) -> tuple[bool | None, bool]:
    """Whether the values at a point are equal, and whether they are real; None where one of them has no value."""
    try:
        first, second = evaluate(a, point), evaluate(b, point)
    except UndefinedError:
        return None, False
    is_real = first.is_real and second.is_real
    if isinstance(first.number, Fraction) and isinstance(second.number, Fraction):
        return first.number == second.number, is_real
    num_hidden = max(first.hidden_digits, second.hidden_digits)
    if num_hidden > _MAX_HIDDEN:
        raise TooLargeError
    if num_hidden > point.digits - 2 * _SPARE:
        return _same_at(a, b, point._replace(digits=DIGITS + num_hidden))
    difference, size = _difference(first.number, second.number)
    limit = 10.0 ** (_SPARE - point.digits)
    if difference <= size * limit and size > limit:
        return True, is_real
    if difference > size * limit and difference > limit:
        return False, is_real
    # Both are near zero. With more digits, what is zero comes nearer, and what is small stays.
    finer = point._replace(digits=point.digits + _MORE_DIGITS)
    shrunk, size = _difference(evaluate(a, finer).number, evaluate(b, finer).number)
    is_zero = shrunk < difference * 10.0 ** (-_MORE_DIGITS // 2)
    return is_zero or shrunk <= size * 10.0 ** (_SPARE - finer.digits), is_real


def _difference(a: Any, b: Any) -> tuple[Any, Any]:
    if isinstance(a, Fraction):
        a, b = b, a
    context = a.context
    if isinstance(b, Fraction):
        b = context.mpf(b.numerator) / b.denominator
    return abs(a - b), max(abs(a), abs(b))


# Sizes and signs at each point: all alike, or by name where there is "?". The first ones are all positive.
_PLACES = ("<+", ">+", "?+", "*+", "<-", ">?", "*-", "??")
_RANGES = {"<": (Fraction(1, 10), Fraction(9, 10)), ">": (Fraction(1), Fraction(4)), "*": (Fraction(20), Fraction(900))}
_NUM_POSITIVE = 4
_WHOLE_NAMES = frozenset("nkmijl")
_STEPS = {"lfloor", "lceil", "mod", "gcd", "lcm", "factorial", "binom"}


def _points(a: Node, b: Node) -> Iterator[Point]:
    """Points at which all variables have different values: near 0, above 1, far out, below 0, and of both signs.

    Names such as n and k stand for whole numbers where a rounding, a remainder, a factorial or a power of a negative
    number has them, and so do the bounds of sums. Roots of several variables are compared where all are above 0.
    """
    names = tuple(sorted(variables(a) | variables(b)))
    if not names:
        yield Point(())
        return
    operations = _operations(a) | _operations(b)
    bounds = _bounds_of(a) | _bounds_of(b)
    whole = bounds | (_WHOLE_NAMES & set(names) if operations & _STEPS else frozenset())
    if whole:
        for number in range(10):
            yield Point(
                tuple(
                    (name, _whole_coordinate(place, number) if name in whole else _coordinate(name, number % 8, place))
                    for place, name in enumerate(names)
                )
            )
        return
    only_positive = len(names) > 1 and "root" in operations
    for number in range(_NUM_POSITIVE if only_positive else len(_PLACES)):
        yield Point(tuple((name, _coordinate(name, number, place)) for place, name in enumerate(names)))


@functools.lru_cache(maxsize=4096)
def _coordinate(name: str, number: int, place: int) -> Fraction:
    size, sign = _PLACES[number]
    mixed = zlib.crc32(f"{number} {name}".encode()) * 2_654_435_761 % _PRIME
    low, high = _RANGES["<>"[mixed % 2] if size == "?" else size]
    value = (low + (high - low) * Fraction(mixed, _PRIME)).limit_denominator(_PRIME)
    # Of any two among four names, the signs differ at one of the two points.
    is_negative = sign == "-" or (sign == "?" and (place if number % 2 else place // 2) % 2)
    return -value if is_negative else value


def _whole_coordinate(place: int, number: int) -> Fraction:
    """Whole numbers from 2 on, and of the last points from 20 on; no two names have equal ones at all points."""
    if number < 6:
        return Fraction(2 + (number * (2 * place + 1) + 5 * place) % 11)
    return Fraction(20 + (number * (2 * place + 7) + 11 * place) % 41)


@functools.lru_cache(maxsize=4096)
def _operations(node: Node) -> frozenset[str]:
    """Functions and operations that decide where to compare: roundings, roots, powers of negative numbers."""
    return frozenset(_found_operations(node))


def _found_operations(node: Node) -> Iterator[str]:
    if node[0] == "call":
        yield node[1]
    elif node[0] == "root" or (node[0] == "^" and node[2][0] != "num" and _is_fraction(node[2])):
        yield "root"
    elif node[0] == "^" and node[1][0] == "num" and node[1][1] < 0:
        yield "mod"
    for part in node[1:]:
        if isinstance(part, tuple) and part:
            yield from _found_operations(part)


def _is_fraction(node: Node) -> bool:
    return node[0] == "/" or (node[0] == "num" and node[1].denominator > 1)


@functools.lru_cache(maxsize=4096)
def _bounds_of(node: Node) -> frozenset[str]:
    """The variables in the bounds of sums and products."""
    return frozenset(_bounds(node))


def _bounds(node: Node) -> Iterator[str]:
    if node[0] == "big" and node[1] in ("sum", "prod"):
        yield from (name for bound in node[3:5] if bound for name in variables(bound))
    for part in node[1:]:
        if isinstance(part, tuple) and part:
            yield from _bounds(part)


def _elsewhere(node: Node) -> Node:
    """The expression with other variables in the place of its own."""
    if node[0] == "var":
        return ("var", f"{node[1]}@")
    return Node(_elsewhere(part) if isinstance(part, tuple) and part else part for part in node)
