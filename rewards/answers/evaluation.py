"""The value of an expression at a point, exact where it is rational, in bounded time and memory."""

import functools
import math
import operator
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from rl_posttrain.rewards.answers.nodes import Node
from rl_posttrain.rewards.answers.points import Point, TooLargeError, UndefinedError, Value, context_of

_MAX_BITS = 60_000
_MAX_MAGNITUDE = 2_000
_MAX_TERMS = 1_000
# A step takes about 10 microseconds, and so does arithmetic with so many bits.
_MAX_STEPS = 10_000
_BITS_PER_STEP = 500
_MAX_FACTORIAL = 3_000
# mpmath keeps constants and its precision in places that all threads share.
_lock = threading.RLock()
_INFINITE = Fraction(123_457, 10)


def _open_in_child() -> None:
    """Another thread may have held the lock when this process was forked."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_open_in_child)


@functools.lru_cache(maxsize=16384)
def evaluate(node: Node, point: Point) -> Value:
    """The value of an expression at a point.

    Raises:
        UndefinedError: there is no value, as for 1/0.
        TooLargeError: it would take too long.
    """
    try:
        with _lock:
            evaluator = _Evaluator(point)
            number = evaluator.value(node)
        return Value(number, evaluator.is_real, evaluator.hidden_bits * 301 // 1000)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, TooLargeError):
            raise
        raise UndefinedError from error


class _Evaluator:
    def __init__(self, point: Point):
        self.mp = context_of(point.digits)
        self.names = dict(point.values)
        self.is_real = True
        self.hidden_bits = 0
        self.num_steps = 0

    def value(self, node: Node) -> Any:
        self.spend(1)
        return _KINDS[node[0]](self, *node[1:])

    def spend(self, steps: int) -> None:
        """Count the work: the terms of sums of sums multiply, and so do the digits of large powers."""
        self.num_steps += steps
        if self.num_steps > _MAX_STEPS:
            raise TooLargeError

    def number(self, value: Fraction) -> Any:
        return value

    def variable(self, name: str) -> Any:
        return self.names[name]

    def constant(self, name: str) -> Any:
        if name == "inf":
            return _INFINITE
        return self.mp.mpc(0, 1) if name == "i" else +getattr(self.mp, name)

    def sum(self, a: Node, b: Node) -> Any:
        return self._added(self.value(a), self.value(b))

    def _added(self, x: Any, y: Any) -> Any:
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            return _mixed(self, x, y, operator.add)
        if x and y:
            self.hidden_bits = max(self.hidden_bits, abs(self._bits(x) - self._bits(y)))
        return _mixed(self, x, y, operator.add)

    def _bits(self, value: Any) -> int:
        if isinstance(value, Fraction):
            return value.numerator.bit_length() - value.denominator.bit_length()
        return int(self.mp.mag(value))

    def product(self, a: Node, b: Node) -> Any:
        return _combined(self, a, b, operator.mul)

    def quotient(self, a: Node, b: Node) -> Any:
        return _combined(self, a, b, operator.truediv)

    def float(self, value: Any) -> Any:
        """The value as a number of mpmath that its functions take."""
        if isinstance(value, Fraction):
            value = self.mp.mpf(value.numerator) / value.denominator
        if value and self.mp.mag(value) > _MAX_MAGNITUDE:
            raise TooLargeError
        return value

    def power(self, a: Node, b: Node) -> Any:
        base, exponent = self.value(a), self.value(b)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._whole_power(base, int(exponent))
        if isinstance(exponent, Fraction) and abs(exponent.denominator) <= 64 and self._is_positive(base):
            root = self._root(base, exponent.denominator)
            return self._whole_power(root, exponent.numerator)
        if not base:
            raise UndefinedError
        if not self._is_positive(base) and a != ("const", "i"):
            self.is_real = self.is_real and bool(getattr(base, "imag", 0))
        exponent = self.float(exponent)
        if a == ("const", "e"):
            return self.mp.exp(exponent)
        return self.mp.exp(self.float(exponent * self.mp.log(self.float(base))))

    def _whole_power(self, base: Any, exponent: int) -> Any:
        if isinstance(base, Fraction):
            if not base and exponent < 0:
                raise UndefinedError
            bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
            if bits <= _MAX_BITS or abs(base) in (0, 1):
                self.spend(bits // _BITS_PER_STEP)
                return base**exponent if abs(base) not in (0, 1) else base ** (exponent % 2 + 2 * bool(exponent))
        if abs(exponent) > 10**9:
            raise TooLargeError
        value = self.float(base) ** exponent
        return self.float(value)

    def _is_positive(self, value: Any) -> bool:
        return not getattr(value, "imag", 0) and value.real > 0

    def root(self, degree: Node, radicand: Node) -> Any:
        order, value = self.value(degree), self.value(radicand)
        if not isinstance(order, Fraction) or order.denominator != 1 or not 1 <= order <= 1000:
            return self.power(radicand, ("/", ("num", Fraction(1)), degree))
        order = int(order)
        if getattr(value, "imag", 0):
            return self.mp.root(self.float(value), order)
        if value < 0:
            if order % 2:
                return -self._root(-value, order)
            self.is_real = False
            return self.mp.root(self.mp.mpc(self.float(value)), order)
        return self._root(value, order)

    def _root(self, value: Any, order: int) -> Any:
        if isinstance(value, Fraction):
            top, bottom = (_exact_root(part, order) for part in (value.numerator, value.denominator))
            if top is not None and bottom is not None:
                return Fraction(top, bottom)
        return self.mp.root(self.float(value), order)

    def call(self, name: str, *arguments: Node) -> Any:
        values = [self.value(argument) for argument in arguments]
        if name.startswith("of "):
            return self.unknown(name, values)
        function = _CALLS.get(name)
        if function is not None:
            return function(self, *values)
        return self._of_mpmath(name, *values)

    def _of_mpmath(self, name: str, value: Any) -> Any:
        argument = self.float(value)
        inverse = name.removeprefix("arc") if name.startswith("arc") else None
        if inverse in ("sin", "cos") and not argument.imag and abs(argument) > 1:
            self.is_real = False
        if inverse in ("sec", "csc") and not argument.imag and abs(argument) < 1:
            self.is_real = False
        if inverse is None and name in ("tan", "sec", "cot", "csc"):
            pole = self.mp.cos(argument) if name in ("tan", "sec") else self.mp.sin(argument)
            if abs(pole) < self.mp.mpf(10) ** (10 - self.mp.dps):
                raise UndefinedError
        own = {"arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "arcsinh": "asinh", "arccosh": "acosh",
               "arctanh": "atanh"}.get(name, f"a{inverse}" if inverse else name)  # fmt: skip
        result = getattr(self.mp, own)(argument)
        if not argument.imag and result.imag:
            self.is_real = False
        return result

    def log(self, value: Any, base: Any = None) -> Any:
        if not value:
            raise UndefinedError
        if not self._is_positive(value):
            self.is_real = self.is_real and bool(getattr(value, "imag", 0))
        result = self.mp.log(self.float(value))
        return result if base is None else result / self.mp.log(self.float(base))

    def factorial(self, value: Any) -> Any:
        if isinstance(value, Fraction) and value.denominator == 1:
            if not 0 <= value <= _MAX_FACTORIAL:
                raise TooLargeError if value > 0 else UndefinedError
            return Fraction(math.factorial(int(value)))
        argument = self.float(value)
        if abs(argument) > 500:
            raise TooLargeError
        return self.mp.gamma(argument + 1)

    def binomial(self, n: Any, k: Any) -> Any:
        if isinstance(k, Fraction) and k.denominator == 1 and isinstance(n, Fraction):
            if n.denominator == 1 and n >= k >= 0 and n <= _MAX_FACTORIAL:
                return Fraction(math.comb(int(n), int(k)))
            if 0 <= k <= 200:
                return functools.reduce(
                    lambda product, step: product * (n - step) / (step + 1), range(int(k)), Fraction(1)
                )
        n, k = self.float(n), self.float(k)
        if max(abs(n), abs(k)) > 500:
            raise TooLargeError
        return self.mp.binomial(n, k)

    def several(self, function: Callable, values: tuple) -> Any:
        if not all(isinstance(value, Fraction) for value in values):
            values = tuple(self.float(value) for value in values)
        return function(values)

    def whole(self, name: str, function: Callable, values: Sequence) -> Any:
        """A function of whole numbers; at a point of others, one that nobody defines."""
        if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
            return self.unknown(name, values)
        return Fraction(function(*(int(value) for value in values)))

    def rounded(self, value: Any, up: bool) -> Fraction:
        if getattr(value, "imag", 0):
            raise UndefinedError
        if not isinstance(value, Fraction):
            nearest = self.mp.nint(self.float(value))
            if abs(value - nearest) < self.mp.mpf(10) ** (10 - self.mp.dps):
                value = nearest
            return Fraction(int((self.mp.ceil if up else self.mp.floor)(value)))
        return Fraction(math.ceil(value) if up else math.floor(value))

    def big(self, name: str, index: Node, low: Node, high: Node, body: Node) -> Any:
        if (
            name in ("sum", "prod")
            and low
            and high
            and not {_INFINITE, -_INFINITE} & {self.value(high), self.value(low)}
        ):
            return self._terms(name, index[1], self.value(low), self.value(high), body)
        # Not worked out: a function of the bounds and of the body, in which the index has no name.
        kept = self.names.get(index[1])
        bounds = [self.value(bound) for bound in (low, high) if bound]
        bodies = []
        for place in (Fraction(3_717, 10_007), Fraction(12_911, 10_007)):
            self.names[index[1]] = place
            bodies.append(self.value(body))
        if kept is not None:
            self.names[index[1]] = kept
        return self.unknown(f"big {name}", bounds + bodies)

    def _terms(self, name: str, index: str, low: Any, high: Any, body: Node) -> Any:
        if not (isinstance(low, Fraction) and isinstance(high, Fraction) and low.denominator == high.denominator == 1):
            raise TooLargeError
        if high - low > _MAX_TERMS:
            raise TooLargeError
        kept, total = self.names.get(index), Fraction(name == "prod")
        for step in range(int(low), int(high) + 1):
            self.names[index] = Fraction(step)
            term = self.value(body)
            total = self._added(total, term) if name == "sum" else _mixed(self, total, term, operator.mul)
        if kept is not None:
            self.names[index] = kept
        return total

    def unknown(self, name: str, values: Sequence) -> Any:
        """The value of a function that nobody defines, such as f(x): equal for equal arguments, and smooth."""
        total = self.mp.mpf(zlib.crc32(name.encode()) % 9_973) / 9_973
        for place, value in enumerate(values):
            total += self.mp.atan(self.float(value) + place) * (place + 2) / (7 + len(values))
        return total


def _combined(self: _Evaluator, a: Node, b: Node, operation: Callable) -> Any:
    return _mixed(self, self.value(a), self.value(b), operation)


def _mixed(self: _Evaluator, x: Any, y: Any, operation: Callable) -> Any:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        result = operation(x, y)
        bits = result.numerator.bit_length() + result.denominator.bit_length()
        if bits > 2 * _MAX_BITS:
            raise TooLargeError
        self.spend(bits // _BITS_PER_STEP)
        return result
    if isinstance(x, Fraction):
        x = self.mp.mpf(x.numerator) / x.denominator
    if isinstance(y, Fraction):
        y = self.mp.mpf(y.numerator) / y.denominator
    return operation(x, y)


def _exact_root(value: int, order: int) -> int | None:
    if value.bit_length() > _MAX_BITS:
        return None
    if order == 2:
        root = math.isqrt(value)
    else:
        if value.bit_length() > 1_000:
            return None
        root = round(value ** (1 / order)) if value else 0
    return root if root**order == value else None


_KINDS = {
    "num": _Evaluator.number, "var": _Evaluator.variable, "const": _Evaluator.constant, "+": _Evaluator.sum,
    "*": _Evaluator.product, "/": _Evaluator.quotient, "^": _Evaluator.power, "root": _Evaluator.root,
    "call": _Evaluator.call, "big": _Evaluator.big,
}  # fmt: skip
_CALLS: dict[str, Callable] = {
    "log": _Evaluator.log, "ln": _Evaluator.log, "factorial": _Evaluator.factorial, "binom": _Evaluator.binomial,
    "abs": lambda self, value: abs(value),
    "max": lambda self, *values: self.several(max, values), "min": lambda self, *values: self.several(min, values),
    "gcd": lambda self, *values: self.whole("gcd", math.gcd, sorted(values)),
    "lcm": lambda self, *values: self.whole("lcm", math.lcm, sorted(values)),
    "mod": lambda self, *values: self.whole("mod", lambda a, b: a % b, values),
    "lfloor": lambda self, value: self.rounded(value, up=False),
    "lceil": lambda self, value: self.rounded(value, up=True),
}  # fmt: skip
