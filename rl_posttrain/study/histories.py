"""Runs as those who judge them see them: metrics in columns, grouped into variants that differ in more than the seed.

Run directories and runs made elsewhere (foreign.py) are read into the same shape. A run that cannot be judged is named
with the reason and left out; runs that must not be compared are refused.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.foreign import ForeignRun, is_foreign

# What does not make another variant: who the run is, and what of it is kept or shown.
NO_VARIANT = ("run.", "checkpoint.", "logging.", "eval.", "compare")
# Keys of a task that do not make it another one.
NO_OTHER_TASK = ("task.num_train", "task.num_eval", "task.max_unreadable_golds")
_WITH_SEED = re.compile(r"(?P<variant>.*?)[-_. ]*seed[-_=]?(?P<seed>\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class History:
    """One run.

    Attributes:
        name: its folder's or file's name; the whole path where two runs have the same.
        variant: what it shares with its other seeds, in words that tell it from the other variants.
        seed: None where nobody said it.
        columns: metric name to (S,) float64 values of the S finished steps, NaN where a step has none; ``step`` is
            always there.
        recipe: sections and keys as resolved; empty for a run made elsewhere.
        finished: whether no step is to come.
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
    """Runs that may be compared, and what was found on reading them."""

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
    """The runs at `paths`: run directories, folders of them, and what `foreign.is_foreign` knows.

    Raises:
        RunError: a path holds no run, all runs are unusable, or they were trained on different tasks or rewards.
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
    _refuse_different_tasks([run.source for run in found], [_flatten(run.recipe) for run in found])
    names = [run.name for run in found]
    return Collection(
        [
            replace(run, variant=label, name=run.name if names.count(run.name) == 1 else str(run.path))
            for run, label in zip(found, _variant_labels(found), strict=True)
        ],
        left_out,
    )


def recipe_differences(runs: Sequence[History]) -> dict[str, dict[str, str]]:
    """Recipe keys in which variants differ: key to variant to value, as text; what a recipe leaves out is "default"."""
    flat = {run.variant: _flatten(run.recipe) for run in runs if run.recipe}
    differing = [key for key in _keys(flat.values()) if len({_text(recipe.get(key)) for recipe in flat.values()}) > 1]
    return {key: {variant: _text(recipe.get(key)) for variant, recipe in flat.items()} for key in differing}


def pairing(collection: Collection) -> list[str]:
    """What is known of the same seed meeting the same conditions in every variant, a sentence each."""
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
        return "initial weights: not known of every run, so not checked"
    unequal = [seed for seed, found in marks.items() if len(set(found)) > 1]
    if unequal:
        return f"initial weights: DIFFERENT between variants at seed {_listed(unequal)}; a pair is no pair there"
    return f"initial weights: the same in every variant at each of {len(shared)} seeds"


def _same_prompts(shared: dict[int, list[History]]) -> str:
    unequal: dict[int, int] = {}
    for seed, runs in shared.items():
        if not all(run.prompts for run in runs):
            return "prompts: not known of every run, so not checked"
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
        known = "a folder that `rl-posttrain train` wrote, one of such folders, a trainer_state.json or a CSV"
        raise RunError(
            f"no run at {path}: {'nothing in it is one' if path.exists() else 'it is not there'}; name {known}"
        )
    return [source for child in inside for source in _sources(child)]


def _is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file() or (is_foreign(path) and (path.is_dir() or path.suffix.lower() == ".csv"))


def _read(source: RunDirectory | ForeignRun) -> History:
    """One run, whose variant cannot be named before the others are read."""
    columns, prompts = _columns(source)
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
        prompts=prompts,
    )


def _columns(source: RunDirectory | ForeignRun) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Metric columns and the marks of the prompts; row dicts are let go at once, since there can be many."""
    rows = source.metrics()
    if not rows:
        raise RunError(f"{source.path}: no finished step yet, so there is nothing to show; wait for its first step")
    keys = _keys(rows)
    columns = {key: _column([row.get(key) for row in rows]) for key in keys}
    # Seen on its steps only, a value that is null there is a number that was not finite. DeepSpeed's ZeRO-0 in fp32 has
    # no gradient norm to report at all.
    lost = ["reward", "loss"] + ["grad_norm"] * (
        "grad_norm" in columns and bool(np.isfinite(columns["grad_norm"]).any())
    )
    columns["non_finite"] = np.array([float(any(key in row and row[key] is None for key in lost)) for row in rows])
    prompts = tuple(row["prompts_sha256"] for row in rows if "prompts_sha256" in row)
    columns = {key: column for key, column in columns.items() if np.isfinite(column).any()}
    if "step" not in columns or not np.isfinite(columns["step"]).all():
        raise RunError(f"{source.path}: a row has no step; it is no file of metrics")
    if "reward" not in columns:
        raise RunError(f"{source.path}: no finished step recorded 'reward'; its columns are {', '.join(columns)}")
    return columns, prompts if len(prompts) == len(rows) else ()


