"""Seeds are added until every variant is decided, by looks that were fixed before the first one.

Whoever looks after every few seeds and stops when it fits finds a difference where there is none in up to a fifth of
the comparisons. Here all looks share one level: each look's level comes from alpha spending (spending.py). Of several
variants those that are not decided yet are tested by Holm's method at each look, with the level that is left; what one
claim does not need goes to the others, at this look and at later ones (Maurer and Bretz 2013,
doi:10.1080/19466315.2013.807748). A decided variant is trained no further. Intervals are repeated confidence intervals
(Jennison and Turnbull 1989): they hold at all looks together.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.study.equivalence import FEWEST_SEEDS
from rl_posttrain.study.estimates import ALPHA
from rl_posttrain.study.spending import nominal_levels

MAX_SEEDS = 20
_FIRST_LOOK, _MOST_LOOKS = 4, 6
_SPENDING = "pocock"  # ends early: seeds are whole trainings, and docs/results/verdict_calibration.md has what it costs


@dataclass(frozen=True)
class SequentialPlan:
    """What is fixed before the first look.

    Attributes:
        seeds: in the order in which they are used.
        looks: number of seeds at each look.
        margin: differences smaller than this do not matter.
        taken: seeds that are not used, because a run of theirs was finished before the plan was made, so that somebody
            may have judged it.
        seen: such seeds that are used all the same, because the user listed them.
    """

    variants: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    measure: str
    margin: float
    taken: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    alpha: float = ALPHA
    spending: str = _SPENDING

    def level(self, look: int, number: int, sides: int) -> float:
        """The level of a look's tests, where `number` variants share what is left."""
        return nominal_levels(self.looks, self.alpha / number, sides, self.spending)[look]

    def words(self) -> str:
        """The plan in a sentence or two."""
        looks = ", ".join(map(str, self.looks[:-1])) + f" and {self.looks[-1]}" if self.looks[1:] else self.looks[0]
        levels = ", ".join(f"{self.level(look, 1, 2):.2g}" for look in range(len(self.looks)))
        return (
            f"Seeds are added until every variant is decided, with looks at {looks} seeds that were fixed before the "
            f"first one. All looks together keep the level of {self.alpha:g} (alpha spending of {self.spending} type "
            f"by Lan and DeMets; two-sided levels of the looks, for one variant: {levels}; Holm's method for several). "
            "A decided variant gets no further seeds. Intervals are repeated confidence intervals."
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


def plan_looks(max_seeds: int) -> tuple[int, ...]:
    """Numbers of seeds at which is looked: up to six, from four seeds on, each larger by about the same factor."""
    first = min(_FIRST_LOOK, max_seeds)
    ratio = (max_seeds / first) ** (1 / (_MOST_LOOKS - 1))
    return tuple(sorted({round(first * ratio**place) for place in range(_MOST_LOOKS)}))


def sequence_of_seeds(first: Sequence[int], max_seeds: int, excluded: Collection[int]) -> tuple[int, ...]:
    """`max_seeds` seeds: those in `first`, then the next larger ones that are not excluded.

    Raises:
        RecipeError: there are fewer than three, or `first` has more.
    """
    if max_seeds < FEWEST_SEEDS:
        raise RecipeError(f"--max-seeds={max_seeds}: a verdict needs {FEWEST_SEEDS} seeds or more; set more")
    if len(first) > max_seeds:
        raise RecipeError(f"--seeds={','.join(map(str, first))}: more than --max-seeds {max_seeds}; list fewer")
    others = (seed for seed in itertools.count(max(first, default=-1) + 1) if seed not in excluded)
    return (*first, *itertools.islice(others, max_seeds - len(first)))
