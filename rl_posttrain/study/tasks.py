"""Which task a run's rewards are of, and whether runs may be compared without saying so.

Rewards of different tasks, or of other reward functions, are different numbers. Such runs are refused, unless the user
pools them on purpose; several_tasks.py judges them then.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RunError
from rl_posttrain.study.variants import short_key, value_text, variant_keys

# Keys of a task that make no other task: rewards of such runs can be compared.
SAME_TASK = ("task.num_train", "task.num_eval", "task.eval_share", "task.max_overlap", "task.max_unreadable_golds")


def task_keys(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe that make the task that rewards are of: its rows, its prompts and what is rewarded."""
    return {
        key: value
        for key, value in variant_keys(recipe).items()
        if key.partition(".")[0] in ("task", "rewards") and key not in SAME_TASK
    }


def task_names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each recipe's task: its own, and the keys that tell it from others of that name."""
    keys = [task_keys(recipe) for recipe in recipes]
    names = [str(found.get("task.name", "task")) for found in keys]
    alike = {name: [found for found, own in zip(keys, names, strict=True) if own == name] for name in names}

    def told(name: str, found: Mapping[str, Any]) -> str:
        others = alike[name]
        differing = [key for key in found if any(other.get(key) != found[key] for other in others)]
        parts = [f"{short_key(key)}={_value_text(found[key])}" for key in differing]
        return re.sub(r"[^\w.,=+*/-]+", "-", "-".join([name, *parts]))

    return [told(name, found) for name, found in zip(names, keys, strict=True)]


def tasks_of(runs: Sequence) -> list[str]:
    """The task of each run; all are empty where they have one task.

    Of another program's run it is what the user's pattern said, or else its folder's name.

    Args:
        runs: histories, or absent runs.
    """
    own = [run for run in runs if run.recipe]
    names = iter(task_names([run.recipe for run in own]))
    found = [next(names) if run.recipe else run.task or run.path.resolve().parent.name for run in runs]
    return found if len(set(found)) > 1 else [""] * len(found)


def refuse_different_tasks(runs: Sequence) -> None:
    """Refuse runs whose rewards are of different tasks.

    Args:
        runs: histories, or absent runs; those without a recipe are not looked at.

    Raises:
        RunError: two runs have different tasks or rewards.
    """
    said = {run.task: run.path for run in runs if run.task}
    if len(said) > 1:
        (one, first), (other, second) = list(said.items())[:2]
        raise RunError(
            f"--group: {first} is of task {one} and {second} of {other}, so their rewards cannot be compared; report "
            "them separately, or set --pool-tasks for one verdict over tasks"
        )
    known = [(run.path, task_keys(run.recipe)) for run in runs if run.recipe]
    for path, task in known[1:]:
        first, before = known[0]
        for key in dict.fromkeys([*before, *task]):
            if before.get(key) != task.get(key):
                raise RunError(
                    f"{key}={shown_value(task.get(key))}: {path} has another task or other rewards than {first} "
                    f"({key}={shown_value(before.get(key))}), so their rewards cannot be compared; report them "
                    "separately, or set --pool-tasks for one verdict over tasks"
                )


def shown_value(value: Any) -> str:
    """A value of a recipe in a message or a table."""
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value)


def _value_text(value: Any) -> str:
    """As `value_text`; of rewards their functions and weights."""
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return "+".join(f"{one.get('weight', 1)}*{str(one.get('fn')).rpartition(':')[2]}" for one in value)
    return value_text(value)
