"""The looks of a sequential comparison: what each found, what is decided, and the file that remembers it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import read_json_object, to_json, write_atomically
from rl_posttrain.study.equivalence import Comparison
from rl_posttrain.study.estimates import Estimate
from rl_posttrain.study.sequential import SequentialPlan, plan_looks, sequence_of_seeds

SEQUENTIAL_FILE = "sequential.json"


@dataclass(frozen=True)
class Look:
    """What a look found of a variant.

    Attributes:
        comparison: with the p values as they are, the repeated confidence interval, and the verdict so far.
        level_different, level_equivalent: what the p values had to be below.
    """

    number: int
    num_seeds: int
    comparison: Comparison
    level_different: float | None = None
    level_equivalent: float | None = None


class Monitor:
    """Judges the variants of a plan at each look, and remembers what is decided."""

    def __init__(self, plan: SequentialPlan):
        self.plan = plan
        self.looks: list[list[Look]] = []
        self.decided: dict[str, Comparison] = {}
        self._claims: dict[int, set[str]] = {1: set(), 2: set()}  # by sides of the test

    @property
    def undecided(self) -> list[str]:
        """The variants but the baseline that are not decided yet."""
        others = (variant for variant in self.plan.variants if variant != self.plan.baseline)
        return [variant for variant in others if variant not in self.decided]

    @property
    def is_open(self) -> bool:
        return bool(self.undecided) and len(self.looks) < len(self.plan.looks)

    @property
    def num_seeds(self) -> int:
        """Seeds of the next look."""
        return self.plan.looks[len(self.looks)]

    def seeds_of(self, variant: str) -> int:
        """How many seeds a variant has at its latest look; the baseline has those of the latest of all."""
        numbers = [
            look.num_seeds
            for looks in self.looks
            for look in looks
            if variant in (look.comparison.variant, self.plan.baseline)
        ]
        return max(numbers, default=0)

    def comparisons(self) -> list[Comparison]:
        """The verdict on each variant, at the look that decided it or else at the last one."""
        latest = {look.comparison.variant: look.comparison for looks in self.looks for look in looks}
        return [latest[variant] for variant in self.plan.variants if variant in latest]

    def look(self, differences: Mapping[str, Estimate | Comparison]) -> None:
        """Test every variant that is not decided, at the seeds of the next look.

        Args:
            differences: by variant, from the baseline; a comparison where there can be no verdict.
        """
        place = len(self.looks)
        estimates = {
            variant: found for variant in self.undecided if isinstance(found := differences[variant], Estimate)
        }
        p_different = {variant: found.p_different for variant, found in estimates.items()}
        p_equivalent = {variant: found.p_equivalent(self.plan.margin) for variant, found in estimates.items()}
        levels = {sides: self._levels(place, p, sides) for sides, p in ((2, p_different), (1, p_equivalent))}
        found_here = []
        for variant in self.undecided:
            if variant not in estimates:
                found_here.append(Look(place + 1, self.plan.looks[place], differences[variant]))
                continue
            comparison = self._comparison(variant, estimates[variant], place, levels)
            found_here.append(
                Look(place + 1, self.plan.looks[place], comparison, levels[2][variant], levels[1][variant])
            )
        self.remember(found_here)

    def remember(self, looks: list[Look]) -> None:
        """Take what a look found."""
        self.looks.append(looks)
        for look in looks:
            comparison = look.comparison
            if look.level_different is not None and comparison.p_different < look.level_different:
                self._claims[2].add(comparison.variant)
            if look.level_equivalent is not None and comparison.p_equivalent < look.level_equivalent:
                self._claims[1].add(comparison.variant)
            if look.comparison.word not in ("undecided", "none"):
                self.decided[look.comparison.variant] = look.comparison

    def as_dict(self) -> dict[str, Any]:
        """The plan and what was found, as plain data."""
        return self.plan.as_dict() | {
            "words": self.plan.words(),
            "found": [[dataclasses.asdict(look) for look in looks] for looks in self.looks],
        }

    def _levels(self, place: int, p_values: Mapping[str, float], sides: int) -> dict[str, float]:
        """The level that each variant's p value must be below, by Holm's method at the levels of this look."""
        levels, left = {}, len(self.plan.variants) - 1 - len(self._claims[sides])
        for variant in sorted(p_values, key=lambda name: p_values[name]):
            levels[variant] = self.plan.level(place, left, sides)
            # Above the first p value that is not below its level there is no claim, so the level stays.
            left -= p_values[variant] < levels[variant]
        return levels

    def _comparison(
        self, variant: str, found: Estimate, place: int, levels: Mapping[int, Mapping[str, float]]
    ) -> Comparison:
        plan = self.plan
        p_different, p_equivalent = found.p_different, found.p_equivalent(plan.margin)
        side = "better" if found.difference > 0 else "worse"
        different = p_different < levels[2][variant]
        word = "equivalent" if p_equivalent < levels[1][variant] else side if different else "undecided"
        low, high = found.interval(plan.level(place, 1, 2))
        shown = (
            f"{found.shown:+.3g} (repeated {100 * (1 - plan.alpha):.4g} % CI {low:+.3g} to {high:+.3g}, "
            f"{found.num_pairs} {found.unit if found.paired else 'runs, unpaired'}, look {place + 1} of "
            f"{len(plan.looks)}"
        )
        if word == "equivalent":
            little = f", and a little {side}" if different else ""
            sentence = (
                f"{variant} is equivalent to {plan.baseline} within {plan.margin:.3g}{little}: {shown}, "
                f"p = {p_equivalent:.2g} below the look's {levels[1][variant]:.2g})"
            )
        elif word == "undecided":
            sentence = f"{variant} against {plan.baseline} is undecided: {shown})"
            sentence += f" after all {plan.looks[-1]} seeds of the plan" if place + 1 == len(plan.looks) else ""
        else:
            sentence = (
                f"{variant} is {word} than {plan.baseline}: {shown}, p = {p_different:.2g} below the look's "
                f"{levels[2][variant]:.2g})"
            )
        return Comparison(
            variant, plan.baseline, word, found.num_pairs, found.paired, found.shown, low, high, p_different,
            p_equivalent, None, sentence, found.singles,
        )  # fmt: skip


def make_plan(
    variants: Sequence[str],
    baseline: str,
    folder: Path,
    *,
    first: Sequence[int],
    max_seeds: int,
    measure: str,
    margin: float,
    excluded: Sequence[int] = (),
) -> SequentialPlan:
    """The plan of a comparison in `folder`: what is there already says which seeds are not fresh any more.

    Args:
        first: seeds as the user listed them; the next larger fresh ones follow.
        excluded: further seeds that are not used.

    Raises:
        RecipeError: there are fewer than three seeds, or the user lists more than `max_seeds`.
        RunError: the folder's plan is damaged.
    """
    before = read_monitor(folder)
    finished = _finished_seeds(folder) if before is None else {*before.plan.taken, *before.plan.seen}
    seeds = sequence_of_seeds(first, max_seeds, {*finished, *excluded})
    seen = tuple(seed for seed in seeds if seed in finished)
    taken = tuple(sorted(finished - {*seen}))
    return SequentialPlan(
        tuple(variants), baseline, seeds, plan_looks(max_seeds), measure, margin, taken=taken, seen=seen
    )


def open_monitor(plan: SequentialPlan, folder: Path) -> Monitor:
    """Write the plan into `folder` before the first look, or go on with what its looks have found.

    Raises:
        RunError: the folder has another plan.
    """
    if (before := read_monitor(folder)) is None:
        monitor = Monitor(plan)
        write_monitor(monitor, folder)
        return monitor
    for field in dataclasses.fields(SequentialPlan):
        old, new = (getattr(one, field.name) for one in (before.plan, plan))
        if not (math.isclose(old, new) if isinstance(old, float) else old == new):
            raise RunError(
                f"--until-decided: {folder / SEQUENTIAL_FILE} has another plan ({field.name} {_shown(old)}, now "
                f"{_shown(new)}), and a plan cannot change after it began; give the same, or set another --out"
            )
    return before


def write_monitor(monitor: Monitor, folder: Path) -> None:
    """Write the plan and what the looks found so far into `folder`."""
    write_atomically(folder / SEQUENTIAL_FILE, to_json(monitor.as_dict(), indent=2) + "\n")


def read_monitor(folder: Path) -> Monitor | None:
    """The plan in `folder` with what its looks found; None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    found = read_json_object(folder / SEQUENTIAL_FILE)
    if found is None:
        return None
    try:
        values = {field.name: found[field.name] for field in dataclasses.fields(SequentialPlan)}
        monitor = Monitor(SequentialPlan(**{name: _tuple(value) for name, value in values.items()}))
        for looks in found["found"]:
            monitor.remember([Look(**look | {"comparison": _comparison(look["comparison"])}) for look in looks])
    except (KeyError, TypeError, AttributeError):
        raise RunError(
            f"{folder / SEQUENTIAL_FILE}: not what compare --until-decided writes; the file is damaged, restore it"
        ) from None
    return monitor


def _comparison(values: Mapping[str, Any]) -> Comparison:
    return Comparison(**{name: _tuple(value) for name, value in values.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _finished_seeds(folder: Path) -> set[int]:
    """Seeds of the runs of a comparison that are finished."""
    runs = (RunDirectory(path) for path in folder.glob("*-seed*") if RunDirectory.is_at(path))
    seeds = (run.name.rpartition("-seed")[2] for run in runs if run.summary() is not None)
    return {int(seed) for seed in seeds if seed.isdigit()}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
