"""Whose turn it is, where several sources give the rows of one task by weights."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rl_posttrain.errors import RecipeError


def turns(weights: Sequence[float]) -> Iterator[int]:
    """Places in `weights`, without end: after any number of them, each place came up in the ratio of its weight.

    By Webster's rule: next is whose (n + 1/2) / weight is the smallest, with n the times that it came up.
    """
    times = [0] * len(weights)
    while True:
        place = min(range(len(weights)), key=lambda place: (times[place] + 0.5) / weights[place])
        times[place] += 1
        yield place


def counts(weights: Sequence[float], total: int) -> list[int]:
    """How often each place comes up in the first `total` turns."""
    taken = list(islice(turns(weights), total))
    return [taken.count(place) for place in range(len(weights))]


def in_turn(sources: Sequence[Sequence[Any]], weights: Sequence[float]) -> list[Any]:
    """The items of all sources, in turn by weight; `sources` are as long as `counts` says."""
    rest = [iter(source) for source in sources]
    return [next(rest[place]) for place in islice(turns(weights), sum(map(len, sources)))]


def check_weight(key: str, weight: Any) -> float:
    """`weight` as a number.

    Raises:
        RecipeError: it is no number above 0.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
        raise RecipeError(f"{key}.weight={weight}: must be above 0; set a number such as 1")
    return float(weight)
