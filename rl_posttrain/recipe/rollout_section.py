"""The section `rollout` of a recipe: how completions are drawn, and by which engine."""

from typing import Annotated, Literal

from pydantic import Field

from rl_posttrain.recipe.section import Positive, Section


class RolloutSection(Section):
    engine: Literal["vllm", "transformers"] = "vllm"
    max_new_tokens: Positive
    temperature: Annotated[float, Field(ge=1e-6, le=100)] = 1.0  # beyond, logits are infinite or all the same
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    gpu_memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_logprob_difference: Annotated[float, Field(gt=0)] = 0.15
