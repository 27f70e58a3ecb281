"""The section `task` of a recipe: which rows there are, which of them a run uses, and in what order."""

from typing import Annotated

from pydantic import Field

from rl_posttrain.recipe.section import Listed, NonNegative, OpenSection, Positive, Section


class DifficultySection(Section):
    """Which training rows are neither too easy nor too hard; the bounds count as within."""

    min: float | None = None
    max: float | None = None
    column: str | None = None
    results: str | None = None  # the folder of an evaluation on these questions


class FilterSection(Section):
    """Which rows are left out."""

    max_prompt_tokens: Positive | None = None
    difficulty: DifficultySection | None = None


class OneTaskSection(OpenSection):
    """A task; further keys are its own options."""

    name: str
    num_train: Positive | None = None
    num_eval: NonNegative | None = None
    template: str | None = None  # None: the task's own
    system: str | None = None
    eval_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_overlap: Annotated[float, Field(ge=0, le=1)] = 0.05
    filter: FilterSection | None = None


class PartSection(OneTaskSection):
    """A task of a mixture. What it does not say of template, system and held-out rows, the mixture says."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    label: str | None = None  # None: the name, or the function's in ``file.py:function``

    @property
    def called(self) -> str:
        """What the column `task` of its rows holds."""
        return self.label or self.name.rpartition(":")[2]


class TaskSection(OneTaskSection):
    parts: Listed[PartSection] = ()  # of the task `mixture`
    order_by: str | None = None  # None: shuffled anew in every pass
    max_unreadable_golds: Annotated[float, Field(ge=0, le=1)] = 0.01
