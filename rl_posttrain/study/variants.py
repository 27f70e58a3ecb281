"""Variants: runs whose recipes differ in nothing but the seed and what is recorded or shown. Each has one name.

The name is in the names of run directories, in the live view, verdicts, tables, the page, JSON and ``--baseline``.
It starts with the optimizer; keys of the recipe follow, as in ``adamw-betas=0.9,0.95-lr=2e-5``. It has letters, digits
and the characters ``. _ - = ,`` alone, so that it can be a folder and needs no quotes in a shell.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Sections whose keys make no other variant: which run it is, what is kept of it, and what is shown of it.
SAME_VARIANT = ("run", "checkpoint", "logging", "eval", "compare")


def variant_keys(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe that make the variant, in full (``optimizer.lr``), with their values; null ones left out."""
    flat: dict[str, Any] = {}

    def add(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                add(value, f"{prefix}{key}.")
            elif value is not None:
                flat[prefix + key] = value

    add({section: node for section, node in recipe.items() if section not in SAME_VARIANT}, "")
    return flat


def variant_name(keys: Mapping[str, Any], named: Iterable[str]) -> str:
    """The name of a variant: its optimizer, then each key of `named` that its recipe has, with the value.

    Args:
        keys: as `variant_keys` gives them.
        named: keys in full; one that holds a mapping stands for all keys in it.
    """
    # Of a user's own class the name of the class is enough, without its file.
    parts = [str(keys.get("optimizer.name", "run")).rpartition(":")[2]]
    for name in named:
        found = [key for key in keys if key == name or key.startswith(f"{name}.")]
        parts += [f"{short_key(key)}={value_text(keys[key])}" for key in found]
    return re.sub(r"[^A-Za-z0-9._=,-]+", "-", "-".join(parts)).strip("._=,-") or "run"


def variants_of_runs(runs: Sequence[tuple[str, int | None, Mapping[str, Any]]]) -> list[str]:
    """The variant of each run.

    A variant whose runs are all called ``NAME-seed0``, ``NAME-seed1`` and so on is NAME: `compare` names runs so. Any
    other is named after the keys that tell its recipe from those of the others.

    Args:
        runs: of each run its name, its seed and its recipe.
    """
    keys = [variant_keys(recipe) for _, _, recipe in runs]
    marks = [json.dumps(found, sort_keys=True, default=str) for found in keys]
    recipes = dict(zip(marks, keys, strict=True))  # one for each variant
    given: dict[str, set[str | None]] = {mark: set() for mark in recipes}
    for mark, (name, seed, _) in zip(marks, runs, strict=True):
        stem = name.removesuffix(f"-seed{seed}")
        given[mark].add(stem if stem != name else None)
    told_apart = dict(zip(recipes, _tell_apart(list(recipes.values())), strict=True))
    taken = [stem for stems in given.values() for stem in stems]
    names = {}
    for mark, stems in given.items():
        (stem, *others) = stems
        usable = stem is not None and not others and taken.count(stem) == 1
        names[mark] = not_yet_taken(stem if usable else told_apart[mark], names.values())
    return [names[mark] for mark in marks]


def not_yet_taken(name: str, taken: Iterable[str]) -> str:
    """`name`, with the first number from 2 that makes it differ from all that are taken."""
    taken, number, free = set(taken), 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _tell_apart(recipes: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each recipe, with those keys that are needed to tell it from the others, and no more."""
    named: list[list[str]] = [[] for _ in recipes]
    for key in dict.fromkeys(key for recipe in recipes for key in recipe):
        values: dict[str, set[str]] = {}
        labels = [variant_name(recipe, keys) for recipe, keys in zip(recipes, named, strict=True)]
        for label, recipe in zip(labels, recipes, strict=True):
            values.setdefault(label, set()).add(json.dumps(recipe.get(key), default=str))
        for label, recipe, keys in zip(labels, recipes, named, strict=True):
            if len(values[label]) > 1 and key in recipe:
                keys.append(key)
    return [variant_name(recipe, keys) for recipe, keys in zip(recipes, named, strict=True)]


def short_key(key: str) -> str:
    """``lr`` for ``optimizer.lr``; ``algorithm`` for ``algorithm.name``; in full where a critic has the same."""
    if key in ("algorithm.name", "critic.warmup_steps") or key.startswith("critic.optimizer."):
        return key.removesuffix(".name")
    return key.rpartition(".")[2]


def value_text(value: Any) -> str:
    """A value as it stands in names and on the command line: 2e-5, true, 0.9,0.95."""
    if isinstance(value, float):
        return repr(value).replace("e+", "e").replace("e-0", "e-")  # 2e-05 is written 2e-5
    if isinstance(value, list | tuple):
        return ",".join(map(value_text, value))
    return json.dumps(value) if isinstance(value, bool) else str(value)
