"""What a task returns, and a check of whole-number options that tasks share."""

from dataclasses import dataclass
from typing import Any

from rl_posttrain.errors import RecipeError


@dataclass(frozen=True)
class TaskRows:
    """Rows to train on and rows to evaluate on; they have no question in common."""

    train: list[dict[str, Any]]
    eval: list[dict[str, Any]]


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Raise RecipeError unless the task option `name` is `minimum` or more."""
    if value < minimum:
        raise RecipeError(f"task.{name}={value}: must be {minimum} or more; raise it to {minimum} at least")
