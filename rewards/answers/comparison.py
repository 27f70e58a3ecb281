"""Do two answers say the same?"""

from fractions import Fraction

from rl_posttrain.rewards.answers.expressions import parse
from rl_posttrain.rewards.answers.forms import (
    Answer,
    Based,
    Chain,
    Clock,
    Equation,
    Expression,
    Group,
    Inequality,
    Infinite,
    Matrix,
    Quantity,
    Range,
    Words,
)
from rl_posttrain.rewards.answers.nodes import ZERO, Node, difference, has_constant_term, variables
from rl_posttrain.rewards.answers.numbers import same_number
from rl_posttrain.rewards.answers.relations import answer_of, as_inequality, is_function, merged, node_of
from rl_posttrain.rewards.answers.units import same_dimensions, same_quantity
from rl_posttrain.rewards.answers.values import equal, proportional, real_value

_NOON = 12 * 3600
_FREE = {"", "{}"}
_INTERVALS = {"()", "[]", "[)", "(]"}


class UndecidedError(ValueError):
    """Neither the same nor different, as far as values at points can tell."""


def same_answer(found: Answer, gold: Answer) -> bool:
    """Whether two answers are the same. "8/4" is not the same as 2: the division is left undone.

    Raises:
        UndecidedError: the values of two expressions cannot be compared.
    """
    if isinstance(gold, Chain):
        return _answers_chain(found, gold)
    if isinstance(found, Chain):
        return _chain_answers(found, gold)
    if isinstance(gold, Range) or isinstance(found, Range):
        return _same_range(found, gold)
    if isinstance(gold, Words):
        if isinstance(found, Words):
            return found.text == gold.text
        return gold.product is not None and isinstance(found, Expression) and _same_node(found.node, gold.product)
    if isinstance(found, Words) and isinstance(gold, Expression) and found.product is not None:
        found = Expression(found.product)
    if isinstance(found, Group) and len(found.items) == 1 and found.brackets == "{}" and not isinstance(gold, Group):
        found = found.items[0]  # \{7\}
    if isinstance(gold, Group) and len(gold.items) == 1 and gold.brackets == "{}" and not isinstance(found, Group):
        gold = gold.items[0]
    if isinstance(gold, Expression | Quantity) and isinstance(found, Equation):
        # a + b = 5 answers 5, and (x+1)^2 = x^2 + 2x + 1 its right side; y^2 = 4x does not answer 4x, nor x + 5 = 12
        # the 12: it is still to be solved.
        if variables(found.right):
            is_value = equal(found.left, found.right)
        else:
            is_value = not has_constant_term(found.left) and found.right != ZERO
        return bool(is_value) and same_answer(answer_of(found.right), gold)
    if isinstance(gold, Expression):
        if isinstance(found, Quantity) and found.product is not None and variables(gold.node):
            found = Expression(found.product)
        return _same_expression(found, gold)
    if isinstance(gold, Quantity) and isinstance(found, Expression):
        return gold.product is not None and _same_node(found.node, gold.product)
    if type(found) is not type(gold):
        return False
    if isinstance(gold, Quantity):
        return _same_quantity(found, gold)
    if isinstance(gold, Equation):
        return _decided(proportional(found.difference, gold.difference))
    if isinstance(gold, Inequality):
        return found.is_strict == gold.is_strict and _decided(
            proportional(found.difference, gold.difference, only_positive=True)
        )
    if isinstance(gold, Matrix):
        return [len(row) for row in found.rows] == [len(row) for row in gold.rows] and all(
            same_answer(a, b)
            for found_row, gold_row in zip(found.rows, gold.rows, strict=True)
            for a, b in zip(found_row, gold_row, strict=True)
        )
    if isinstance(gold, Group):
        return _same_group(found, gold)
    if isinstance(gold, Clock):
        return _same_time(found, gold)
    assert isinstance(gold, Infinite | Based)
    return found == gold


def _decided(result: bool | None) -> bool:
    if result is None:
        raise UndecidedError
    return result


def _same_node(found: Node, gold: Node) -> bool:
    return _decided(equal(found, gold))


