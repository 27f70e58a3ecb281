"""Equations, chains of equal sides, inequalities, and the intervals that inequalities describe."""

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

from rl_posttrain.rewards.answers.expressions import parse
from rl_posttrain.rewards.answers.forms import (
    Answer,
    Chain,
    Equation,
    Expression,
    Group,
    Inequality,
    Infinite,
    Quantity,
    Range,
)
from rl_posttrain.rewards.answers.nodes import Node, difference, negative, variables
from rl_posttrain.rewards.answers.numbers import Number
from rl_posttrain.rewards.answers.pieces import outside
from rl_posttrain.rewards.answers.values import near_value, real_value

_RELATION = re.compile(r"<=|>=|\\(?:le|ge|ne|approx|in|equiv)(?![A-Za-z])|[<>=]")
# What can have a value: x, x_1, f(x), AB, \angle A, \text{area}, (x, y), |AB|, \frac{dy}{dx}.
_NAME = re.compile(
    r"[A-Za-z](?:_(?:\{[^{}]*\}|\w))?'*(?:\^\{?-1\}?)?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?"
    r"|(?:m\s*)?\\(?:angle|triangle)\s*[A-Z]{1,3}|\|?[A-Z]{2,3}\|?|\\(?:[a-z]*(?:alpha|beta|gamma|delta|theta|lambda|mu|nu|xi|rho|sigma|tau|phi|psi|omega|epsilon|ell)|Delta|Omega|Phi)"
    r"(?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|[A-Za-z](?:\s*:\s*[A-Za-z])+"
    r"|\\(?:vec|hat|bar|overline)\s*\{?[A-Za-z]{1,2}\}?|\\frac\s*\{\s*d[^{}]*\}\s*\{\s*d[^{}]*\}|\\text\{[^{}]*\}(?:\s*\([^()]*\))?"
    r"|\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)+\s*\)|[A-Za-z]{3,}(?: [A-Za-z]+){0,5}"
)
_ARGUMENT = re.compile(r"(?:y|[A-Za-z]\([A-Za-z]\))")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
Reader = Callable[[str], Answer | None]


def read_relation(text: str, read: Reader) -> Answer | None:
    """What a text with relations outside of brackets says; None without one, or where a side cannot be read."""
    flags = outside(text)
    signs = [match for match in _RELATION.finditer(text) if flags[match.start()]]
    if not signs or len(signs) > 12:
        return None
    sides = [
        text[start:end].strip()
        for start, end in zip(
            [0, *(sign.end() for sign in signs)], [*(sign.start() for sign in signs), len(text)], strict=True
        )
    ]
    names = [{"<=": r"\le", ">=": r"\ge"}.get(sign.group(), sign.group()) for sign in signs]
    if names == [r"\in"] and re.fullmatch("[A-Za-z]", sides[0]):
        values = read(sides[1])
        return Range(sides[0], values) if isinstance(values, Group) else None
    if names == [r"\ne"] and re.fullmatch("[A-Za-z]", sides[0]):
        left_out = read(sides[1])
        union = without(left_out.items if isinstance(left_out, Group) else (left_out,))
        return None if union is None else Range(sides[0], union)
    if set(names) <= {"=", r"\approx"}:
        return _chain(sides, names, read)
    if set(names) <= set(_FLIPPED):
        return _inequality(sides, names, read)
    return None


def _chain(sides: list[str], signs: list[str], read: Reader) -> Answer | None:
    if len(sides) == 2 and signs == ["="] and is_name(sides[1]) and not is_name(sides[0]):
        sides = sides[::-1]  # 2x + 3 = y
    name = sides[0] if is_name(sides[0]) else ""
    if name and len(sides) > 1:
        # x = y + z = 7: only what stands on the left of all is a name.
        sides, signs = sides[1:], signs[1:]
    values = [read(side) for side in sides]
    if not name and len(sides) > 1 and _stands_for_a_value(sides[0], values[0]):
        name, values, sides, signs = sides[0], values[1:], sides[1:], signs[1:]  # f(1) = 2, P(X = 1) = 1/2
    if any(value is None or isinstance(value, Chain | Range) for value in values):
        return None
    num_exact = signs.index(r"\approx") + 1 if r"\approx" in signs else len(sides)
    if not name and len(sides) == 2 and num_exact == 2:
        left, right = (node_of(value) for value in values)
        if left is not None and right is not None and variables(left) | variables(right):
            return Equation(difference(left, right), left, right)
    return Chain("".join(name.split()), tuple(values), num_exact)


