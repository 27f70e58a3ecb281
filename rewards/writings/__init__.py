"""Other ways to write a gold answer, which a reward must pay, and wrong answers that look right, which it must not.

The generator works on the text of a gold. It shares no code with the reader of `math_accuracy`, so it is a check on it.
"""

import random
from collections.abc import Callable, Iterable

from rl_posttrain.rewards.writings.expressions import (
    equation_rewrites,
    expression_rewrites,
    wrong_equations,
    wrong_expressions,
)
from rl_posttrain.rewards.writings.groups import (
    matrix_rewrites,
    members_rewrites,
    point_rewrites,
)
from rl_posttrain.rewards.writings.intervals import inequality_rewrites, interval_rewrites
from rl_posttrain.rewards.writings.looks import looks, placed
from rl_posttrain.rewards.writings.measures import (
    base_rewrites,
    money_rewrites,
    quantity_rewrites,
    time_rewrites,
    wrong_bases,
    wrong_money,
    wrong_quantities,
    wrong_times,
)
from rl_posttrain.rewards.writings.numbers import number_rewrites
from rl_posttrain.rewards.writings.plain import plain_text
from rl_posttrain.rewards.writings.shapes import bare, shape_of
from rl_posttrain.rewards.writings.words import choice_rewrites, word_rewrites, wrong_choices, wrong_words
from rl_posttrain.rewards.writings.writing import Texts, Writing
from rl_posttrain.rewards.writings.wrong_groups import (
    wrong_matrices,
    wrong_members,
    wrong_points,
)
from rl_posttrain.rewards.writings.wrong_intervals import wrong_inequalities, wrong_intervals
from rl_posttrain.rewards.writings.wrong_numbers import wrong_decimals, wrong_fractions, wrong_integers, wrong_percents

__all__ = ["Writing", "bare", "near_misses", "plain_text", "rewrites", "shape_of"]

_NUMBERS = ("integer", "decimal", "fraction", "percent")
_REWRITES: dict[str, Callable[[str], Texts]] = {
    "money": money_rewrites, "quantity": quantity_rewrites, "time": time_rewrites, "base": base_rewrites,
    "equation": equation_rewrites, "set": members_rewrites, "list": members_rewrites, "point": point_rewrites,
    "interval": interval_rewrites, "inequality": inequality_rewrites, "matrix": matrix_rewrites, "word": word_rewrites,
    "choice": choice_rewrites, "expression": expression_rewrites,
}  # fmt: skip
_MISSES: dict[str, Callable[[str], Texts]] = {
    "integer": wrong_integers, "decimal": wrong_decimals, "fraction": wrong_fractions, "percent": wrong_percents,
    "money": wrong_money, "quantity": wrong_quantities, "time": wrong_times, "base": wrong_bases,
    "expression": wrong_expressions, "equation": wrong_equations, "set": wrong_members, "list": wrong_members,
    "point": wrong_points, "interval": wrong_intervals, "inequality": wrong_inequalities, "matrix": wrong_matrices,
    "word": wrong_words, "choice": wrong_choices,
}  # fmt: skip


def rewrites(gold: str, count: int | None = None, seed: int = 0) -> list[Writing]:
    """Other ways in which people and models write a gold; a reward must pay each.

    Args:
        count: how many: `gold` as it stands first, others drawn by `seed`. A quarter of them, and more where single
            rules give too few, are made by two rules in a row. None for all that single rules give.

    Returns:
        Writings without copies; fewer than `count` where a gold has no more, none for a blank one.
    """
    gold = bare(gold)
    if not gold:
        return []
    shape = shape_of(gold)
    first = Writing("as it stands", gold)
    of_shape = [Writing(rule, text) for rule, text in _of_shape(gold, shape)]
    looked = [Writing(rule, text) for rule, text in looks(gold)]
    found = _once([first, *of_shape, *looked, *placed("as it stands", gold, shape)])
    return found if count is None else _drawn(found, [first, *of_shape], count, _dice(seed, gold), 1)


def near_misses(gold: str, count: int | None = None, seed: int = 0) -> list[Writing]:
    """Wrong answers that look like a gold; a reward must pay none.

    Each is made so that it cannot be right. A gold of no known shape has none.

    Args:
        count: how many, drawn by `seed`. A quarter of them, and more where single rules give too few, are changed in
            their looks or put in another place. None for all that single rules give.
    """
    gold = bare(gold)
    make = _MISSES.get(shape_of(gold)) if gold else None
    if make is None:
        return []
    found = _once([Writing(rule, text) for rule, text in make(gold) if text.strip() not in ("", gold)])
    return found if count is None else _drawn(found, found, count, _dice(seed, gold), 0)


def _dice(seed: int, gold: str) -> random.Random:
    return random.Random(f"{seed} {gold!r}")


def _of_shape(gold: str, shape: str) -> Iterable[tuple[str, str]]:
    if shape in _NUMBERS:
        return number_rewrites(gold, shape)
    return _REWRITES[shape](gold) if shape in _REWRITES else ()


def _once(writings: Iterable[Writing]) -> list[Writing]:
    return list({(writing.text, writing.place): writing for writing in reversed(list(writings))}.values())[::-1]


def _drawn(
    found: list[Writing], starts: list[Writing], count: int, draw: random.Random, num_first: int
) -> list[Writing]:
    """`count` writings: the first ones, others by chance, and at least a quarter made by two rules in a row."""
    num_single = min(len(found), count - count // 4)
    chosen = [*found[:num_first], *draw.sample(found[num_first:], num_single - num_first)]
    known = {(writing.text, writing.place) for writing in found}
    # One more of each start, in turns, until there are enough.
    left = {start: None for start in draw.sample(starts, len(starts))}
    while len(chosen) < count and left:
        for start in list(left):
            if len(chosen) == count:
                break
            if left[start] is None:
                left[start] = [w for w in _followed(start) if (w.text, w.place) not in known]
                draw.shuffle(left[start])
            while left[start] and (left[start][-1].text, left[start][-1].place) in known:
                left[start].pop()
            if not left[start]:
                del left[start]
            else:
                writing = left[start].pop()
                known.add((writing.text, writing.place))
                chosen.append(writing)
    unused = [writing for writing in found if writing not in chosen]
    return [*chosen, *unused[: count - len(chosen)]]


def _followed(start: Writing) -> list[Writing]:
    """A writing with a rule for the looks behind it, and in other places."""
    shape = shape_of(start.text) if start.text.strip() else "other"
    after = [Writing(f"{start.rule}, then {rule}", text) for rule, text in looks(start.text)]
    return [*after, *placed(start.rule, start.text, shape)]
