"""Sides with equals signs between them: do they agree, what are they a value of, and by which name?"""

from collections.abc import Callable
from fractions import Fraction

from rl_posttrain.rewards.answers.expressions import parse
from rl_posttrain.rewards.answers.forms import Answer, Chain, Expression, Group, Quantity
from rl_posttrain.rewards.answers.nodes import Node, difference, has_numbers, variables
from rl_posttrain.rewards.answers.relations import is_function, node_of
from rl_posttrain.rewards.answers.tokens import TRIGONOMETRIC
from rl_posttrain.rewards.answers.values import equal, near_value


def is_consistent(chain: Chain, same_answer: Callable[[Answer, Answer], bool]) -> bool:
    """Whether the sides of a chain have the same value; 5+6 = 12 and 7 \\approx 8 do not say what their answer is."""
    *before, last = chain.sides[: chain.num_exact]
    node = node_of(last)
    if node is None:
        return all(is_one_name(side) or same_answer(side, last) for side in before)
    return all(_agrees(side, last) for side in before) and _rounds(chain)


def _agrees(side: Answer, last: Answer) -> bool:
    node, other = node_of(last), node_of(side)
    if other is None or is_one_name(side) or (variables(other) and not variables(node)):
        return True  # a + b = 5
    units = getattr(side, "unit", None), getattr(last, "unit", None)
    if bool(units[0]) != bool(units[1]) and ("angle", 1) in (units[0] or units[1]).dimensions:
        return True  # 45^\circ = \pi/4
    if isinstance(side, Quantity) and isinstance(last, Quantity) and all(units):
        a, b = side.number.value * units[0].factor, last.number.value * units[1].factor
        return a == b and units[0].dimensions == units[1].dimensions
    return equal(other, node) is not False


def is_one_name(side: Answer) -> bool:
    """Whether a side is a variable or a function of one: it has no value that could disagree."""
    if not isinstance(side, Expression):
        return False
    return side.node[0] == "var" or (side.node[0] == "call" and side.node[1].startswith("of "))


def is_value_of(left: Node) -> bool:
    """Whether a number can be the answer to "what is `left`": a + b, xy, x^2 + y^2, \\sin x.

    x + 5, x^2 and 2x cannot: what is asked for is still to be solved.
    """
    if left[0] == "call":
        return left[1] in TRIGONOMETRIC or left[1].startswith("of ")
    return len(variables(left)) > 1 and not has_numbers(left)


def _rounds(chain: Chain) -> bool:
    """Whether what stands behind the sign for "about" is the exact value, rounded or cut off."""
    if chain.num_exact == len(chain.sides):
        return True
    exact = chain.sides[chain.num_exact - 1]
    node = node_of(exact)
    value = None if node is None else near_value(node)
    if value is None:
        return True
    is_whole = isinstance(exact, Quantity) and exact.number.value.denominator == 1
    return all(
        isinstance(side, Quantity) and _is_near(side, value, is_whole) for side in chain.sides[chain.num_exact :]
    )


def _is_near(side: Quantity, value: Fraction, is_whole: bool) -> bool:
    near, scale = side.number.value, 100 if side.number.is_percent else 1
    if side.number.is_quotient or is_whole:
        return near == value  # 22/7, and 7 \approx 8
    last_place = Fraction(1, scale * 10 ** _num_decimals(near * scale))
    off = value - near
    is_cut_off = abs(off) < last_place and off * value >= 0
    return is_cut_off or abs(off) <= last_place / 2


def _num_decimals(value: Fraction) -> int:
    return next((count for count in range(16) if 10**count % value.denominator == 0), 16)


def same_name(found: Chain, gold: Chain) -> bool:
    """Whether two names may stand for the same value: x and x, y and f(x), f(x) and g(x), "area" and A; not x and y."""
    a, b = (side.name.removeprefix(r"\text{").removesuffix("}").strip() for side in (found, gold))
    if a.lower() == b.lower() and (a == b or len(a) > 1):
        return True
    words = [
        (side.name.startswith(r"\text{") and len(name) > 1) or (len(name) > 3 and name.isalpha())
        for side, name in ((found, a), (gold, b))
    ]
    if any(words):
        return not all(words)
    return is_function(a) and is_function(b) and (a[1:] == b[1:] or "y" in (a, b))


def by_names(answer: Answer, names: list[str]) -> Group | None:
    """The values of x = 1, y = 2 or of (y, x) = (2, 1) in the order of `names`; None where the names are others."""
    values: dict[str, Answer] = {}
    if isinstance(answer, Group) and answer.brackets == "" and all(isinstance(item, Chain) for item in answer.items):
        values = {item.name: item.sides[-1] for item in answer.items}
    elif isinstance(answer, Chain) and isinstance(answer.sides[-1], Group):
        values = dict(zip(names_in(answer.name), answer.sides[-1].items, strict=False))
    return Group("()", tuple(values[name] for name in names)) if sorted(values) == sorted(names) else None


def names_in(name: str) -> list[str]:
    """x and y of "(x,y)"; none of another name."""
    return name[1:-1].split(",") if name.startswith("(") else []


def as_equation(chain: Chain) -> Node | None:
    """name - value, of a chain with the name of a variable or of a function of one."""
    name, value = parse(chain.name) if chain.name else None, node_of(chain.sides[chain.num_exact - 1])
    if name is None or value is None or name[0] not in ("var", "call") or not variables(name):
        return None
    return difference(name, value)


def names_of(chain: Chain) -> set[str]:
    """All names in a chain: x, y and z in x = y = z = 1."""
    inner = {side.node[1] for side in chain.sides[:-1] if isinstance(side, Expression) and side.node[0] == "var"}
    return inner | ({chain.name} if chain.name else set())
