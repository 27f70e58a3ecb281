"""Fair tuning: every variant gets the same number of trials over the same kind of grid, on seeds of its own.

The best trial of each variant, by the measure of the comparison, is then judged on other seeds: the best of several is
partly the luckiest, and luck does not come twice. A best value at the edge of its grid says that the grid was too
small, so the grid is widened by its own ratio, for every variant alike.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.runs.files import read_json_object
from rl_posttrain.study.plan import check_varied, read_seeds, read_values
from rl_posttrain.study.variants import value_text

TUNING_FILE, TUNING_FOLDER = "tuning.json", "tuning"
# A grid of three values, each three times the one before, then reaches a hundred times as far as it was written, with
# five values in place of three.
WIDENINGS = 2
_FACTOR = re.compile(r"x(?P<factor>[\d.]+(e[-+]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class TunedKey:
    """A recipe key and the values that are tried.

    Attributes:
        values: as they were written; numbers in rising order.
        factors: whether they are factors of each variant's own value.
    """

    key: str
    values: tuple[Any, ...]
    factors: bool

    @property
    def numeric(self) -> bool:
        """Whether the values have an order, so that the grid has edges."""
        return all(map(is_number, self.values))

    def written(self) -> str:
        mark = "x" if self.factors else ""
        return f"{self.key}={','.join(f'{mark}{value_text(value)}' for value in self.values)}"


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and how.

    Attributes:
        widenings: how often the grid may be widened.
    """

    keys: tuple[TunedKey, ...]
    seeds: tuple[int, ...]
    widenings: int


