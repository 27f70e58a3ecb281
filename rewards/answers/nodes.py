r"""Expressions as tuples.

("num", Fraction), ("var", name), ("const", "pi" | "e" | "i" | "inf"), ("+", a, b), ("*", a, b), ("/", a, b),
("^", a, b), ("root", n, a), ("call", name, arguments...), and ("big", name, index, low, high, body) for sums, products,
integrals and limits.
"""

import functools
from collections.abc import Iterator
from fractions import Fraction


class Node(tuple):
    """A tuple that keeps its hash: caches look an expression up by it, and a deep one takes long to hash."""

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = super().__hash__()
            return self._hash


MINUS_ONE = Node(("num", Fraction(-1)))
ZERO = Node(("num", Fraction(0)))


@functools.lru_cache(maxsize=16384)
def variables(node: Node) -> frozenset[str]:
    """The names of the variables of an expression; the index of a sum or an integral is none of them."""
    return frozenset(_names(node))


def _names(node: Node) -> Iterator[str]:
    if node[0] == "var":
        yield node[1]
        return
    if node[0] == "big":
        _, _, index, *bounds, body = node
        yield from (name for part in bounds if part for name in _names(part))
        yield from (name for name in _names(body) if name != index[1])
        return
    for part in node[1:]:
        if isinstance(part, tuple) and part:
            yield from _names(part)


def negative(node: Node) -> Node:
    """Minus the expression."""
    return ("num", -node[1]) if node[0] == "num" else ("*", MINUS_ONE, node)


def is_proper(node: Node) -> bool:
    r"""Whether a fraction can follow a whole number as in 1\frac{1}{2}."""
    return node[0] == "/" and node[1][0] == node[2][0] == "num" and 0 < node[1][1] < node[2][1]


def has_numbers(node: Node) -> bool:
    """Whether there are numbers in it other than exponents and -1, as in 2x, x + 5 and x/3."""
    if node[0] == "num":
        return node != MINUS_ONE
    parts = node[1:2] if node[0] == "^" else node[1:]
    return any(has_numbers(part) for part in parts if isinstance(part, tuple) and part)


def difference(a: Node, b: Node) -> Node:
    """a - b."""
    return Node(("+", a, ("*", MINUS_ONE, b)))


def derivative(top: Node, bottom: Node) -> Node | None:
    """dv/dt as a function of v and t that nobody defines; None where top and bottom are no differentials."""
    over, under = _factors(top), _factors(bottom)
    if not (_is_differential(over[0]) and _is_differential(under[0])) or len(under) < 2:
        return None
    return ("call", "of d", *(factor for factor in (*over, *under) if not _is_differential(factor)), *over[:1])


def _factors(node: Node) -> list[Node]:
    return [*_factors(node[1]), *_factors(node[2])] if node[0] == "*" else [node]


def _is_differential(node: Node) -> bool:
    return (node[1] if node[0] == "^" else node) in (("var", "d"), ("var", r"\partial"))


def has_plain_log(node: Node) -> bool:
    """Whether there is a logarithm without a base in it."""
    if node[0] == "call" and node[1] == "log" and len(node) == 3:
        return True
    return any(has_plain_log(part) for part in node[1:] if isinstance(part, tuple) and part)


def with_log_of_ten(node: Node) -> Node:
    """The expression with the base 10 for each logarithm without one."""
    parts = tuple(with_log_of_ten(part) if isinstance(part, tuple) and part else part for part in node)
    return Node((*parts, ("num", Fraction(10)))) if parts[:2] == ("call", "log") and len(parts) == 3 else Node(parts)
