"""What a task returns, and a check of whole-number options that tasks share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.templates import Example


@dataclass(frozen=True)
class TaskRows:
    """Rows to train on and rows to evaluate on; they have no question in common.

    A row has `question` (text), of which the recipe's template makes the prompt; or `prompt`, ready, as text or as chat
    messages. It has `answer`, the gold answer as text, or None where the task's own reward needs none. Further columns
    reach rewards by name.

    Attributes:
        train, eval: the rows. A task that is only for evaluation has none to train on.
        request: the form that a reply should have, such as "Answer with the final number."; templates for chat add it
            to the question.
        examples: solved questions that stand at the start of every prompt.
        notes: what a user should know about the rows, a sentence each.
        template: the template that made the prompts; set by `prepare.render_rows`, None where they came ready.
        parts: of a mixture, the columns of each part's own rows, by its label.
    """

    train: list[dict[str, Any]]
    eval: list[dict[str, Any]]
    request: str = ""
    examples: Sequence[Example] = ()
    notes: tuple[str, ...] = ()
    template: str | None = None
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Raise RecipeError unless the task option `name` is `minimum` or more."""
    if value < minimum:
        raise RecipeError(f"task.{name}={value}: must be {minimum} or more; raise it to {minimum} at least")
