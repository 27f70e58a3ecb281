"""What an answer can be, once it is read."""

from typing import NamedTuple

from rl_posttrain.rewards.answers.nodes import Node
from rl_posttrain.rewards.answers.numbers import Number
from rl_posttrain.rewards.answers.units import Unit


class Quantity(NamedTuple):
    """A number with its unit; a bare number has none. `product`: "5 m" as the product of 5 and m, where it can be."""

    number: Number
    unit: Unit | None = None
    product: Node | None = None


class Expression(NamedTuple):
    """Any other expression, with its unit."""

    node: Node
    unit: Unit | None = None


class Infinite(NamedTuple):
    sign: int


class Words(NamedTuple):
    """Words. `product` is what they are as a product of letters, where they can be one."""

    text: str
    product: Node | None = None


class Clock(NamedTuple):
    """A time of day. `half` is "am", "pm" or "" where the answer does not say."""

    seconds: int
    half: str


class Based(NamedTuple):
    """Digits to a base: 1011_2."""

    digits: str
    base: int


class Group(NamedTuple):
    """Items in brackets.

    `brackets` is "" for a list without brackets, "{}" for a set, "u" for a union: the order of these is free. "()" is a
    point or an open interval, "[]", "[)" and "(]" are intervals, ":" is a ratio, "mod" a number and its modulus.
    """

    brackets: str
    items: tuple


class Matrix(NamedTuple):
    rows: tuple


class Chain(NamedTuple):
    """Sides with equals signs between them, after a name: x = 5+6 = 11.

    Attributes:
        name: what stands on the left: "x", "f(x)", words; "" if the first side has a value itself.
        sides: the values; at least one.
        num_exact: how many sides come before the first sign for "about".
    """

    name: str
    sides: tuple
    num_exact: int


class Equation(NamedTuple):
    """left = right, with variables; `difference` is left - right."""

    difference: Node
    left: Node
    right: Node


class Inequality(NamedTuple):
    """`difference` is above 0, or is 0 or more."""

    difference: Node
    is_strict: bool


class Range(NamedTuple):
    """The values of a variable as an interval or a union: 1 < x <= 2."""

    variable: str
    values: Group


Answer = (
    Quantity | Expression | Infinite | Words | Clock | Based | Group | Matrix | Chain | Equation | Inequality | Range
)


def is_only_numbers(answer: Answer | None) -> bool:
    """Whether an answer consists of numbers alone."""
    if isinstance(answer, Chain):
        return all(is_only_numbers(side) for side in answer.sides)
    if isinstance(answer, Range):
        return is_only_numbers(answer.values)
    if isinstance(answer, Group):
        return all(is_only_numbers(item) for item in answer.items)
    if isinstance(answer, Matrix):
        return all(is_only_numbers(entry) for row in answer.rows for entry in row)
    return isinstance(answer, Quantity | Infinite | Clock | Based)
