"""Runs that were planned and have nothing to draw. They count in a verdict as the others do."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.runs.lock import is_locked
from rl_posttrain.runs.yaml12 import read_yaml
from rl_posttrain.study.outcomes import Outcome, listed

# In the folder of a comparison: the recipe of each run that it planned, and what a living comparison has locked.
RECIPES_FOLDER, LOCK_FILE = "recipes", ".lock"


@dataclass(frozen=True)
class Absent:
    """A run that was planned and has no folder, no step, or no step with a finite reward.

    Attributes:
        outcome: failed; or running, where it has not come to its first step yet.
    """

    name: str
    path: Path
    variant: str
    seed: int | None
    recipe: dict[str, Any]
    outcome: Outcome
    task: str = ""


def planned_in(folder: Path) -> dict[Path, Mapping[str, Any]]:
    """The runs that a comparison in `folder` planned, each with its recipe as plain data."""
    found: dict[Path, Mapping[str, Any]] = {}
    for file in sorted((folder / RECIPES_FOLDER).glob("*.yaml")):
        try:
            recipe = read_yaml(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(recipe, dict) and isinstance(run := recipe.get("run"), dict) and run.get("name") == file.stem:
            found[folder / file.stem] = recipe
    return found


def never_began(path: Path, recipe: Mapping[str, Any]) -> Absent:
    """A run that a comparison planned and that has no folder. It gets its variant's name with the other runs."""
    waiting = is_locked(path.parent / RECIPES_FOLDER / LOCK_FILE)
    outcome = Outcome("running", "it has not begun") if waiting else Outcome("failed", "planned, and never begun")
    return Absent(path.name, path, "", recipe.get("run", {}).get("seed"), dict(recipe), outcome)


def not_named(folders: Iterable[Path], known: Collection[Path]) -> list[str]:
    """Of each folder of a comparison some of whose runs were named, those that it planned and that nobody named.

    Args:
        known: resolved paths of the runs that are judged.
    """
    found = []
    for folder in sorted(set(folders)):
        others = [path.name for path in planned_in(folder) if path.resolve() not in known]
        if others:
            found.append(f"{listed(others)}: planned by the comparison in {folder}, and not named")
    return found
