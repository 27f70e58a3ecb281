"""Loading a recipe: its file, `key=value` overrides, and the check of every key.

This imports no heavy library. Keys and values are checked here. Options of a task, a reward or an optimizer are checked
in resolve.py, against the signature of the code that they go to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.checks import check_keys_together
from rl_posttrain.recipe.explain import explain
from rl_posttrain.recipe.files import Origins, find_recipe, read_recipe
from rl_posttrain.recipe.paths import make_paths_whole
from rl_posttrain.recipe.schema import Recipe, RunSection
from rl_posttrain.runs.yaml12 import YamlError, read_yaml


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or bundled name, with what it extends, and apply overrides last. Paths become absolute.

    Args:
        overrides: ``section.key=value`` each; the value is YAML.

    Raises:
        RecipeError: a file, an override or a value cannot be used; one line with key, value, reason and fix.
    """
    data, origins = _read(source, overrides)
    if isinstance(data["run"], dict):
        data["run"].setdefault("name", find_recipe(source).stem)
        data["run"].setdefault("output_dir", RunSection.model_fields["output_dir"].default)
    make_paths_whole(data)
    return parse_recipe(data, origins)


def names_its_run(source: str | Path, overrides: Sequence[str] = ()) -> bool:
    """Whether the recipe or an override says `run.name`. Otherwise the name is that of the file."""
    return "name" in _read(source, overrides)[0]["run"]


def _read(source: str | Path, overrides: Sequence[str]) -> tuple[dict, Origins]:
    """The plain data of a recipe, with its overrides and a section `run`; and where each key comes from."""
    path = find_recipe(source)
    data, origins = read_recipe(path)
    if path.name == "recipe.yaml" and (path.parent / "checkpoints").is_dir() and isinstance(data.get("run"), dict):
        # Of a run directory, which may have been moved or copied since: it is the run that lies here.
        data["run"] |= {"name": path.resolve().parent.name, "output_dir": str(path.resolve().parent.parent)}
    for override in overrides:
        key = apply_override(data, override)
        origins.record(key.split("."), None)
    if data.get("run") is None:
        data["run"] = {}
    return data, origins


def parse_recipe(data: dict, origins: Origins | None = None) -> Recipe:
    """A recipe from plain data, checked.

    Args:
        origins: the file from which each key comes, for errors; None if the data comes from no file.

    Raises:
        RecipeError: a key is unknown or missing, or its value is not allowed.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(explain(error.errors()[0], origins or Origins())) from None
    check_keys_together(recipe)
    return recipe


def apply_override(data: dict, override: str) -> str:
    """Set one ``section.key=value`` in a recipe's plain data; the value is YAML. Returns the key.

    Raises:
        RecipeError: it does not have that form, or the key goes through a value that has no keys.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"{override}: an override is written section.key=value, such as optimizer.lr=1e-6")
    if key == "extends":
        raise RecipeError(f"{override}: extends belongs in a recipe file; here, give the other recipe as RECIPE")
    try:
        value = read_yaml(text)
    except YamlError as error:
        raise RecipeError(f"{override}: the value is not valid YAML ({error}); quote it") from None
    *sections, last = key.split(".")
    node: Any = data
    for section in sections:
        node = _step_into(node, section, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value
    return key


def _step_into(node: Any, section: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, section, override)]
    if node.get(section) is None:  # a section that is not there, or that a resolved recipe has as null
        node[section] = {}
    child = node[section]
    if not isinstance(child, (dict, list)):
        raise RecipeError(f"{override}: {section} is the value {child!r} and has no keys of its own")
    return child


def _index(node: list, text: str, override: str) -> int:
    if not text.isdigit() or int(text) >= len(node):
        raise RecipeError(f"{override}: there is no entry {text} in a list of {len(node)}; entries count from 0")
    return int(text)
