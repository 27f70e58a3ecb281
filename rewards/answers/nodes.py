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
    """Whether a fraction can follow a whole number as in 1\\frac{1}{2}."""
    return node[0] == "/" and node[1][0] == node[2][0] == "num" and 0 < node[1][1] < node[2][1]


def has_constant_term(node: Node) -> bool:
    """Whether a number is added to something in it, as in x + 5 and (x - 1)^2."""
    if node[0] == "+" and "num" in (node[1][0], node[2][0]):
        return True
    return any(has_constant_term(part) for part in node[1:] if isinstance(part, tuple) and part)


def difference(a: Node, b: Node) -> Node:
    """a - b."""
    return Node(("+", a, ("*", MINUS_ONE, b)))
