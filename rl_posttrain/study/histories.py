"""Runs read back to be judged: metrics in columns, how each run ended, and runs grouped into variants.

Run directories and runs of other programs (foreign/) are read into the same shape. A run that was planned and has
nothing to draw is absent, and counts as failed. What is no run is left out, with the reason; runs that must not be
compared are refused.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import NON_FINITE, Columns, keys_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.absent import Absent, never_began, not_named, planned_in
from rl_posttrain.study.foreign.reading import read_foreign_runs
from rl_posttrain.study.foreign.run import ForeignRun
from rl_posttrain.study.outcomes import Outcome, listed, outcome_of_other, outcome_of_ours
from rl_posttrain.study.sources import sources_in
from rl_posttrain.study.tasks import refuse_different_tasks, shown_value, tasks_of
from rl_posttrain.study.variants import not_yet_taken, variant_keys, variants_of_runs

_UNKNOWN = Outcome("")


@dataclass(frozen=True)
class History:
    """One run.

    Attributes:
        name: its folder's or file's name; the whole path where two runs have the same name.
        variant: the name that it shares with its other seeds, see variants.py.
        seed: None where it is not known.
        columns: metric name to (S,) float64 values of the S finished steps, NaN where a step has none; ``step`` is
            always there, and ``non_finite`` is 1 on the steps that recorded a number that was not finite.
        recipe: sections and keys as resolved; empty for a run of another program.
        outcome: how it ended: finished, failed or still running.
        num_planned: steps that it was to make: of a run of ours by its recipe; of another program's by its own file, by
            the user, or else the longest of the runs that are compared.
        plan_is_guessed: whether `num_planned` is that of the longest.
        task: its task's name, where runs of several tasks are read; else empty.
        prompts: of each step the hash of its prompts; empty where some step has none.
    """

    name: str
    path: Path
    variant: str
    seed: int | None
    columns: dict[str, np.ndarray]
    recipe: dict[str, Any]
    environment: dict[str, Any]
    outcome: Outcome
    num_planned: int | None
    source: RunDirectory | ForeignRun = field(repr=False)
    prompts: tuple[str, ...] = field(default=(), repr=False)
    plan_is_guessed: bool = False
    task: str = ""

    @property
    def finished(self) -> bool:
        """Whether it made all of its steps, and ended in finite values."""
        return self.outcome.finished

    def points(self, key: str, axis: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """Finite values of `axis` and `key`, (P,) each, where a step recorded both; empty where none did."""
        if key not in self.columns or axis not in self.columns:
            return np.empty(0), np.empty(0)
        x, y = self.columns[axis], self.columns[key]
        kept = np.isfinite(x) & np.isfinite(y)
        return x[kept], y[kept]


@dataclass(frozen=True)
class Collection:
    """Runs that may be compared.

    Attributes:
        left_out: of each file or folder that is no run, its path and the reason.
        absent: runs that were planned, and count, and have nothing to draw.
        notices: how runs of other programs were read, in sentences.
    """

    runs: list[History]
    left_out: list[str]
    absent: list[Absent] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def variants(self) -> dict[str, list[History]]:
        """Runs by variant, in the order in which they were named."""
        groups: dict[str, list[History]] = {}
        for run in self.runs:
            groups.setdefault(run.variant, []).append(run)
        return groups

    @property
    def planned(self) -> dict[str, list[History | Absent]]:
        """By variant every run that counts in a verdict; variants without anything to draw come last."""
        groups: dict[str, list[History | Absent]] = {variant: list(runs) for variant, runs in self.variants.items()}
        for run in self.absent:
            groups.setdefault(run.variant, []).append(run)
        return groups

    @property
    def by_task(self) -> dict[str, "Collection"]:
        """The runs of each task; one part under an empty name where they all have the same."""
        everything = [*self.runs, *self.absent]
        return {
            task: Collection(
                [run for run in self.runs if run.task == task], [], [run for run in self.absent if run.task == task]
            )
            for task in dict.fromkeys(run.task for run in everything)
        }

    @property
    def is_study(self) -> bool:
        """Whether some variant was run more than once."""
        return len(self.variants) < len(self.runs)


def read_runs(
    paths: Iterable[Path | str],
    *,
    planned: Mapping[Path, Mapping[str, Any]] | None = None,
    planned_steps: int | None = None,
    pool_tasks: bool = False,
    reward_column: str | None = None,
    step_column: str | None = None,
    group: str | None = None,
    columns_of: Callable[[RunDirectory], tuple[Columns, tuple[str, ...]]] = RunDirectory.columns,
) -> Collection:
    """The runs at `paths`: run directories, folders of them, and files of other programs.

    In a folder that `compare` made, the runs that it planned are known; those that are not there are absent.

    Args:
        planned: more run directories that count, whether they are there or not, each with its recipe as plain data.
        planned_steps: steps that every run of another program was to make; later ones are left out. By default what its
            own file says, or else the steps of the longest run.
        pool_tasks: read runs of several tasks or rewards, too. A variant is then what has one name on every task.
        reward_column, step_column, group: how runs of other programs are read, see foreign/reading.py.
        columns_of: gives the columns of a run directory and the hashes of its prompts; by default its own method.

    Raises:
        RunError: a path holds no run, no run has anything to show, or they were trained on different tasks or rewards
            and these are not to be pooled.
    """
    expected = dict(planned or {})
    named: list[RunDirectory | Path] = [RunDirectory(path) for path in expected if RunDirectory.is_at(path)]
    folders: set[Path] = set()
    for path in map(Path, paths):
        expected |= planned_in(path)
        named += (sources := sources_in(path))
        folders |= {source.path.parent for source in sources if isinstance(source, RunDirectory)}
    unique = {(source if isinstance(source, Path) else source.path).resolve(): source for source in named}
    foreign = read_foreign_runs(
        [source for source in unique.values() if isinstance(source, Path)],
        reward_column=reward_column,
        step_column=step_column,
        group=group,
        folders_are_tasks=pool_tasks,
    )
    found, absent = [], []
    left_out = not_named(folders, {*unique, *(path.resolve() for path in expected)}) + foreign.left_out
    for source in unique.values():
        for run in foreign.runs.get(source, []) if isinstance(source, Path) else [source]:
            try:
                read = _read(run, planned_steps, columns_of)
            except RunError as error:
                left_out.append(str(error))
            else:
                (found if isinstance(read, History) else absent).append(read)
    absent += [never_began(path, recipe) for path, recipe in expected.items() if path.resolve() not in unique]
    if not found:
        said = [*left_out, *(f"{run.path}: {run.outcome.reason}" for run in absent)]
        raise RunError(said[0] if said else "RUN: no run was named; name run directories, or a folder of them")
    everything = [*found, *absent]
    if pool_tasks:
        tasks = tasks_of(everything)
    else:
        refuse_different_tasks(everything)
        tasks = [""] * len(everything)
    names, labels = [run.name for run in everything], _variants(everything, tasks)
    labelled = [
        replace(run, variant=label, task=task, name=run.name if names.count(run.name) == 1 else str(run.path))
        for run, label, task in zip(everything, labels, tasks, strict=True)
    ]
    runs, absent = _with_outcomes(labelled[: len(found)]), labelled[len(found) :]
    return Collection(runs, left_out, absent, [*foreign.notices, *_cut_short(runs, planned_steps)])


def recipe_differences(runs: Sequence[History]) -> dict[str, dict[str, str]]:
    """Recipe keys in which variants differ: key to variant to value, as text; "default" where a recipe has no value."""
    flat = {run.variant: variant_keys(run.recipe) for run in runs if run.recipe}
    differing = [
        key for key in keys_of(flat.values()) if len({shown_value(recipe.get(key)) for recipe in flat.values()}) > 1
    ]
    return {key: {variant: shown_value(recipe.get(key)) for variant, recipe in flat.items()} for key in differing}


def _read(
    source: RunDirectory | ForeignRun,
    planned_steps: int | None,
    columns_of: Callable[[RunDirectory], tuple[Columns, tuple[str, ...]]],
) -> History | Absent:
    """One run. The variant of ours stays empty: it cannot be named before the other runs are read.

    The outcome of another program's run is not known yet, because the longest run may say how many steps were planned.
    """
    columns, prompts = columns_of(source) if isinstance(source, RunDirectory) else source.columns()
    recipe = source.recipe()
    seed = recipe.get("run", {}).get("seed") if isinstance(source, RunDirectory) else source.seed
    if isinstance(source, RunDirectory):
        variant, task, num_planned = "", "", recipe.get("algorithm", {}).get("num_steps")
        outcome = outcome_of_ours(source, columns, num_planned)
    else:
        variant, task, outcome = source.variant, source.task, _UNKNOWN
        num_planned = planned_steps or source.planned_steps()
        if planned_steps and columns:
            made = columns["step"] <= planned_steps
            columns = {key: column[made] for key, column in columns.items()}
    if _has_no_reward(columns, source):
        if not outcome.running:
            outcome = Outcome("failed", "no step has a reward that is finite" if columns else "it made no step")
        return Absent(source.name, source.path, variant, seed, recipe, outcome, task)
    _check_columns(columns, source)
    return History(
        name=source.name,
        path=source.path,
        variant=variant,
        seed=seed,
        columns=columns,
        recipe=recipe,
        environment=source.environment(),
        outcome=outcome,
        num_planned=num_planned,
        source=source,
        prompts=prompts if len(prompts) == len(columns["step"]) else (),
        task=task,
    )


def _with_outcomes(runs: list[History]) -> list[History]:
    """The runs, of which those of other programs have their outcome now."""
    longest: dict[str, int] = {}  # of each task
    for run in runs:
        longest[run.task] = max(longest.get(run.task, 0), int(run.columns["step"][-1]))
    decided = []
    for run in runs:
        if not run.recipe:
            steps = run.num_planned or longest[run.task]
            outcome = outcome_of_other(run.columns, steps)
            run = replace(run, num_planned=steps, outcome=outcome, plan_is_guessed=run.num_planned is None)
        decided.append(run)
    return decided


def _cut_short(runs: list[History], planned_steps: int | None) -> list[str]:
    """A notice of the runs of which `planned_steps` leaves out later steps."""
    whole = {run.name: run.source.columns()[0]["step"][-1] for run in runs if planned_steps and not run.recipe}
    cut = {name: end for name, end in whole.items() if end > planned_steps}
    if not cut:
        return []
    return [
        f"--planned-steps {planned_steps}: later steps of {listed(list(cut))} are left out; "
        f"the longest has {max(cut.values()):g}"
    ]


def _has_no_reward(columns: Columns, source: RunDirectory | ForeignRun) -> bool:
    """Whether a run is one, and has no step with a finite reward.

    Of another program's run a reward must be known to have been recorded: else it is a file of something else.
    """
    if isinstance(source, RunDirectory) and not len(columns.get(NON_FINITE, ())):
        return True
    return bool(columns) and "reward" not in columns and "step" in columns and bool(columns[NON_FINITE].any())


def _check_columns(columns: Columns, source: RunDirectory | ForeignRun) -> None:
    if not columns or not len(columns.get(NON_FINITE, ())):
        raise RunError(f"{source.path}: no finished step yet, so there is nothing to show; wait for its first step")
    if "step" not in columns or not np.isfinite(columns["step"]).all():
        raise RunError(f"{source.path}: a row has no step; it is not a file of metrics")
    if "reward" not in columns:
        known = ", ".join(key for key in columns if key != NON_FINITE)
        raise RunError(f"{source.path}: no finished step recorded 'reward'; its columns are {known}")


def _variants(runs: Sequence[History | Absent], tasks: Sequence[str]) -> list[str]:
    """The variant of each run. Variants are told apart on each task by itself."""
    found = [""] * len(runs)
    for task in dict.fromkeys(tasks):
        places = [place for place, name in enumerate(tasks) if name == task]
        for place, name in zip(places, _variants_of_task([runs[place] for place in places]), strict=True):
            found[place] = name
    return found


def _variants_of_task(runs: Sequence[History | Absent]) -> list[str]:
    """The variant of each run; another program's run has its own already, from names of files and folders."""
    own = [index for index, run in enumerate(runs) if run.recipe]
    names = dict(zip(own, variants_of_runs([(runs[i].name, runs[i].seed, runs[i].recipe) for i in own]), strict=True))
    ours = set(names.values())
    for index, run in enumerate(runs):
        if not run.recipe:
            # Its recipe is not known, so it cannot be a seed of our variant of the same name.
            taken = run.variant in ours
            names[index] = not_yet_taken(f"{run.variant}-other-program", ours) if taken else run.variant
    return [names[index] for index in range(len(runs))]
