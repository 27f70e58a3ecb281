"""The search for each variant's best trial: which runs to make next, and which trial is chosen."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.files import to_json, write_atomically
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.plan import PlannedRun, check_variant, plan_seeds, plan_variants, variant_recipe
from rl_posttrain.study.tuning import (
    TUNING_FILE,
    TUNING_FOLDER,
    Trial,
    Tuned,
    TunedKey,
    TunedVariant,
    Tuning,
    is_number,
    read_tuned,
)
from rl_posttrain.study.variants import not_yet_taken, variant_keys, variant_name

_DIGITS = 3  # of a value that is computed: it is part of the names of folders


class Search:
    """The trials of a comparison: which to run next, and which is the best of each variant.

    Run `runs` until they are finished or have failed, give `look` their judgement, and do so again while `is_open`.

    Args:
        recipe: what all runs share.
        pairs: optimizer and setting of each variant, as in `plan_variants`.
        folder: of the comparison. The trials' run directories go into ``tuning/`` there, the choice into
            ``tuning.json``.

    Raises:
        RecipeError: a value that a recipe cannot have, or two trials that are the same.
        RunError: the folder has the tuning of another grid.
    """

    def __init__(
        self,
        tuning: Tuning,
        recipe: Recipe,
        pairs: Sequence[tuple[str, Mapping[str, Any]]],
        folder: Path,
        *,
        measure: str,
        num_processes: int = 1,
    ):
        self._tuning, self._recipe, self._pairs, self._folder = tuning, recipe, list(pairs), folder
        self._measure, self._num_processes = measure, num_processes
        self._check_file()
        names: list[str] = []
        tuned = {key.key for key in tuning.keys}
        for optimizer, setting in self._pairs:
            variant, named = variant_recipe(recipe, optimizer, setting)
            keys = variant_keys(variant.model_dump(mode="json"))
            names.append(not_yet_taken(variant_name(keys, [key for key in named if key not in tuned]), names))
        self.names = names
        self._grids = [
            {key.key: self._start(key, optimizer, setting) for key in tuning.keys} for optimizer, setting in self._pairs
        ]
        self._widened = 0
        self.is_open = True
        self.result: Tuned | None = None
        self._plan()

    @property
    def folder(self) -> Path:
        """Where the trials' run directories are."""
        return self._folder / TUNING_FOLDER

    def runs(self) -> list[PlannedRun]:
        """All runs of the present grids, all trials at one seed before the next; finished ones are among them."""
        return plan_seeds(self._variants, self._tuning.seeds, self.folder)

    def title(self) -> str:
        """What the present runs are for."""
        widened = f", widened {self._widened} of at most {self._tuning.widenings} times" if self._widened else ""
        return f"tuning {' and '.join(key.key for key in self._tuning.keys)}{widened}"

    def found(self) -> list[str]:
        """What the latest look found, in a line for each variant."""
        lines = []
        for variant in self.result.variants if self.result else ():
            edge = ", at the edge of its grid" if variant.edges else ""
            score = f"mean {self._measure} {variant.best.mean:.3f} of {len(variant.trials)} trials{edge}"
            lines.append(f"{variant.name}: best {variant.chosen}, {score}")
        return lines

    def chosen(self) -> dict[str, Recipe]:
        """The recipe of each variant's best trial, by its name."""
        return {variant.chosen: self._variants[variant.chosen] for variant in self.result.variants}

    def chosen_of(self, name: str) -> str:
        """The name of the best trial of the variant `name`."""
        return next(variant.chosen for variant in self.result.variants if variant.name == name)

    def look(self, judgement: Judgement | None) -> None:
        """Take what the runs count as: choose, and widen the grids where a best value is at an edge.

        Args:
            judgement: of `runs`; None where none made a step.

        Raises:
            RunError: every run of a variant failed, or counts as nothing.
        """
        if judgement is None:
            raise RunError("--tune: no tuning run made a step; logs/ in the folder of the runs says why")
        names = iter(self._variants)
        found, edges = [], []
        for place, name in enumerate(self.names):
            trials = tuple(self._trial(next(names), point, judgement) for point in _points(self._grids[place]))
            if all(len(trial.failed) == len(trial.scores) for trial in trials):
                raise RunError(
                    f"--tune: every tuning run of {name} failed, so there is nothing to choose from; give another grid"
                )
            best = max(trials, key=lambda trial: _rank(trial, self._grids[place]))
            if best.mean is None:
                raise RunError(
                    f"--failed: a run of every trial of {name} failed and counts as nothing, so none can be chosen; "
                    "set --failed worst with --range, or --failed to a reward"
                )
            edges.append(self._edges(place, best))
            found.append(TunedVariant(name, trials, best.variant, edges[-1]))
        self.result = Tuned(self._tuning, self._measure, self._widened, tuple(found))
        write_atomically(self._folder / TUNING_FILE, to_json(self.result.as_dict(), indent=2) + "\n")
        wanted = [key for key in self._tuning.keys if any(key.key in edge for edge in edges)]
        self.is_open = bool(wanted) and self._widened < self._tuning.widenings
        if self.is_open:
            self._widened += 1
            for place, variant in enumerate(found):
                for key in wanted:
                    self._widen(place, key.key, variant)
            self._plan()

    def _plan(self) -> None:
        """Name the trials of all variants, variant by variant, in the order of their grids."""
        trials = [
            (optimizer, dict(setting) | point)
            for (optimizer, setting), grid in zip(self._pairs, self._grids, strict=True)
            for point in _points(grid)
        ]
        self._variants = plan_variants(self._recipe, trials, self._num_processes)

    def _start(self, key: TunedKey, optimizer: str, setting: Mapping[str, Any]) -> list[Any]:
        if not key.factors:
            return list(key.values)
        recipe, _ = variant_recipe(self._recipe, optimizer, setting)
        own = variant_keys(recipe.model_dump(mode="json")).get(key.key)
        if not is_number(own) or not own:
            raise RecipeError(
                f"--tune={key.written()}: {optimizer} has no {key.key} that could be multiplied; write its values"
            )
        return sorted(_rounded(own * factor, whole=isinstance(own, int)) for factor in key.values)

    def _trial(self, name: str, point: dict[str, Any], judgement: Judgement) -> Trial:
        runs = judgement.collection.planned.get(name, [])
        scores = {run.seed: judgement.counted[run.name] for run in runs}
        return Trial(name, point, scores, tuple(run.seed for run in runs if run.outcome.failed))

    def _edges(self, place: int, best: Trial) -> dict[str, str]:
        """The keys whose best value is the lowest or highest of the grid, where the recipe would take a further one."""
        found = {}
        for key in self._tuning.keys:
            values = self._grids[place][key.key]
            where = values.index(best.values[key.key])
            if key.numeric and where in (0, len(values) - 1):
                low = where == 0
                if self._next(place, key.key, low=low, point=best.values) is not None:
                    found[key.key] = "lowest" if low else "highest"
        return found

    def _widen(self, place: int, key: str, variant: TunedVariant) -> None:
        """Add a value: at the edge where the best is, else at the nearer end, so that all variants get as many trials.

        Of two ends as near, the one next to which the better trial is.
        """
        values, best = self._grids[place][key], variant.best
        where = values.index(best.values[key])
        means = {
            trial.values[key]: trial.mean
            for trial in variant.trials
            if all(trial.values[other] == value for other, value in best.values.items() if other != key)
        }

        def mean_at(index: int) -> float:
            mean = means[values[index]]
            return -math.inf if mean is None else mean

        below, above = where, len(values) - 1 - where
        low_first = below < above or (below == above and mean_at(where - 1) > mean_at(where + 1))
        for low in (low_first, not low_first):
            if (value := self._next(place, key, low=low, point=best.values)) is not None:
                values.insert(0 if low else len(values), value)
                return

    def _next(self, place: int, key: str, *, low: bool, point: Mapping[str, Any]) -> Any | None:
        """The grid's next value at an end, by its own ratio; None where the recipe refuses it."""
        values = self._grids[place][key]
        end, inner = values[:2] if low else values[:-3:-1]
        whole = all(isinstance(value, int) for value in values)
        value = _rounded(end * end / inner if end > 0 < inner else 2 * end - inner, whole=whole)
        if value >= end if low else value <= end:  # a whole number that rounding keeps where it is
            return None
        optimizer, setting = self._pairs[place]
        try:
            variant, _ = variant_recipe(self._recipe, optimizer, dict(setting) | dict(point) | {key: value})
            check_variant(variant, self._num_processes)
        except RecipeError:
            return None
        return value

    def _check_file(self) -> None:
        """Refuse a folder whose trials were chosen from by other rules; a larger grid or more seeds may be added."""
        if (before := read_tuned(self._folder)) is None:
            return
        old, new = ({key.key: key for key in tuning.keys} for tuning in (before.tuning, self._tuning))
        grown = old.keys() == new.keys() and all(
            key.factors == new[name].factors and {*map(repr, key.values)} <= {*map(repr, new[name].values)}
            for name, key in old.items()
        )
        if not grown or not {*before.tuning.seeds} <= {*self._tuning.seeds} or before.measure != self._measure:
            raise RunError(
                f"--tune: {self._folder / TUNING_FILE} was made with "
                f"{' '.join(f'--tune {key.written()}' for key in before.tuning.keys)} --tune-seeds "
                f"{','.join(map(str, before.tuning.seeds))} --measure {before.measure}; give these or more values and "
                "seeds, or set another --out"
            )


def _points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _rank(trial: Trial, grid: Mapping[str, Sequence[Any]]) -> tuple[float, float]:
    """By the mean; of equal ones the one that is nearest to the middle of the grid."""
    off = sum(abs(grid[key].index(value) - (len(grid[key]) - 1) / 2) for key, value in trial.values.items())
    return (-math.inf if trial.mean is None else trial.mean), -off


def _rounded(value: float, *, whole: bool) -> float:
    return round(value) if whole else float(f"{value:.{_DIGITS}g}")
