"""Arithmetic and functions of numbers that are exact where they can be, in bounded time and memory."""

import functools
import math
import operator
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from rl_posttrain.rewards.answers.points import TooLargeError, UndefinedError, context_of

_MAX_BITS = 60_000
_MAX_MAGNITUDE = 2_000
# A step takes about 10 microseconds, and so does arithmetic with so many bits.
_MAX_STEPS = 10_000
_BITS_PER_STEP = 500
_MAX_FACTORIAL = 3_000


class Functions:
    """Numbers are Fractions where they are rational, and real or complex numbers of mpmath otherwise.

    Attributes:
        is_real: whether each step stayed within the real numbers.
        hidden_bits: by how many bits the smaller part of a sum lay below the larger one, at most.
    """

    def __init__(self, digits: int):
        self.mp = context_of(digits)
        self.is_real = True
        self.hidden_bits = 0
        self.num_steps = 0

    def spend(self, steps: int) -> None:
        """Count the work: the terms of sums of sums multiply, and so do the digits of large powers."""
        self.num_steps += steps
        if self.num_steps > _MAX_STEPS:
            raise TooLargeError

    def mixed(self, x: Any, y: Any, operation: Callable) -> Any:
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

    def added(self, x: Any, y: Any) -> Any:
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            return self.mixed(x, y, operator.add)
        if x and y:
            self.hidden_bits = max(self.hidden_bits, abs(self._bits(x) - self._bits(y)))
        return self.mixed(x, y, operator.add)

    def _bits(self, value: Any) -> int:
        if isinstance(value, Fraction):
            return value.numerator.bit_length() - value.denominator.bit_length()
        return int(self.mp.mag(value))

    def float(self, value: Any) -> Any:
        """The value as a number of mpmath that its functions take."""
        if isinstance(value, Fraction):
            value = self.mp.mpf(value.numerator) / value.denominator
        if value and self.mp.mag(value) > _MAX_MAGNITUDE:
            raise TooLargeError
        return value

    def whole_power(self, base: Any, exponent: int) -> Any:
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

    def is_positive(self, value: Any) -> bool:
        return not getattr(value, "imag", 0) and value.real > 0

    def positive_root(self, value: Any, order: int) -> Any:
        if isinstance(value, Fraction):
            top, bottom = (_exact_root(part, order) for part in (value.numerator, value.denominator))
            if top is not None and bottom is not None:
                return Fraction(top, bottom)
        return self.mp.root(self.float(value), order)

    def of_mpmath(self, name: str, value: Any) -> Any:
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
        if not self.is_positive(value):
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

    def unknown(self, name: str, values: Sequence) -> Any:
        """The value of a function that nobody defines, such as f(x): smooth, and of both signs."""
        total = self.mp.mpf(zlib.crc32(name.encode()) % 9_973) / 9_973
        for place, value in enumerate(values):
            total += self.mp.atan(self.float(value) + place) * (place + 2) / (7 + len(values))
        return self.mp.sin(11 * total)


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


CALLS: dict[str, Callable] = {
    "log": Functions.log, "ln": Functions.log, "factorial": Functions.factorial, "binom": Functions.binomial,
    "abs": lambda self, value: abs(value),
    "max": lambda self, *values: self.several(max, values), "min": lambda self, *values: self.several(min, values),
    "gcd": lambda self, *values: self.whole("gcd", math.gcd, sorted(values)),
    "lcm": lambda self, *values: self.whole("lcm", math.lcm, sorted(values)),
    "mod": lambda self, *values: self.whole("mod", lambda a, b: a % b, values),
    "lfloor": lambda self, value: self.rounded(value, up=False),
    "lceil": lambda self, value: self.rounded(value, up=True),
}  # fmt: skip
