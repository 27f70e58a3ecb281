"""Paths in a recipe, made whole once, when it is loaded: `~`, environment variables and the working directory.

So a run's recipe.yaml means the same from everywhere, and no later part reads a path in another way.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
_TEXT_FILES = (".txt", ".jinja", ".j2")
_DATA_FILES = (".jsonl", ".json", ".parquet", ".csv")


def make_paths_whole(data: dict[str, Any]) -> None:
    """Make every path in a recipe's plain data absolute, in place. Names of the hub and of built-ins stay.

    Values of a wrong type stay, too: checking them is for the schema.

    Raises:
        RecipeError: a path has an environment variable that is not set, or begins with ~ and a user who is not there.
    """
    for section, key, name, is_path in _places(data):
        value = section.get(name)
        if isinstance(value, str) and value:
            section[name] = is_path(value, key)


def _places(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str, Any]]:
    """Each key that may hold a path: its section, its name in full, its name there, and how its value is read."""
    for key, read in (
        ("run.output_dir", whole_path),
        ("model.name", _path_or_name),
        ("critic.model", _path_or_name),
        ("algorithm.name", _code),
        ("rollout.weights_folder", whole_path),
        ("optimizer.name", _code),
        ("critic.optimizer.name", _code),
    ):
        *above, name = key.split(".")
        yield _section(data, *above), key, name, read
    for place, reward in enumerate(_list(data.get("rewards"))):
        yield reward, f"rewards.{place}.fn", "fn", _code
    task = _section(data, "task")
    parts = _list(task.get("parts"))
    for section, prefix in ((task, "task"), *((part, f"task.parts.{place}") for place, part in enumerate(parts))):
        yield section, f"{prefix}.name", "name", _code
        for name in ("path", "eval_path"):
            yield section, f"{prefix}.{name}", name, _path_or_name
        for name in ("template", "system"):
            yield section, f"{prefix}.{name}", name, _text_file
        difficulty = _section(section, "filter", "difficulty")
        yield difficulty, f"{prefix}.filter.difficulty.results", "results", whole_path


def whole_path(text: str, key: str) -> str:
    """The absolute path that a text means, with its ~ and its environment variables filled in.

    Raises:
        RecipeError: one of them means nothing here.
    """
    for match in _VARIABLE.finditer(text):
        if match[1].strip("{}") not in os.environ:
            raise RecipeError(f"{key}={text}: the environment variable {match[1]} is not set; set it, or write a path")
    whole = os.path.expanduser(_VARIABLE.sub(lambda match: os.environ[match[1].strip("{}")], text))
    if whole.startswith("~"):
        raise RecipeError(f"{key}={text}: there is no user {whole.partition('/')[0]}; write an absolute path")
    return os.path.abspath(whole)


def _path_or_name(text: str, key: str) -> str:
    looks_like_path = text.startswith(("~", "$", ".", "/")) or text.lower().endswith(_DATA_FILES)
    return whole_path(text, key) if looks_like_path or os.path.exists(text.partition("\0")[0]) else text


def _text_file(text: str, key: str) -> str:
    """A system message is a text or the name of a file; a text has spaces or no such ending."""
    is_file = text.endswith(_TEXT_FILES) and not any(space in text for space in "\n\t")
    return whole_path(text, key) if is_file else text


def _code(text: str, key: str) -> str:
    """``file.py:name``; other code is named by its module."""
    file, separator, name = text.rpartition(":")
    return f"{whole_path(file, key)}:{name}" if separator and file.endswith(".py") else text


def _section(data: Any, *names: str) -> dict[str, Any]:
    """The section inside of others; an empty one, which belongs to nothing, where there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    """The entries of a list of sections; an entry that is none counts, as an empty section."""
    return [entry if isinstance(entry, dict) else {} for entry in value] if isinstance(value, list) else []


def shown(path: str | Path) -> Path:
    """A path as it is told: from the working directory, where it lies below that."""
    path, here = Path(path), Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) and path != here else path
