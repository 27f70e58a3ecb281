"""Which runs a comparison has: one recipe under several optimizers, settings and seeds."""

import itertools
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.importance import without_defaults
from rl_posttrain.recipe.load import apply_override, parse_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.recipe.schema import BY_ALGORITHM, CompareSection, OptimizerSection, Recipe
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.yaml12 import YamlError, read_yaml, write_yaml
from rl_posttrain.study.tasks import SAME_TASK
from rl_posttrain.study.variants import SAME_VARIANT, not_yet_taken, variant_keys, variant_name

_CALL = re.compile(r"(?P<name>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        variant: its variant's name.
        recipe: the whole recipe of this run, with the run's name and folder in it.
    """

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
        """Its run directory; None before the run has started."""
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
    """Optimizers, seeds and settings: from the command line, or from the recipe's ``compare`` section where not given.

    Args:
        optimizers: names with commas, as in ``adams,adamw(lr=2e-5)``, or None.
        seeds: whole numbers with commas, or None.
        vary: ``key=a,b,c`` each. Several make every combination, also with the settings of the recipe.

    Returns:
        Optimizers as text; seeds; settings, each a mapping of recipe keys to values.

    Raises:
        RecipeError: one of them is not written as it should be.
    """
    section = recipe.compare or CompareSection()
    numbers = list(section.seeds) if seeds is None else read_seeds(seeds, "--seeds")
    names = list(section.optimizers) if optimizers is None else split_list(optimizers)
    if not names:
        raise RecipeError(f"--optimizers={optimizers}: it has no name; write names with commas, such as adams,adamw")
    settings = list(section.vary) or [{}]
    for text in vary:
        key, varied = read_values(text, "--vary")
        settings = [setting | {key: value} for setting in settings for value in varied]
    for key in dict.fromkeys(key for setting in settings for key in setting):
        check_varied(key, "--vary")
    return names, numbers, settings


def plan_runs(
    recipe: Recipe,
    optimizers: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[Mapping[str, Any]],
    folder: Path,
    num_processes: int = 1,
) -> list[PlannedRun]:
    """The runs of a comparison, in the order in which they run: every variant at one seed, then at the next seed.

    So a comparison that was stopped early still compares variants at the same seeds.

    Args:
        recipe: what all runs share.
        optimizers: names, each with its own arguments where wanted, as in ``adamw(betas=[0.9,0.95], lr=2e-5)``.
            Arguments that the recipe gives to its own optimizer (betas, for instance) are not given to another one.
        settings: recipe keys and their values; each setting makes one more variant of every optimizer. One empty
            mapping for none. What the recipe says for its own algorithm alone is not given to another one.
        folder: where the run directories go.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have, or two variants or seeds that are the same.
    """
    return plan_seeds(plan_variants(recipe, itertools.product(optimizers, settings), num_processes), seeds, folder)


def plan_variants(
    recipe: Recipe, pairs: Iterable[tuple[str, Mapping[str, Any]]], num_processes: int = 1
) -> dict[str, Recipe]:
    """The recipe of each variant by its name, in the order of `pairs`: an optimizer and a setting, as in `plan_runs`.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have, or two variants that are the same.
    """
    variants: dict[str, Recipe] = {}
    for optimizer, setting in pairs:
        variant, named = variant_recipe(recipe, optimizer, setting)
        keys = variant_keys(variant.model_dump(mode="json"))
        for name, other in variants.items():
            if keys == variant_keys(other.model_dump(mode="json")):
                raise RecipeError(f"--optimizers={optimizer}: it has the same recipe as {name}; list each variant once")
        variants[not_yet_taken(variant_name(keys, named), variants)] = variant
    for variant in variants.values():
        check_variant(variant, num_processes)
    return variants


def plan_seeds(variants: Mapping[str, Recipe], seeds: Sequence[int], folder: Path) -> list[PlannedRun]:
    """The runs of `variants`, as `plan_variants` gives them: all at one seed, then all at the next.

    Raises:
        RecipeError: a seed is listed twice.
    """
    if repeated := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise RecipeError(f"--seeds={','.join(map(str, seeds))}: {repeated[0]} is listed twice; list each seed once")
    planned = []
    for seed, (name, variant) in itertools.product(seeds, variants.items()):
        run = {"seed": seed, "name": f"{name}-seed{seed}", "output_dir": str(folder)}
        planned.append(PlannedRun(name, seed, parse_recipe(variant.model_dump(mode="json") | {"run": run})))
    return planned


def variant_recipe(recipe: Recipe, optimizer: str, setting: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe of an optimizer with a setting, as in `plan_runs`, and the keys that make its name, each once.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have.
    """
    section, named = _optimizer_section(recipe, optimizer)
    data = recipe.model_dump(mode="json") | {"optimizer": section, "compare": None}
    data["rollout"] = without_defaults(data["rollout"])
    if setting.get("algorithm.name", recipe.algorithm.name) != recipe.algorithm.name:
        data = _without_algorithm_keys(data)
    for key, value in setting.items():
        apply_override(data, f"{key}={write_yaml(value, on_one_line=True)}")
    return parse_recipe(data), list(dict.fromkeys([*named, *setting]))


def read_seeds(text: str, option: str) -> list[int]:
    """Seeds written with commas.

    Raises:
        RecipeError: it is not written so.
    """
    numbers = split_list(text)
    if not (numbers and all(seed.isascii() and seed.isdigit() for seed in numbers)):
        raise RecipeError(f"{option}={text}: seeds are whole numbers, separated by commas, such as 0,1,2")
    return [int(seed) for seed in numbers]


def read_values(text: str, option: str) -> tuple[str, list[Any]]:
    """A recipe key and its values, from ``key=a,b,c``.

    Raises:
        RecipeError: it is not written so, or runs that differ in the key cannot be compared.
    """
    key, separator, values = text.partition("=")
    if not separator or not split_list(values):
        raise RecipeError(f"{option}={text}: write it as key=a,b,c, such as optimizer.lr=1e-6,2e-6")
    try:
        return key, [read_yaml(value) for value in split_list(values)]
    except YamlError as error:
        raise RecipeError(f"{option}={text}: a value is not valid YAML ({error}); quote it") from None


def split_list(text: str) -> list[str]:
    """The parts of ``a,b(c=[1,2]),d`` between commas, but for commas inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def check_varied(key: str, option: str) -> None:
    """Fail where runs that differ in `key` cannot be judged side by side.

    Raises:
        RecipeError: the key says which run it is, what is kept or shown of it, or what is rewarded.
    """
    section = key.partition(".")[0]
    if section in SAME_VARIANT:
        raise RecipeError(
            f"{option}={key}: it does not change what the run learns, so it makes no variant; leave it out"
        )
    if section in ("task", "rewards") and key not in SAME_TASK:
        raise RecipeError(
            f"{option}={key}: it changes what is rewarded, so rewards could not be compared; run a comparison for each"
        )


def check_variant(recipe: Recipe, num_processes: int) -> None:
    """Find a mistake in a variant now, not hours later when its first run starts.

    Raises:
        RecipeError: there is one.
    """
    derive_sizes(recipe, num_processes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that are allowed and doubtful: the run itself will say so
        resolve(recipe)


def optimizer_section(recipe: Recipe, name: str) -> dict[str, Any]:
    """The recipe's optimizer section for the optimizer `name`; for another one without the recipe's own arguments."""
    section = recipe.optimizer.model_dump(mode="json")
    if name != recipe.optimizer.name:
        section = {key: value for key, value in section.items() if key in OptimizerSection.model_fields}
    return section | {"name": name}


def optimizer_override(recipe: Mapping[str, Any], name: str) -> str:
    """The override that trains a recipe with the optimizer `name`, such as ``optimizer.name=adamw``.

    Where the recipe gives its own optimizer arguments (betas, for instance), the whole section is replaced, since they
    are not meant for another optimizer.

    Args:
        recipe: plain data, as `RunDirectory.recipe` reads it.
    """
    parsed = parse_recipe(dict(recipe))
    if not parsed.optimizer.options:
        return f"optimizer.name={name}"
    section = OptimizerSection.model_validate(optimizer_section(parsed, name))
    values = {"name": name} | section.model_dump(mode="json", exclude_defaults=True)
    return f"optimizer={write_yaml(values, on_one_line=True)}"


def _without_algorithm_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data without what goes by its algorithm's name: the critic, and keys of `BY_ALGORITHM`."""
    algorithm = {key: value for key, value in data["algorithm"].items() if key not in BY_ALGORITHM}
    return dict(data) | {"algorithm": algorithm, "critic": None}


def _optimizer_section(recipe: Recipe, text: str) -> tuple[dict[str, Any], list[str]]:
    """The optimizer section for ``name(key=value, ...)``, and the recipe keys that the text sets."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise RecipeError(f"--optimizers={text}: an optimizer is written name or name(key=value, ...)")
    data = {"optimizer": optimizer_section(recipe, match["name"])}
    arguments = split_list(match["arguments"] or "")
    for argument in arguments:
        apply_override(data, f"optimizer.{argument}")
    return data["optimizer"], [f"optimizer.{argument.partition('=')[0]}" for argument in arguments]
