"""The section `distributed` of a recipe: how a policy and its optimizer are spread over processes."""

from typing import Annotated, Any, Literal

from pydantic import model_validator

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.section import NoBoolean, Section


class DistributedSection(Section):
    engine: Literal["deepspeed", "fsdp2", "none"] = "deepspeed"
    zero_stage: Annotated[Literal[0, 1, 2, 3], NoBoolean] | None = None  # None: 2 under DeepSpeed, and no stage else
    offload: Literal["none", "optimizer", "parameters"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_stage(cls, data: Any) -> Any:
        """DeepSpeed has a stage, so that the resolved recipe says which."""
        if isinstance(data, dict) and data.get("zero_stage") is None and data.get("engine", "deepspeed") == "deepspeed":
            return data | {"zero_stage": 2}
        return data


def check_distributed(section: DistributedSection) -> None:
    """Fail on keys of the section that have no meaning together.

    Raises:
        RecipeError: names the key, its value and what goes together.
    """
    engine, stage, offload = section.engine, section.zero_stage, section.offload
    if engine == "fsdp2" and stage is not None:
        raise RecipeError(
            f"distributed.zero_stage={stage}: stages are DeepSpeed's, and distributed.engine=fsdp2 shards weights, "
            "gradients and optimizer state; set distributed.zero_stage=null, or leave it out"
        )
    if offload == "none":
        return
    said = f"distributed.offload={offload}"
    if engine == "none":
        raise RecipeError(
            f"{said}: distributed.engine=none keeps everything on the device; set distributed.engine=deepspeed or "
            "fsdp2, or offload=none"
        )
    if engine == "fsdp2" and offload == "optimizer":
        raise RecipeError(
            f"{said}: under distributed.engine=fsdp2 the weights are the optimizer's own, and no second copy of them "
            "could stay on the device; set offload=parameters"
        )
    if engine == "deepspeed" and stage == 0:
        raise RecipeError(
            f"{said}: DeepSpeed offloads what it shards, and distributed.zero_stage=0 shards nothing; set 1, 2 or 3"
        )
    if engine == "deepspeed" and offload == "parameters" and stage != 3:
        raise RecipeError(
            f"{said}: DeepSpeed offloads weights at distributed.zero_stage=3 alone, not {stage}; set zero_stage=3, or "
            "offload=optimizer"
        )
