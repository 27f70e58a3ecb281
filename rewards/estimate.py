"""The value of an expression at one point: if two expressions have different values there, they are not equal.

Nearly all wrong answers are found in this way. The small parser here reads LaTeX of polynomials, fractions, roots and
powers, in a hundredth of the time that sympy takes to build both expressions and to compare them. It returns None where
it does not know a symbol, and where math-verify could read the text in another way.
"""

import functools
import math
import re
from typing import NamedTuple

MAX_CHARACTERS = 300
MAX_DEPTH = 20
_TOKEN = re.compile(
    r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|\\([a-z]+)|([A-Za-z])(?![A-Za-z]{2})|([-+*/^(){}\[\]]))", re.ASCII
)
_GREEK = {"alpha", "beta", "gamma", "theta", "lambda", "mu", "phi", "omega"}
_OPENING = {"(": ")", "{": "}", "[": "]"}


class Estimate(NamedTuple):
    """A value, and a bound on the numbers it was computed from; rounding errors are proportional to that bound."""

    value: float
    size: float


class _UnknownError(ValueError):
    """Text that this parser cannot read, or that can be read in more than one way."""


def differ(a: str, b: str) -> bool:
    """Whether two expressions in the same variables clearly have different values; False where that is unknown."""
    first, second = _estimate(a), _estimate(b)
    if first is None or second is None or first[1] != second[1]:
        return False
    difference, allowed = abs(first[0].value - second[0].value), 1 + abs(first[0].value) + abs(second[0].value)
    # The tolerance is far above the rounding errors here, and above the six decimals to which math-verify rounds.
    is_precise = (first[0].size + second[0].size) * 1e-12 < 1e-5 * allowed
    return is_precise and difference > 1e-5 * allowed


@functools.lru_cache(maxsize=4096)
def _estimate(text: str) -> tuple[Estimate, frozenset[str]] | None:
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        reader = _Reader(_tokens(text))
        result = reader.sum(0)
        if reader.peek() or not math.isfinite(result.size):
            return None
    except (_UnknownError, ArithmeticError):
        return None
    return result, frozenset(reader.variables)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _UnknownError
        number, command, letter, sign = match.groups()
        tokens.append(number or (command and f"\\{command}") or letter or sign)
        position = match.end()
    return tokens


class _Reader:
    """sum = term (("+" | "-") term)*;  term = factor (["*" | "/"] factor)*;  factor = atom ["^" exponent]."""

    def __init__(self, tokens: list[str]):
        self._tokens = [*tokens, ""]
        self._place = 0
        self.variables: set[str] = set()

    def peek(self) -> str:
        return self._tokens[self._place]

    def take(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1]

    def sum(self, depth: int) -> Estimate:
        if depth > MAX_DEPTH:
            raise _UnknownError
        sign = self.take() if self.peek() in ("+", "-") else "+"
        value, size = self._term(depth)
        value = -value if sign == "-" else value
        while self.peek() in ("+", "-"):
            sign, term = self.take(), self._term(depth)
            value, size = value + (term.value if sign == "+" else -term.value), size + term.size
        return Estimate(value, size)

    def _term(self, depth: int) -> Estimate:
        product = self._factor(depth)
        was_divided = False
        while (sign := self.peek()) not in ("", "+", "-", ")", "}", "]"):
            is_explicit = sign in ("*", "/", r"\cdot", r"\times")
            if is_explicit:
                self.take()
            before = self._tokens[self._place - 1]
            if not is_explicit and (
                was_divided or sign[0] in "0123456789." or (before[-1].isdigit() and "frac" in sign)
            ):
                raise _UnknownError  # 1/2x, x2, 1\frac{1}{2}
            factor = self._factor(depth)
            was_divided = sign == "/"
            product = _divided(product, factor) if was_divided else _multiplied(product, factor)
        return product

    def _factor(self, depth: int) -> Estimate:
        base = self._atom(depth)
        if self.peek() != "^":
            return base
        self.take()
        exponent = self._argument(depth)
        is_whole = exponent.value.is_integer()
        if self.peek() == "^" or (base.value <= 0 and not is_whole) or abs(exponent.value) > 100:
            raise _UnknownError
        value = base.value**exponent.value
        # The power multiplies the relative errors of base and exponent.
        grown = 1 + abs(exponent.value) * base.size / abs(base.value)
        grown += 0 if is_whole else abs(math.log(base.value)) * exponent.size
        return Estimate(value, abs(value) * grown)

    def _atom(self, depth: int) -> Estimate:
        token = self.take()
        if token in _OPENING:
            inner = self.sum(depth + 1)
            if self.take() != _OPENING[token]:
                raise _UnknownError
            return inner
        if token[:1].isdigit() or token[:1] == ".":
            if self.peek()[:1].isdigit():
                raise _UnknownError  # 1 1/2, and thousands set apart
            return Estimate(float(token), float(token))
        if token in (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"):
            return _divided(self._argument(depth), self._argument(depth))
        if token == r"\sqrt":
            root = 2.0
            if self.peek() == "[":
                root = self._argument(depth).value
            inner = self._argument(depth)
            if inner.value <= 0 or root <= 0:
                raise _UnknownError
            return Estimate(inner.value ** (1 / root), inner.size)
        if token in (r"\pi", "e"):
            return Estimate(getattr(math, token[-2:].lstrip("\\")), math.pi)
        return self._variable(token)

    def _variable(self, token: str) -> Estimate:
        is_name = (len(token) == 1 and token.isalpha()) or token[1:] in _GREEK
        # The imaginary unit, and what may be a function: f(x).
        if not is_name or token == "i" or (token in "fghFGHPT" and self.peek() == "("):
            raise _UnknownError
        self.variables.add(token)
        value = 0.7316 + 0.1373 * (sum(map(ord, token)) % 29)
        return Estimate(value, value)

    def _argument(self, depth: int) -> Estimate:
        """What belongs to a command or to ^: a group, or one sign; of digits, the first alone."""
        token = self.peek()
        if token in ("{", "["):
            return self._atom(depth)
        if len(token) == 1 and token.isalnum() and token != "i":
            return self._atom(depth)
        raise _UnknownError


def _multiplied(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value * b.value, a.size * b.size)


def _divided(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value / b.value, a.size * b.size / b.value**2)
