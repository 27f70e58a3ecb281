r"""Expressions as tuples.

("num", Fraction), ("var", name), ("const", "pi" | "e" | "i" | "inf"), ("+", a, b), ("*", a, b), ("/", a, b),
("^", a, b), ("root", n, a), ("call", name, arguments...), and ("big", name, index, low, high, body) for sums, products,
integrals and limits.
"""

from fractions import Fraction

Node = tuple

MINUS_ONE: Node = ("num", Fraction(-1))
ZERO: Node = ("num", Fraction(0))


def variables(node: Node) -> set[str]:
    """The names of the variables of an expression."""
    if node[0] == "var":
        return {node[1]}
    found: set[str] = set()
    for part in node[1:]:
        if isinstance(part, tuple):
            found |= variables(part)
    return found


def negative(node: Node) -> Node:
    """Minus the expression."""
    return ("num", -node[1]) if node[0] == "num" else ("*", MINUS_ONE, node)


def is_proper(node: Node) -> bool:
    """Whether a fraction can follow a whole number as in 1\\frac{1}{2}."""
    return node[0] == "/" and node[1][0] == node[2][0] == "num" and 0 < node[1][1] < node[2][1]


def difference(a: Node, b: Node) -> Node:
    """a - b."""
    return ("+", a, ("*", MINUS_ONE, b))