def _column(values: list[Any]) -> np.ndarray:
    """Values as float64; what is no number is NaN."""
    if not set(map(type, values)) <= {int, float, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    return np.array(values, dtype=np.float64)


def _keys(rows: Iterable[dict]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _flatten(node: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        elif not f"{prefix}{key}".startswith(NO_VARIANT):
            flat[f"{prefix}{key}"] = value
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value)


def _seed(source: RunDirectory | ForeignRun, recipe: dict) -> int | None:
    if recipe:
        return recipe.get("run", {}).get("seed")
    match = _WITH_SEED.match(source.name)
    return int(match["seed"]) if match else None


def recipe_labels(recipes: Sequence[dict[str, Any]]) -> list[str]:
    """A label for each recipe: its optimizer, and of the other keys that differ those that are needed to tell it apart.

    Recipes that differ in the run's name, seed, or what is kept and shown have the same.
    """
    flat = [_flatten(recipe) for recipe in recipes]
    labels = [str(recipe.get("optimizer.name", "run")).rpartition(":")[2] for recipe in flat]
    for key in _keys(flat):
        values: dict[str, set[str]] = {}
        for label, recipe in zip(labels, flat, strict=True):
            values.setdefault(label, set()).add(_text(recipe.get(key)))
        for index, recipe in enumerate(flat):
            if len(values[labels[index]]) > 1 and recipe.get(key) is not None:
                labels[index] += f" {key.rpartition('.')[2]}={_text(recipe[key])}"
    return labels


def _variant_labels(runs: Sequence[History]) -> list[str]:
    own = [index for index, run in enumerate(runs) if run.recipe]
    labels = [run.name for run in runs]
    nameless = []
    for index, run in enumerate(runs):
        if not run.recipe:
            if match := _WITH_SEED.match(run.name):
                labels[index] = match["variant"] or run.name
            else:
                nameless.append(index)
    # Files that name no seed are runs of one variant where they lie together, apart from those of another.
    folders = {index: runs[index].path.resolve().parent for index in nameless}
    if 1 < len(set(folders.values())) < len(nameless):
        for index, folder in folders.items():
            labels[index] = folder.name
    for index, label in zip(own, recipe_labels([runs[index].recipe for index in own]), strict=True):
        labels[index] = label
    ours = {labels[index] for index in own}
    # Of one name with ours, a run made elsewhere is still no other seed of it.
    return [
        f"{label} (made elsewhere)" if index not in own and label in ours else label
        for index, label in enumerate(labels)
    ]


def _refuse_different_tasks(sources: Sequence[RunDirectory | ForeignRun], flat: Sequence[dict]) -> None:
    known = [(source, recipe) for source, recipe in zip(sources, flat, strict=True) if recipe]
    for source, recipe in known[1:]:
        first, before = known[0]
        for key in _keys([before, recipe]):
            what = key.partition(".")[0]
            if what in ("task", "rewards") and key not in NO_OTHER_TASK and before.get(key) != recipe.get(key):
                raise RunError(
                    f"{key}={_text(recipe.get(key))}: {source.path} was trained on another task or other rewards than "
                    f"{first.path} ({key}={_text(before.get(key))}), so their rewards cannot be compared; "
                    "report them apart"
                )