def _same_expression(found: Answer, gold: Expression) -> bool:
    node = node_of(found)
    if node is None:
        return False
    wanted = gold.node
    if found.unit is not None and gold.unit is not None:
        if not same_dimensions(found.unit, gold.unit):
            return False
        node, wanted = ("*", ("num", found.unit.factor), node), ("*", ("num", gold.unit.factor), wanted)
    elif found.unit is not None and variables(gold.node):
        return False  # 3 \text{ m} is no product of 3 and m
    return _same_node(node, wanted)


def _same_quantity(found: Quantity, gold: Quantity) -> bool:
    a, b = found.number, gold.number
    if a.is_quotient and b.value.denominator == 1 and not b.is_quotient:
        return False
    if found.unit is None or gold.unit is None:
        if (found.unit or gold.unit) and (a.is_percent or b.is_percent):
            return False  # 15% is no 15 cm^2
        return same_number(a, b)
    return same_quantity(a.value, found.unit, b.value, gold.unit)


def _same_time(found: Clock, gold: Clock) -> bool:
    def seconds(clock: Clock) -> int:
        late = clock.half == "pm" and clock.seconds < _NOON
        midnight = clock.half == "am" and clock.seconds >= _NOON
        return clock.seconds + _NOON * (late - midnight)

    if bool(found.half) != bool(gold.half) and max(found.seconds, gold.seconds) < 13 * 3600:
        return False  # 3:30 says neither a.m. nor p.m.
    return seconds(found) == seconds(gold)


def _answers_chain(found: Answer, gold: Chain) -> bool:
    """Whether `found` is an answer to a gold with equals signs: x = 3, 0.56 = 56\\%, \\log_6(216) = 3."""
    if isinstance(found, Equation):
        variable, value = parse(gold.name) if gold.name else None, node_of(gold.sides[gold.num_exact - 1])
        if variable is None or value is None or variable[0] not in ("var", "call"):
            return False
        return _decided(proportional(found.difference, difference(variable, value)))
    if isinstance(found, Chain):
        if found.name and gold.name and not _same_name(found, gold):
            return False
        if not _is_consistent(found):
            return False
        candidates = list(found.sides[: found.num_exact])
    else:
        candidates = [found]
    wanted = dict.fromkeys([*gold.sides[gold.num_exact :], gold.sides[gold.num_exact - 1]])
    return any(same_answer(candidate, side) for candidate in candidates for side in wanted)


def _chain_answers(found: Chain, gold: Answer) -> bool:
    """Whether the value of a chain such as x = 5+6 = 11 is the gold."""
    if isinstance(gold, Equation):
        variable, value = parse(found.name) if found.name else None, node_of(found.sides[-1])
        if variable is None or value is None or variable[0] not in ("var", "call"):
            return False
        return _decided(proportional(difference(variable, value), gold.difference))
    if not _is_consistent(found) or (isinstance(gold, Range) and found.name.startswith("(")):
        return False
    exact, rounded = found.sides[found.num_exact - 1], found.sides[found.num_exact :]
    if same_answer(exact, gold):
        return True
    is_decimal = isinstance(gold, Quantity) and not gold.number.is_quotient
    return is_decimal and not found.name and any(same_answer(side, gold) for side in rounded)


def _is_consistent(chain: Chain) -> bool:
    """Whether the exact sides of a chain have the same value; 5+6 = 12 does not say what its answer is."""
    *before, last = chain.sides[: chain.num_exact]
    node = node_of(last)
    if node is None:
        return all(_is_name(side) or same_answer(side, last) for side in before)
    for side in before:
        other = node_of(side)
        if other is None or _is_name(side) or (variables(other) and not variables(node)):
            continue  # a + b = 5
        if bool(getattr(side, "unit", None)) != bool(getattr(last, "unit", None)):
            continue  # 45^\circ = \pi/4
        if isinstance(last, Quantity) and isinstance(side, Quantity):
            if not _same_quantity(side, last) and not same_number(side.number, last.number):
                return False
        elif equal(other, node) is False:
            return False
    return _rounds(chain)


def _is_name(side: Answer) -> bool:
    if not isinstance(side, Expression):
        return False
    return side.node[0] == "var" or (side.node[0] == "call" and side.node[1].startswith("of "))


