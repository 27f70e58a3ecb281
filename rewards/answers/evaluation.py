"""The value of an expression at a point, exact where it is rational, in bounded time and memory."""

import functools
import operator
import os
import threading
from fractions import Fraction
from typing import Any

from rl_posttrain.rewards.answers.functions import CALLS, Functions
from rl_posttrain.rewards.answers.nodes import Node
from rl_posttrain.rewards.answers.points import Point, TooLargeError, UndefinedError, Value

_MAX_TERMS = 1_000
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


class _Evaluator(Functions):
    """The parts of an expression."""

    def __init__(self, point: Point):
        super().__init__(point.digits)
        self.names = dict(point.values)

    def value(self, node: Node) -> Any:
        self.spend(1)
        return _KINDS[node[0]](self, *node[1:])

    def number(self, value: Fraction) -> Any:
        return value

    def variable(self, name: str) -> Any:
        return self.names[name]

    def constant(self, name: str) -> Any:
        if name == "inf":
            return _INFINITE
        return self.mp.mpc(0, 1) if name == "i" else +getattr(self.mp, name)

    def sum(self, a: Node, b: Node) -> Any:
        return self.added(self.value(a), self.value(b))

    def product(self, a: Node, b: Node) -> Any:
        return self.mixed(self.value(a), self.value(b), operator.mul)

    def quotient(self, a: Node, b: Node) -> Any:
        return self.mixed(self.value(a), self.value(b), operator.truediv)

    def power(self, a: Node, b: Node) -> Any:
        base, exponent = self.value(a), self.value(b)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self.whole_power(base, int(exponent))
        if isinstance(exponent, Fraction) and abs(exponent.denominator) <= 64 and self.is_positive(base):
            root = self.positive_root(base, exponent.denominator)
            return self.whole_power(root, exponent.numerator)
        if not base:
            raise UndefinedError
        if not self.is_positive(base) and a != ("const", "i"):
            self.is_real = self.is_real and bool(getattr(base, "imag", 0))
        exponent = self.float(exponent)
        if a == ("const", "e"):
            return self.mp.exp(exponent)
        return self.mp.exp(self.float(exponent * self.mp.log(self.float(base))))

    def root(self, degree: Node, radicand: Node) -> Any:
        order, value = self.value(degree), self.value(radicand)
        if not isinstance(order, Fraction) or order.denominator != 1 or not 1 <= order <= 1000:
            return self.power(radicand, ("/", ("num", Fraction(1)), degree))
        order = int(order)
        if getattr(value, "imag", 0):
            return self.mp.root(self.float(value), order)
        if value < 0:
            if order % 2:
                return -self.positive_root(-value, order)
            self.is_real = False
            return self.mp.root(self.mp.mpc(self.float(value)), order)
        return self.positive_root(value, order)

    def call(self, name: str, *arguments: Node) -> Any:
        values = [self.value(argument) for argument in arguments]
        if name.startswith("of "):
            return self.unknown(name, values)
        function = CALLS.get(name)
        if function is not None:
            return function(self, *values)
        return self.of_mpmath(name, *values)

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
            total = self.added(total, term) if name == "sum" else self.mixed(total, term, operator.mul)
        if kept is not None:
            self.names[index] = kept
        return total


_KINDS = {
    "num": _Evaluator.number, "var": _Evaluator.variable, "const": _Evaluator.constant, "+": _Evaluator.sum,
    "*": _Evaluator.product, "/": _Evaluator.quotient, "^": _Evaluator.power, "root": _Evaluator.root,
    "call": _Evaluator.call, "big": _Evaluator.big,
}  # fmt: skip
