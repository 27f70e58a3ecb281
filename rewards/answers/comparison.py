"""Do two answers say the same?"""

import re

from rl_posttrain.rewards.answers.chains import (
    as_equation,
    by_names,
    is_consistent,
    is_value_of,
    names_in,
    names_of,
    same_name,
)
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
from rl_posttrain.rewards.answers.nodes import Node, has_plain_log, variables, with_log_of_ten
from rl_posttrain.rewards.answers.numbers import same_number
from rl_posttrain.rewards.answers.relations import answer_of, as_inequality, merged, node_of
from rl_posttrain.rewards.answers.units import same_dimensions, same_quantity
from rl_posttrain.rewards.answers.values import equal, proportional

_NOON = 12 * 3600
_FREE = {"", "{}"}


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
            return _same_words(found.text, gold.text)
        return gold.product is not None and isinstance(found, Expression) and _same_node(found.node, gold.product)
    if isinstance(found, Words) and isinstance(gold, Expression) and found.product is not None:
        found = Expression(found.product)
    if isinstance(found, Group) and len(found.items) == 1 and found.brackets == "{}" and not isinstance(gold, Group):
        found = found.items[0]  # \{7\}
    if isinstance(gold, Group) and len(gold.items) == 1 and gold.brackets == "{}" and not isinstance(found, Group):
        gold = gold.items[0]
    if isinstance(gold, Equation) and isinstance(found, Expression | Quantity) and not variables(gold.right):
        is_asked = is_value_of(gold.left) or (gold.left[0] == "call" and gold.left[1] == "abs")
        return is_asked and same_answer(found, answer_of(gold.right))  # 2 answers \tan x = 2
    if isinstance(gold, Expression | Quantity) and isinstance(found, Equation):
        is_value = is_value_of(found.left) if not variables(found.right) else equal(found.left, found.right)
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


_ARTICLE = re.compile(r"^(?:the|an?|there (?:is|are)|it is)\s+")


def _same_words(found: str, gold: str) -> bool:
    """The same words, with or without an article before them and a plural s behind them."""
    found, gold = (_ARTICLE.sub("", text) for text in (found, gold))
    return found == gold or (len(gold) > 3 and found.removesuffix("s") == gold.removesuffix("s"))


def _same_node(found: Node, gold: Node) -> bool:
    same = equal(found, gold)
    if same is False and (has_plain_log(found) or has_plain_log(gold)):
        same = equal(with_log_of_ten(found), with_log_of_ten(gold))  # \\log is \\ln, or has the base 10
    return _decided(same)


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
        equation = as_equation(gold)
        return equation is not None and _decided(proportional(found.difference, equation))
    if (names := names_in(gold.name)) and (isinstance(found, Chain) or _is_named_list(found)):
        point = by_names(found, names)
        return point is not None and same_answer(point, gold.sides[-1])
    if not isinstance(found, Chain):
        return any(same_answer(found, side) for side in gold.sides[gold.num_exact - 1 :])
    if not is_consistent(found, same_answer):
        return False
    if gold.name and len(names_of(gold)) > 1 and names_of(found) != names_of(gold):
        return False  # x = 1 does not answer x = y = z = 1
    if found.name and gold.name and not same_name(found, gold):
        # y = x + 1 and x = y - 1
        sides = as_equation(found), as_equation(gold)
        return None not in sides and proportional(*sides) is True
    sides = found.sides[: found.num_exact]
    if gold.name:
        if not found.name and any(variables(node) for side in sides[:-1] if (node := node_of(side)) is not None):
            return False  # 2A = 12 does not answer A = 12
        sides = sides[-1:]
    return any(same_answer(a, b) for a in sides for b in gold.sides[gold.num_exact - 1 :])


def _chain_answers(found: Chain, gold: Answer) -> bool:
    """Whether the value of a chain such as x = 5+6 = 11 is the gold."""
    if isinstance(gold, Equation):
        equation = as_equation(found)
        return equation is not None and _decided(proportional(equation, gold.difference))
    if not is_consistent(found, same_answer) or (isinstance(gold, Range) and found.name.startswith("(")):
        return False
    if (names := names_in(found.name)) and _is_named_list(gold):
        point = by_names(gold, names)
        return point is not None and same_answer(found.sides[-1], point)
    exact, rounded = found.sides[found.num_exact - 1], found.sides[found.num_exact :]
    if same_answer(exact, gold):
        return True
    is_decimal = isinstance(gold, Quantity) and not gold.number.is_quotient
    return is_decimal and len(rounded) == 1 and not found.name and same_answer(rounded[0], gold)


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


def _is_named_list(answer: Answer) -> bool:
    return isinstance(answer, Group) and answer.brackets == "" and all(isinstance(item, Chain) for item in answer.items)


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
    """As `same_answer`, of two items: {1} is no 1 there."""
    return isinstance(a, Group) == isinstance(b, Group) and same_answer(a, b)


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
