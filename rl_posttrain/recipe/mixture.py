"""A mixture of tasks: each part is a task of its own, and their rows are mixed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.task_section import OneTaskSection, PartSection, TaskSection
from rl_posttrain.tasks.filters import CountTokens
from rl_posttrain.tasks.mixture import mix
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.turns import counts

MIXTURE = "mixture"
# What a part takes from the mixture where it does not say it itself.
_INHERITED = ("num_eval", "template", "system", "eval_share", "max_overlap")


class PartSpec(Protocol):
    """The `TaskSpec` of a part."""

    name: str
    version: str

    def make_rows(self, prompts_per_step: int, count_tokens: CountTokens | None) -> TaskRows:
        """The rows of the part, with their prompts."""


@dataclass(frozen=True)
class Mixture:
    """The function of a mixture's `TaskSpec`.

    Attributes:
        labels, weights: of the parts.
        specs: of the parts; each is asked for its share of `num_train`.
        num_train: training rows of all parts together; None for as many as there can be.
    """

    labels: Sequence[str]
    weights: Sequence[float]
    specs: Sequence[PartSpec]
    num_train: int | None

    def __call__(self, *, trained_on: bool, count_tokens: CountTokens | None) -> TaskRows:
        made = {}
        for place, (label, spec) in enumerate(zip(self.labels, self.specs, strict=True)):
            try:
                made[label] = spec.make_rows(int(trained_on), count_tokens)
            except RecipeError as error:
                raise type(error)(_in_part(str(error), place)) from error
        return mix(made, self.weights, self.num_train)


def resolve_mixture(section: TaskSection, resolve_part: Callable[[OneTaskSection], PartSpec]) -> Mixture:
    """The mixture that a section describes.

    Args:
        resolve_part: makes the spec of one part.

    Raises:
        RecipeError: it has fewer than two parts, two of one label, a key of its own that only parts have, or a part
            cannot be resolved.
    """
    labels = [part.called for part in section.parts]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise RecipeError(
            f"task.parts={labels}: a mixture has two parts or more, each with another name; list tasks, and give those "
            "of the same name a label"
        )
    if section.options:
        key, value = next(iter(section.options.items()))
        raise RecipeError(f"task.{key}={value}: a mixture has no such option; set it in one of task.parts")
    weights = [part.weight for part in section.parts]
    shares = [None] * len(labels) if section.num_train is None else counts(weights, section.num_train)
    if 0 in shares:
        raise RecipeError(
            f"task.num_train={section.num_train}: {labels[shares.index(0)]} would give no row by its weight; raise one "
            "of them"
        )
    specs = []
    for place, part in enumerate(section.parts):
        if part.name == MIXTURE:
            raise RecipeError(f"task.parts.{place}.name={MIXTURE}: a part is a task of its own; list its parts here")
        if section.num_train is not None and part.num_train is not None:
            raise RecipeError(
                f"task.parts.{place}.num_train={part.num_train}: task.num_train={section.num_train} and the weights "
                "decide it; keep one of the two"
            )
        try:
            specs.append(resolve_part(_whole(part, section, shares[place])))
        except RecipeError as error:
            raise type(error)(_in_part(str(error), place)) from error
    return Mixture(labels, weights, specs, section.num_train)


def _whole(part: PartSection, section: TaskSection, num_train: int | None) -> OneTaskSection:
    """The section of a part with what it takes from the mixture."""
    said = part.model_dump(exclude_unset=True, exclude={"weight", "label"})
    inherited = {name: getattr(section, name) for name in _INHERITED if name in section.model_fields_set}
    return OneTaskSection(**inherited | ({} if num_train is None else {"num_train": num_train}) | said)


def _in_part(message: str, place: int) -> str:
    """An error of a part, which names its key where the recipe has it."""
    return f"task.parts.{place}.{message.removeprefix('task.')}" if message.startswith("task.") else message