def is_name(text: str) -> bool:
    """Whether a text is a name for a value, and no value itself."""
    is_one = _NAME.fullmatch(text) is not None or _NAME.fullmatch("".join(text.split())) is not None
    return is_one and text not in ("e", "i", r"\pi", r"\infty", r"\emptyset")


def _stands_for_a_value(side: str, value: Answer | None) -> bool:
    """Whether a side is a function that nobody defines, or a text in brackets that is no formula."""
    if value is None:
        return re.fullmatch(r"(?:[A-Za-z]|\\text\{[^{}]*\}|\\mathbb\{[A-Z]\})\s*[(\[].*[)\]]", side) is not None
    return isinstance(value, Expression) and value.node[0] == "call" and value.node[1].startswith("of ")


def is_function(name: str) -> bool:
    """Whether a name stands for a function of a variable, as y and f(x) do."""
    return _ARGUMENT.fullmatch(name.replace(" ", "")) is not None


def node_of(value: Answer | None) -> Node | None:
    """An answer that is one value, as an expression; None for all others."""
    if isinstance(value, Quantity):
        return ("num", value.number.value)
    if isinstance(value, Expression):
        return value.node
    return None


def answer_of(node: Node) -> Quantity | Expression:
    """An expression as an answer: a number if its value is rational."""
    value = real_value(node)
    return Quantity(Number(value, False, False)) if isinstance(value, Fraction) else Expression(node)


def _inequality(sides: list[str], signs: list[str], read: Reader) -> Answer | None:
    for place, side in enumerate(sides):
        if re.fullmatch(r"[A-Za-z](?:_\{?\w\}?)?|\\[a-z]+", side) and side not in ("e", "i", r"\pi"):
            found = _range(sides, signs, place, read)
            if found is not None:
                return found
    if len(sides) != 2:
        return None
    if (inside := re.fullmatch(r"\|\s*([A-Za-z])\s*\|", sides[0])) is not None:
        return _around_zero(inside[1], signs[0], read(sides[1]))
    left, right = (node_of(read(side)) for side in sides)
    if left is None or right is None:
        return None
    upper, lower = (left, right) if signs[0] in (">", r"\ge") else (right, left)
    return Inequality(difference(upper, lower), signs[0] in "<>")


def _around_zero(variable: str, sign: str, bound: Answer | None) -> Range | None:
    """|x| < 3 as an interval, |x| > 3 as a union."""
    node = node_of(bound)
    if node is None:
        return None
    low, high, is_open = answer_of(negative(node)), answer_of(node), sign in "<>"
    if sign in ("<", r"\le"):
        return Range(variable, Group("()" if is_open else "[]", (low, high)))
    left = Group("()" if is_open else "(]", (Infinite(-1), low))
    return Range(variable, Group("u", (left, Group("()" if is_open else "[)", (high, Infinite(1))))))


def _range(sides: list[str], signs: list[str], place: int, read: Reader) -> Range | None:
    """The values of the variable at `place` in 1 < x <= 2, x > 2 or 2 > x."""
    if len(sides) > 3 or (len(sides) == 3 and place != 1):
        return None
    ends: dict[str, tuple[Answer, str]] = {}
    for number, side in enumerate(sides):
        if number == place:
            continue
        value = read(side)
        if isinstance(value, Expression) and sides[place] in variables(value.node):
            return None
        if not isinstance(value, Quantity | Expression | Infinite):
            return None
        sign = signs[number] if number < place else _FLIPPED[signs[place]]  # as seen from the value
        which = "lower" if sign in ("<", r"\le") else "upper"
        if which in ends:
            return None
        ends[which] = value, ("([" if which == "lower" else ")]")[sign in (r"\le", r"\ge")]
    lower, opening = ends.get("lower", (Infinite(-1), "("))
    upper, closing = ends.get("upper", (Infinite(1), ")"))
    return Range(sides[place], Group(opening + closing, (lower, upper)))


