"""The runs of a comparison: the same recipe under several optimizers, settings and seeds."""

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import apply_override, parse_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.recipe.schema import CompareSection, OptimizerSection, Recipe
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.histories import NO_OTHER_TASK, NO_VARIANT

_CALL = re.compile(r"(?P<name>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a comparison: its recipe, whose name and folder are already those of this run."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def path(self) -> Path:
        return self.recipe.run_path

    @property
    def num_steps(self) -> int:
        return self.recipe.algorithm.num_steps

    def directory(self) -> RunDirectory | None:
        """Its run directory; None before it has begun."""
        return RunDirectory(self.path) if (self.path / "recipe.yaml").is_file() else None

    def is_finished(self) -> bool:
        run = self.directory()
        return run is not None and run.summary() is not None

    def steps_done(self) -> int:
        run = self.directory()
        row = run.last_row() if run else None
        return row["step"] if row else 0


def read_plan(
    recipe: Recipe, *, optimizers: str | None, seeds: str | None, vary: Sequence[str]
) -> tuple[list[str], list[int], list[dict[str, Any]]]:
    """Optimizers, seeds and settings: those of the command line, else those of the recipe's ``compare`` section.

    Args:
        optimizers, seeds: lists with commas, or None.
        vary: ``key=a,b,c`` each; several make every combination, also with the settings of the recipe.

    Raises:
        RecipeError: one of them is not written as it should be.
    """
    section = recipe.compare or CompareSection()
    numbers = None if seeds is None else split_list(seeds)
    if numbers is not None and not (numbers and all(seed.isascii() and seed.isdigit() for seed in numbers)):
        raise RecipeError(f"--seeds={seeds}: seeds are whole numbers with commas, such as 0,1,2")
    names = list(section.optimizers) if optimizers is None else split_list(optimizers)
    if not names:
        raise RecipeError(f"--optimizers={optimizers}: no name in it; such as adams,adamw")
    settings = list(section.vary) or [{}]
    for text in vary:
        key, separator, values = text.partition("=")
        if not separator or not split_list(values):
            raise RecipeError(f"--vary={text}: it is written key=a,b,c, such as optimizer.lr=1e-6,2e-6")
        settings = [setting | {key: yaml.safe_load(value)} for setting in settings for value in split_list(values)]
    for key in dict.fromkeys(key for setting in settings for key in setting):
        _check_varied(key)
    return (
        names,
        list(section.seeds) if numbers is None else [int(seed) for seed in numbers],
        settings,
    )


def plan_runs(
    recipe: Recipe,
    optimizers: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[Mapping[str, Any]],
    folder: Path,
    num_processes: int = 1,
) -> list[PlannedRun]:
    """The runs of a comparison, one seed of every variant before the next seed: stopped early, it is still a fair one.

    Args:
        recipe: what all runs share.
        optimizers: names, each with arguments of its own where wanted, as in ``adamw(betas=[0.9,0.95], lr=2e-5)``. What
            the recipe says for its own optimizer alone (betas, for instance) does not go to another one.
        settings: recipe keys and their values, each one more variant of every optimizer; one empty mapping for none.
        folder: where the run directories go.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have, or two variants or seeds that are the same.
    """
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds={','.join(map(str, seeds))}: a seed stands there twice; name each once")
    variants: dict[str, dict[str, Any]] = {}
    for optimizer, setting in itertools.product(optimizers, settings):
        name, opening, arguments = optimizer.partition("(")
        words = [name.rpartition(":")[2], opening + arguments]  # of one's own class, the class and not where it is
        words += [f"{key.rpartition('.')[2]}={value}" for key, value in setting.items()]
        name = re.sub(r"[^A-Za-z0-9._]+", "-", " ".join(words)).strip("-._")
        if name in variants:
            raise RecipeError(f"--optimizers={optimizer}: two variants are called {name}; name each once")
        data = recipe.model_dump(mode="json") | {"optimizer": _optimizer_section(recipe, optimizer), "compare": None}
        for key, value in setting.items():
            apply_override(data, f"{key}={yaml.safe_dump(value, default_flow_style=True)}")
        variants[name] = data
    planned = []
    for seed, (name, data) in itertools.product(seeds, variants.items()):
        run = {"seed": seed, "name": f"{name}-seed{seed}", "output_dir": str(folder)}
        planned.append(PlannedRun(name, seed, parse_recipe(data | {"run": run})))
    for run in planned[: len(variants)]:  # what can be wrong with a variant shows before hours of running
        derive_sizes(run.recipe, num_processes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arguments that are dubious and not wrong
            resolve(run.recipe)
    return planned


def split_list(text: str) -> list[str]:
    """The parts of ``a,b(c=[1,2]),d`` between commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _check_varied(key: str) -> None:
    """Fail where runs that differ in `key` would be no variants that can be judged beside each other.

    Raises:
        RecipeError: it names the run, what is kept or shown of it, or what is rewarded.
    """
    section = key.partition(".")[0]
    if f"{section}." in NO_VARIANT or section in NO_VARIANT:
        raise RecipeError(f"--vary={key}: it changes nothing that is learned, so it makes no variants; leave it out")
    if section in ("task", "rewards") and key not in NO_OTHER_TASK:
        raise RecipeError(
            f"--vary={key}: it changes what is rewarded, so the rewards could not be compared; compare each on its own"
        )


def _optimizer_section(recipe: Recipe, text: str) -> dict[str, Any]:
    """The recipe's optimizer section for the optimizer that `text` names."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise RecipeError(f"--optimizers={text}: an optimizer is written name or name(key=value, ...)")
    section = recipe.optimizer.model_dump(mode="json")
    if match["name"] != recipe.optimizer.name:
        section = {key: value for key, value in section.items() if key in OptimizerSection.model_fields}
    data = {"optimizer": section | {"name": match["name"]}}
    for argument in split_list(match["arguments"] or ""):
        apply_override(data, f"optimizer.{argument}")
    return data["optimizer"]