def _rounds(chain: Chain) -> bool:
    """Whether what stands behind the sign for "about" is the exact value, rounded or cut off."""
    exact = node_of(chain.sides[chain.num_exact - 1])
    value = None if exact is None else real_value(exact)
    if value is None:
        return True
    for side in chain.sides[chain.num_exact :]:
        if not isinstance(side, Quantity):
            return False
        if not side.number.is_quotient:
            near = side.number.value
            last_place = Fraction(1, 10 ** _num_decimals(near * 100 if side.number.is_percent else near))
            last_place /= 100 if side.number.is_percent else 1
            if abs(float(value) - float(near)) > 1.01 * float(last_place):
                return False
    return True


def _num_decimals(value: Fraction) -> int:
    return next((count for count in range(16) if 10**count % value.denominator == 0), 16)


def _same_name(found: Chain, gold: Chain) -> bool:
    a, b = "".join(found.name.split()), "".join(gold.name.split())
    if a == b or "text" in a or "text" in b or (len(a) > 3 and a.isalpha()) or (len(b) > 3 and b.isalpha()):
        return True
    return (is_function(a) and is_function(b) and a[1:] in ("", b[1:])) or (
        is_function(a) and is_function(b) and b[1:] == ""
    )


def _same_range(found: Answer, gold: Answer) -> bool:
    if isinstance(found, Range) and isinstance(gold, Range) and found.variable != gold.variable:
        found, gold = as_inequality(found), as_inequality(gold)
        return found is not None and gold is not None and same_answer(found, gold)
    if isinstance(found, Inequality) or isinstance(gold, Inequality):
        found, gold = (as_inequality(side) if isinstance(side, Range) else side for side in (found, gold))
        return found is not None and gold is not None and same_answer(found, gold)
    is_list = any(isinstance(side, Group) and side.brackets == "" for side in (found, gold))
    found, gold = (side.values if isinstance(side, Range) else side for side in (found, gold))
    if not (isinstance(found, Group) and isinstance(gold, Group)):
        return False
    if is_list and "()" in (found.brackets, gold.brackets):
        return False  # x = 1, y = 2 are no ends
    return _same_group(found, gold)


def _same_group(found: Group, gold: Group) -> bool:
    if "u" in (found.brackets, gold.brackets):
        found, gold = merged(found), merged(gold)
        if found.brackets == gold.brackets == "u":
            return len(found.items) == len(gold.items) and all(
                _same_group(a, b) for a, b in zip(found.items, gold.items, strict=True)
            )
    if "()" in (found.brackets, gold.brackets) and (named := _named_point(found, gold)) is not None:
        found, gold = named
    if gold.brackets not in _FREE or found.brackets not in _FREE:
        return (
            found.brackets == gold.brackets
            and len(found.items) == len(gold.items)
            and all(same_answer(a, b) for a, b in zip(found.items, gold.items, strict=True))
        )
    # "1, 2" answers "x = 1 or x = 2". It does not answer "x = 1, y = 2": it does not say which is which.
    names = {item.name for item in gold.items if isinstance(item, Chain) and item.name}
    if len(names) > 1 and not all(isinstance(item, Chain) and item.name for item in found.items):
        return False
    if gold.brackets == "" and _repeats(gold):
        return len(found.items) == len(gold.items) and _matched(list(found.items), list(gold.items))
    covered = all(any(_same(item, wanted) for wanted in gold.items) for item in found.items)
    return covered and all(any(_same(item, wanted) for item in found.items) for wanted in gold.items)


def _named_point(found: Group, gold: Group) -> tuple[Group, Group] | None:
    """Both as points, where one is a list of values by name in the order of the alphabet: x = 1, y = 2 and (1, 2)."""
    sides = []
    for side in (found, gold):
        if side.brackets == "":
            names = [item.name for item in side.items if isinstance(item, Chain) and len(item.sides) == 1]
            if len(names) != len(side.items) or names != sorted(set(names)) or "" in names:
                return None
            side = Group("()", tuple(item.sides[0] for item in side.items))
        sides.append(side)
    return sides[0], sides[1]


def _same(a: Answer, b: Answer) -> bool:
    return same_answer(a, b)


def _repeats(group: Group) -> bool:
    return any(_same(a, b) for place, a in enumerate(group.items) for b in group.items[:place])


def _matched(found: list, gold: list) -> bool:
    """Whether each item of the gold has an item of its own."""
    for item in found:
        place = next((place for place, wanted in enumerate(gold) if _same(item, wanted)), None)
        if place is None:
            return False
        del gold[place]
    return not gold