@dataclass(frozen=True)
class Trial:
    """One point of a variant's grid.

    Attributes:
        variant: its name in run directories, such as ``adams-lr=1e-5``.
        values: by tuned key.
        scores: by seed what its run counts as, by the measure; None where a failed run counts as nothing.
        failed: seeds of its runs that failed.
    """

    variant: str
    values: dict[str, Any]
    scores: dict[int, float | None] = field(default_factory=dict)
    failed: tuple[int, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean over the tuning seeds; None where a run counts as nothing, so that the trial cannot be chosen."""
        known = [score for score in self.scores.values() if score is not None]
        return sum(known) / len(known) if known and len(known) == len(self.scores) else None


@dataclass(frozen=True)
class TunedVariant:
    """A variant, its trials and the best of them.

    Attributes:
        name: without the tuned keys; ``--baseline`` takes it.
        chosen: the name of the best trial. Its runs on the judging seeds have the same name.
        edges: of each tuned key whose best value is at the edge of its grid, "lowest" or "highest".
    """

    name: str
    trials: tuple[Trial, ...]
    chosen: str
    edges: dict[str, str]

    @property
    def best(self) -> Trial:
        return next(trial for trial in self.trials if trial.variant == self.chosen)


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Attributes:
        widened: how often the grid was widened.
    """

    tuning: Tuning
    measure: str
    widened: int
    variants: tuple[TunedVariant, ...]

    def notices(self) -> list[str]:
        """What a reader must know: what stayed at the edge of its grid, and budgets that are not equal."""
        found = []
        for variant in self.variants:
            for key, edge in variant.edges.items():
                found.append(
                    f"{variant.name}: its best {key}={value_text(variant.best.values[key])} is at the edge of its grid "
                    f"(the {edge} of {listed(trial.values[key] for trial in variant.trials)}), so another may be "
                    "better; give a wider grid, or a larger --tune-widen"
                )
            if variant.best.failed:
                found.append(
                    f"{variant.name}: {len(variant.best.failed)} of {len(variant.best.scores)} tuning runs of its best "
                    "trial failed"
                )
        numbers = {variant.name: len(variant.trials) for variant in self.variants}
        if len(set(numbers.values())) > 1:
            counts = ", ".join(f"{name} {number}" for name, number in numbers.items())
            found.append(f"numbers of trials differ, because a recipe takes no further value: {counts}")
        return found

    def words(self) -> str:
        """How the rates were chosen, in a sentence."""
        keys = " and ".join(key.key for key in self.tuning.keys)
        number = max(len(variant.trials) for variant in self.variants)
        widened = f", after {self.widened} widenings" if self.widened > 1 else ", after a widening" * self.widened
        return (
            f"{keys}: the best of {number} trials of each variant{widened}, by mean {self.measure} over tuning seeds "
            f"{listed(self.tuning.seeds)}; the verdict is of other seeds"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for ``--json`` and the file."""
        return {
            "measure": self.measure,
            "keys": [asdict(key) for key in self.tuning.keys],
            "seeds": list(self.tuning.seeds),
            "widenings_allowed": self.tuning.widenings,
            "widenings": self.widened,
            "words": self.words(),
            "notices": self.notices(),
            "variants": [
                {
                    "name": variant.name,
                    "chosen": variant.chosen,
                    "values": variant.best.values,
                    "edges": variant.edges,
                    "trials": [
                        {
                            "variant": trial.variant,
                            "values": trial.values,
                            "scores": [{"seed": seed, "score": score} for seed, score in trial.scores.items()],
                            "mean": trial.mean,
                            "failed": list(trial.failed),
                        }
                        for trial in variant.trials
                    ],
                }
                for variant in self.variants
            ],
        }


def read_tuning(
    texts: Sequence[str], seeds: str | None, judging_seeds: Sequence[int], widenings: int = WIDENINGS
) -> Tuning:
    """What is tuned, from the command line.

    Args:
        texts: ``key=a,b,c`` each, or ``key=x0.3,x1,x3`` for factors of each variant's own value.
        seeds: tuning seeds with commas; None: as many as two, after 100 and after all judging seeds.
        judging_seeds: those that the verdict is of.

    Raises:
        RecipeError: it is not written so, a key cannot be tuned, a grid has one value, or a seed is used for both.
    """
    keys = []
    for text in texts:
        key, values = read_values(text, "--tune")
        check_varied(key, "--tune")
        factors = [_FACTOR.fullmatch(value) if isinstance(value, str) else None for value in values]
        if all(factors):
            values = [float(match["factor"]) for match in factors]
        elif any(factors):
            raise RecipeError(f"--tune={text}: it has values and factors; write either all as x0.3 or none")
        if len(set(map(repr, values))) < max(2, len(values)):
            raise RecipeError(f"--tune={text}: a grid has two or more different values; write key=a,b,c")
        if any(key == other.key for other in keys):
            raise RecipeError(f"--tune={text}: {key} is tuned twice; write all of its values behind one --tune")
        if all(map(is_number, values)):
            values = sorted(values)
        keys.append(TunedKey(key, tuple(values), all(factors)))
    first = max([99, *judging_seeds]) + 1
    numbers = [first, first + 1] if seeds is None else read_seeds(seeds, "--tune-seeds")
    if both := [seed for seed in numbers if seed in judging_seeds]:
        raise RecipeError(
            f"--tune-seeds={seeds}: {listed(both)} would choose and judge; choose on other seeds than --seeds"
        )
    return Tuning(tuple(keys), tuple(numbers), widenings)


def read_tuned(folder: Path) -> Tuned | None:
    """The tuning that a comparison wrote into `folder`; None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    found = read_json_object(folder / TUNING_FILE)
    if found is None:
        return None
    try:
        return _tuned(found)
    except (KeyError, TypeError, AttributeError):
        raise RunError(
            f"{folder / TUNING_FILE}: not what compare --tune writes; the file is damaged, delete it"
        ) from None


def _tuned(found: Mapping[str, Any]) -> Tuned:
    keys = tuple(TunedKey(key["key"], tuple(key["values"]), key["factors"]) for key in found["keys"])
    variants = tuple(
        TunedVariant(
            variant["name"],
            tuple(
                Trial(
                    trial["variant"],
                    trial["values"],
                    {score["seed"]: score["score"] for score in trial["scores"]},
                    tuple(trial["failed"]),
                )
                for trial in variant["trials"]
            ),
            variant["chosen"],
            variant["edges"],
        )
        for variant in found["variants"]
    )
    tuning = Tuning(keys, tuple(found["seeds"]), found["widenings_allowed"])
    return Tuned(tuning, found["measure"], found["widenings"], variants)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def listed(values: Iterable[Any]) -> str:
    """Different values with commas."""
    return ", ".join(value_text(value) for value in dict.fromkeys(values))
