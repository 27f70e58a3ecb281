"""Recipe files: the bundled ones, how one is found, and reading it together with the recipes that it extends."""

import copy
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, did_you_mean, one_line
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.yaml12 import YamlError, read_yaml


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name to file; those of a subfolder as ``studies/betas``."""
    folder = Path(str(importlib.resources.files("rl_posttrain.recipes")))
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {str(file.relative_to(folder).with_suffix("")): file for file in files}


def find_recipe(name: str | Path, *, said_in: Path | None = None) -> Path:
    """The file of a recipe given by path, or by bare name when it is bundled.

    Args:
        said_in: the recipe file that extends this one; a path is relative to it.

    Raises:
        RecipeError: there is no such file, and no bundled recipe of that name.
    """
    path = Path(name).expanduser()
    told = f"RECIPE={name}: "
    if said_in is not None:
        path = said_in.parent / path
        told = f"extends={name} (in {said_in}): "
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise RecipeError(f"{told}no such file; `rl-posttrain recipes` lists the bundled ones")
        return path
    bundled = bundled_recipes()
    if str(name) not in bundled:
        raise RecipeError(f"{told}no file and no bundled recipe of that name; {did_you_mean(str(name), bundled)}")
    return bundled[str(name)]


def headline(path: Path) -> str:
    """The first comment line of a recipe file: what it shows."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def extended_by(path: Path) -> str | None:
    """The value of ``extends`` in a recipe file, as it is written there; None if there is none."""
    return _read(path).get("extends")


class Origins:
    """The file from which each key of a merged recipe comes. Keys are tuples, such as ``("optimizer", "lr")``."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, ...], Path | None] = {}

    def record(self, key: Sequence, file: Path | None) -> None:
        """Note that `key`, and everything below it, comes from `file`; None if it comes from no file."""
        key = tuple(map(str, key))
        for known in [known for known in self._files if known[: len(key)] == key]:
            del self._files[known]
        self._files[key] = file

    def file_of(self, key: Sequence) -> Path | None:
        """The file from which `key`, or the section that holds it, comes; None if it comes from no file."""
        parts = tuple(map(str, key))
        held_in = (parts[:length] for length in range(len(parts), 0, -1))
        return next((self._files[part] for part in held_in if part in self._files), None)


def read_recipe(path: Path) -> tuple[dict[str, Any], Origins]:
    """The data of a recipe file, merged over the recipes that it extends; and the file from which each key comes.

    Mappings are merged key by key. A list or a single value replaces the earlier one. null removes a key of an earlier
    file. `run.name` is not inherited. A file that extends nothing gets no origins, since there is only one place to
    look.

    Raises:
        RecipeError: a file is missing, a file is not a recipe, or the recipes extend each other in a circle.
    """
    chain = _chain(path)
    data, origins = {}, Origins()
    for file, own in reversed(chain):
        if file is not path and isinstance(own.get("run"), dict):
            own["run"].pop("name", None)
        _merge(data, own, file, origins, ())
    return data, origins if len(chain) > 1 else Origins()


def _chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The recipe file, the file that it extends, the one which that extends, and so on; each with its own data."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        data = _read(path)
        seen = [file for file, _ in chain]
        if path.resolve() in [file.resolve() for file in seen]:
            circle = " -> ".join(file.name for file in (*seen, path))
            raise RecipeError(
                f"extends={path.name}: the recipes extend each other in a circle ({circle}); remove one of the extends"
            )
        parent = data.pop("extends", None)
        chain.append((path, data))
        if parent is None:
            return chain
        if not isinstance(parent, str):
            raise RecipeError(f"extends={parent} (in {path}): it should be one name or path; set such a value")
        path = find_recipe(parent, said_in=path)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except (YamlError, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"RECIPE={path}: cannot be read as YAML: {one_line(error)}; correct the file") from error
    if not isinstance(data, dict):
        raise RecipeError(f"RECIPE={path}: a recipe is a mapping of sections ({', '.join(Recipe.model_fields)})")
    return data


def _merge(into: dict, data: dict, file: Path, origins: Origins, held_in: tuple[str, ...]) -> None:
    for key, value in data.items():
        place = (*held_in, str(key))
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, file, origins, place)
        elif value is None and key in into:
            del into[key]
            origins.record(place, file)
        else:
            into[key] = copy.deepcopy(value)
            origins.record(place, file)
