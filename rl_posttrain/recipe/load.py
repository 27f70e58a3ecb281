"""Loading a recipe: a file or bundled name, `key=value` overrides, and what differs between two recipes.

Loading one imports no heavy library. Values are checked where they are read: an error names key, value, reason and fix.
Options that belong to a task, a reward or an optimizer are checked against the signature of the code they are for.
"""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.recipe.checks import check_keys_together
from rl_posttrain.recipe.explain import explain
from rl_posttrain.recipe.schema import Recipe


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name to file; those of a subfolder as ``studies/betas``."""
    folder = Path(str(importlib.resources.files("rl_posttrain.recipes")))
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {str(file.relative_to(folder).with_suffix("")): file for file in files}


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path, or by bare name when it is bundled."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise RecipeError(f"RECIPE={name}: no such file; `rl-posttrain recipes` lists the bundled ones")
        return path
    bundled = bundled_recipes()
    if str(name) not in bundled:
        raise RecipeError(
            f"RECIPE={name}: no file and no bundled recipe of that name; {did_you_mean(str(name), bundled)}"
        )
    return bundled[str(name)]


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or bundled name and apply ``section.key=value`` overrides, whose values are YAML.

    Raises:
        RecipeError: the file, an override or a value cannot be used; one line with key, value, reason and fix.
    """
    path = find_recipe(source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"RECIPE={path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"RECIPE={path}: a recipe is a mapping of sections ({', '.join(Recipe.model_fields)})")
    for override in overrides:
        apply_override(data, override)
    if isinstance(data.get("run", {}), dict):
        data.setdefault("run", {}).setdefault("name", path.stem)
    return parse_recipe(data)


def parse_recipe(data: dict) -> Recipe:
    """A recipe from plain data, checked.

    Raises:
        RecipeError: a key is unknown, missing or has a value it cannot have.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(explain(error.errors()[0], data)) from None
    check_keys_together(recipe)
    return recipe


def apply_override(data: dict, override: str) -> None:
    """Set one ``section.key=value`` in a recipe's plain data; the value is YAML.

    Raises:
        RecipeError: it is not of that form, or leads through a value that has no keys.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"{override}: an override is written section.key=value, such as optimizer.lr=1e-6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"{override}: the value is no YAML; quote it") from None
    *sections, last = key.split(".")
    node: Any = data
    for section in sections:
        node = _step_into(node, section, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _step_into(node: Any, section: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, section, override)]
    child = node.setdefault(section, {})
    if not isinstance(child, (dict, list)):
        raise RecipeError(f"{override}: {section} is the value {child!r} and has no keys of its own")
    return child


def _index(node: list, text: str, override: str) -> int:
    if not text.isdigit() or int(text) >= len(node):
        raise RecipeError(f"{override}: {text} is no place in a list of {len(node)}; they count from 0")
    return int(text)


def recipe_change(old: Recipe, new: Recipe) -> str | None:
    """The first key in which two recipes differ, as ``key=new (was old)``; None where they are the same.

    Where the run directory lies does not count: it may have been moved, or be named by another path.
    """
    where = {"run": {"output_dir"}}
    return _first_difference(old.model_dump(exclude=where), new.model_dump(exclude=where))


def _first_difference(old: dict, new: dict, prefix: str = "") -> str | None:
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            nested = _first_difference(before, after, f"{prefix}{key}.")
            if nested:
                return nested
        elif before != after:
            return f"{prefix}{key}={after} (was {before})"
    return None


def headline(path: Path) -> str:
    """The first comment line of a recipe file: what it shows."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
