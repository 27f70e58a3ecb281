"""The section `rollout` of a recipe: how completions are drawn, and by which engine."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl_posttrain.recipe.importance import with_importance
from rl_posttrain.recipe.section import Listed, NonNegative, Positive, Section

Address = Annotated[str, Field(pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?$")]
Host = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+|[0-9A-Fa-f:]+)$")]
Seconds = Annotated[float, Field(gt=0)]


class RolloutSection(Section):
    engine: Literal["vllm", "transformers", "vllm_server"] = "vllm"
    max_new_tokens: Positive
    temperature: Annotated[float, Field(ge=1e-6, le=100)] = 1.0  # beyond, logits are infinite or all the same
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    gpu_memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_logprob_difference: Annotated[float, Field(gt=0)] = 0.15
    servers: Listed[Address] = ()
    weights_folder: str | None = None  # None: memory that the processes of this host share
    weight_transfer: Literal["files", "gloo", "nccl"] = "files"
    trainer_address: Host | None = None  # None: this host's address on the way to each server
    server_timeout_s: Seconds = 300.0
    server_lease_s: Seconds = 60.0
    max_staleness: NonNegative = 0
    importance_correction: Literal["none", "tis", "mis", "icepop", "sequence_mask"] = "none"
    importance_min: Annotated[float, Field(gt=0)] | None = None
    importance_max: Annotated[float, Field(gt=0)] | None = None

    _fill_in_the_correction = model_validator(mode="before")(with_importance)
