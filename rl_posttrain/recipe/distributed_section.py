"""The section `distributed` of a recipe: how a policy and its optimizer are spread over processes."""

from typing import Annotated, Literal

from rl_posttrain.recipe.section import NoBoolean, Section


class DistributedSection(Section):
    engine: Literal["deepspeed", "none"] = "deepspeed"
    zero_stage: Annotated[Literal[0, 1, 2, 3], NoBoolean] = 2
