"""Runs read back to be judged: metrics in columns, and runs grouped into variants.

Run directories and runs of other programs (foreign.py) are read into the same shape. A run that cannot be judged is
left out, with its name and the reason; runs that must not be compared are refused.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import NON_FINITE, Columns, keys_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.foreign import ForeignRun, is_foreign
from rl_posttrain.study.variants import SAME_TASK, not_yet_taken, variant_keys, variants_of_runs

_WITH_SEED = re.compile(r"(?P<variant>.*?)[-_. ]*seed[-_=]?(?P<seed>\d+)$", re.IGNORECASE)


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
        finished: whether it has made all of its steps.
        prompts: of each step the hash of its prompts; empty where some step has none.
    """

    name: str
    path: Path
    variant: str
    seed: int | None
    columns: dict[str, np.ndarray]
    recipe: dict[str, Any]
    environment: dict[str, Any]
    finished: bool
    source: RunDirectory | ForeignRun = field(repr=False)
    prompts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def num_planned(self) -> int | None:
        """Steps that the recipe asks for; None where that is not known."""
        return self.recipe.get("algorithm", {}).get("num_steps")

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
        left_out: of each run that cannot be judged, its path and the reason.
    """

    runs: list[History]
    left_out: list[str]

    @property
    def variants(self) -> dict[str, list[History]]:
        """Runs by variant, in the order in which they were named."""
        groups: dict[str, list[History]] = {}
        for run in self.runs:
            groups.setdefault(run.variant, []).append(run)
        return groups

    @property
    def is_study(self) -> bool:
        """Whether some variant was run more than once."""
        return len(self.variants) < len(self.runs)


def read_runs(paths: Iterable[Path | str]) -> Collection:
    """The runs at `paths`: run directories, folders of them, and files of other programs.

    Raises:
        RunError: a path holds no run, no run can be judged, or they were trained on different tasks or rewards.
    """
    sources = [source for path in paths for source in _sources(Path(path))]
    unique = list({source.path.resolve(): source for source in sources}.values())
    found, left_out = [], []
    for source in unique:
        try:
            found.append(_read(source))
        except RunError as error:
            left_out.append(str(error))
    if not found:
        raise RunError(left_out[0] if left_out else "RUN: no run was named; name run directories, or a folder of them")
    _refuse_different_tasks(found)
    names = [run.name for run in found]
    return Collection(
        [
            replace(run, variant=label, name=run.name if names.count(run.name) == 1 else str(run.path))
            for run, label in zip(found, _variants(found), strict=True)
        ],
        left_out,
    )


def recipe_differences(runs: Sequence[History]) -> dict[str, dict[str, str]]:
    """Recipe keys in which variants differ: key to variant to value, as text; "default" where a recipe has no value."""
    flat = {run.variant: variant_keys(run.recipe) for run in runs if run.recipe}
    differing = [key for key in keys_of(flat.values()) if len({_text(recipe.get(key)) for recipe in flat.values()}) > 1]
    return {key: {variant: _text(recipe.get(key)) for variant, recipe in flat.items()} for key in differing}


def pairing(collection: Collection) -> list[str]:
    """Whether runs of one seed started from the same weights and had the same prompts in every variant: sentences."""
    by_seed: dict[int, list[History]] = {}
    for run in collection.runs:
        if run.seed is not None and run.recipe:
            by_seed.setdefault(run.seed, []).append(run)
    shared = {seed: runs for seed, runs in by_seed.items() if len({run.variant for run in runs}) > 1}
    if not shared:
        return []
    return [_same_weights(shared), _same_prompts(shared)]


def _same_weights(shared: dict[int, list[History]]) -> str:
    marks = {seed: [run.environment.get("initial_weights_sha256") for run in runs] for seed, runs in shared.items()}
    if any(None in found for found in marks.values()):
        return "initial weights: not recorded by every run, so not checked"
    unequal = [seed for seed, found in marks.items() if len(set(found)) > 1]
    if unequal:
        return f"initial weights: DIFFERENT between variants at seed {_listed(unequal)}; do not pair these runs"
    return f"initial weights: the same in every variant at each of {len(shared)} seeds"


def _same_prompts(shared: dict[int, list[History]]) -> str:
    unequal: dict[int, int] = {}
    for seed, runs in shared.items():
        if not all(run.prompts for run in runs):
            return "prompts: not recorded by every run, so not checked"
        for step, marks in enumerate(zip(*(run.prompts for run in runs), strict=False), start=1):
            if len(set(marks)) > 1:
                unequal[seed] = step
                break
    if unequal:
        seed, step = next(iter(unequal.items()))
        return f"prompts: DIFFERENT between variants at seed {_listed(unequal)} (seed {seed}: from step {step} on)"
    return f"prompts: the same in the same order in every variant at each of {len(shared)} seeds"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def _sources(path: Path) -> list[RunDirectory | ForeignRun]:
    if (path / "recipe.yaml").is_file():
        return [RunDirectory.open(path)]
    if is_foreign(path):
        return [ForeignRun(path)]
    inside = [child for child in sorted(path.iterdir()) if _is_run(child)] if path.is_dir() else []
    if not inside:
        known = "a folder that `rl-posttrain train` wrote, a folder of such folders, a trainer_state.json or a CSV"
        reason = "there is no run in it" if path.exists() else "there is no such file or folder"
        raise RunError(f"RUN={path}: {reason}; name {known}")
    return [source for child in inside for source in _sources(child)]


def _is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file() or (is_foreign(path) and (path.is_dir() or path.suffix.lower() == ".csv"))


def _read(source: RunDirectory | ForeignRun) -> History:
    """One run. Its variant stays empty: it cannot be named before the other runs are read."""
    columns, prompts = source.columns()
    _check_columns(columns, source)
    recipe = source.recipe()
    return History(
        name=source.name,
        path=source.path,
        variant="",
        seed=_seed(source, recipe),
        columns=columns,
        recipe=recipe,
        environment=source.environment(),
        finished=source.summary() is not None,
        source=source,
        prompts=prompts if len(prompts) == len(columns["step"]) else (),
    )


def _check_columns(columns: Columns, source: RunDirectory | ForeignRun) -> None:
    if not columns or not len(columns.get(NON_FINITE, ())):
        raise RunError(f"{source.path}: no finished step yet, so there is nothing to show; wait for its first step")
    if "step" not in columns or not np.isfinite(columns["step"]).all():
        raise RunError(f"{source.path}: a row has no step; it is not a file of metrics")
    if "reward" not in columns:
        known = ", ".join(key for key in columns if key != NON_FINITE)
        raise RunError(f"{source.path}: no finished step recorded 'reward'; its columns are {known}")


def _text(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value)


def _seed(source: RunDirectory | ForeignRun, recipe: dict) -> int | None:
    if recipe:
        return recipe.get("run", {}).get("seed")
    match = _WITH_SEED.match(source.name)
    return int(match["seed"]) if match else None


def _variants(runs: Sequence[History]) -> list[str]:
    """The variant of each run; that of a run of another program comes from the names of files and folders."""
    own = [index for index, run in enumerate(runs) if run.recipe]
    names = dict(zip(own, variants_of_runs([(runs[i].name, runs[i].seed, runs[i].recipe) for i in own]), strict=True))
    ours = set(names.values())
    for index, name in _variants_from_files(runs).items():
        # Its recipe is not known, so it cannot be a seed of our variant of the same name.
        names[index] = not_yet_taken(f"{name}-other-program", ours) if name in ours else name
    return [names[index] for index in range(len(runs))]


def _variants_from_files(runs: Sequence[History]) -> dict[int, str]:
    """Of each run without a recipe, its place in `runs` and its variant."""
    found, without_seed = {}, {}
    for index, run in enumerate(runs):
        if not run.recipe:
            match = _WITH_SEED.match(run.name)
            found[index] = (match["variant"] if match else "") or run.name
            if not match:
                without_seed[index] = run.path.resolve().parent
    # Files that name no seed are runs of one variant where they lie in one folder, and others lie in another.
    if 1 < len(set(without_seed.values())) < len(without_seed):
        found |= {index: folder.name for index, folder in without_seed.items()}
    return found


def _refuse_different_tasks(runs: Sequence[History]) -> None:
    known = [(run.path, variant_keys(run.recipe)) for run in runs if run.recipe]
    for path, recipe in known[1:]:
        first, before = known[0]
        for key in keys_of([before, recipe]):
            what = key.partition(".")[0]
            if what in ("task", "rewards") and key not in SAME_TASK and before.get(key) != recipe.get(key):
                raise RunError(
                    f"{key}={_text(recipe.get(key))}: {path} has another task or other rewards than {first} "
                    f"({key}={_text(before.get(key))}), so their rewards cannot be compared; report them separately"
                )