def as_inequality(found: Range) -> Inequality | None:
    """A range with one finite end as an inequality."""
    if found.values.brackets == "u":
        return None
    (low, high), brackets = found.values.items, found.values.brackets
    if isinstance(low, Infinite) == isinstance(high, Infinite):
        return None
    variable = parse(found.variable)
    end = node_of(high if isinstance(low, Infinite) else low)
    if end is None or variable is None:
        return None
    if isinstance(low, Infinite):
        return Inequality(difference(end, variable), brackets[1] == ")")
    return Inequality(difference(variable, end), brackets[0] == "(")


def union_of(items: list) -> Range | None:
    """x < 2 or x > 3 as values of one variable."""
    if not all(isinstance(item, Range) for item in items) or len({item.variable for item in items}) != 1:
        return None
    return Range(items[0].variable, Group("u", tuple(item.values for item in items)))


def both_ends(items: list) -> Range | None:
    """x > 2 and x < 5 as one interval."""
    if len(items) != 2 or not all(isinstance(item, Range) and len(item.values.items) == 2 for item in items):
        return None
    lower = [item for item in items if item.values.items[1] == Infinite(1)]
    upper = [item for item in items if item.values.items[0] == Infinite(-1)]
    if len(lower) != 1 or len(upper) != 1 or lower == upper or lower[0].variable != upper[0].variable:
        return None
    low, high = lower[0].values, upper[0].values
    return Range(lower[0].variable, Group(low.brackets[0] + high.brackets[1], (low.items[0], high.items[1])))


def without(left_out: tuple) -> Group | None:
    """The real numbers without some numbers, as a union of intervals."""
    ends = [(value, item) for item in left_out if (value := _place(item)) is not None]
    if len(ends) != len(left_out) or not ends:
        return None
    places = [Infinite(-1), *(item for _, item in sorted(ends, key=lambda end: end[0])), Infinite(1)]
    return Group("u", tuple(Group("()", pair) for pair in itertools.pairwise(places)))


def merged(group: Group) -> Group:
    """A union in one way: its intervals in order, those that touch as one; the group itself if that cannot be told."""
    if group.brackets != "u":
        return group
    parts = []
    for part in _flat(group):
        if part.brackets == "{}":
            parts += [(_place(item), _place(item), "[", "]", item, item) for item in part.items]
        elif len(part.items) == 2 and part.brackets in ("()", "[]", "[)", "(]"):
            low, high = part.items
            parts.append((_place(low), _place(high), *part.brackets, low, high))
        else:
            return group
    if any(part[0] is None or part[1] is None for part in parts):
        return group
    parts.sort(key=lambda part: (part[0], part[2] == "("))
    joined = [parts[0]]
    for part in parts[1:]:
        last = joined[-1]
        touches = part[0] < last[1] or (part[0] == last[1] and (part[2] == "[" or last[3] == "]"))
        if not touches:
            joined.append(part)
        elif part[1] > last[1] or (part[1] == last[1] and part[3] == "]"):
            joined[-1] = (last[0], part[1], last[2], part[3], last[4], part[5])
    intervals = tuple(Group(opening + closing, (low, high)) for _, _, opening, closing, low, high in joined)
    return intervals[0] if len(intervals) == 1 else Group("u", intervals)


def _flat(group: Group) -> list[Group]:
    return [part for item in group.items for part in (_flat(item) if item.brackets == "u" else [item])]


def _place(item: Answer) -> Fraction | float | None:
    """Where an end lies on the line."""
    if isinstance(item, Infinite):
        return item.sign * float("inf")
    node = node_of(item)
    return None if node is None else near_value(node)
