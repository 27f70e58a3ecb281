"""How a recipe says that completions are drawn, in rollouts and in evaluations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rl_posttrain.recipe.rollout_section import RolloutSection
from rl_posttrain.recipe.schema import EvalSection
from rl_posttrain.rollout.engine import Sampling


def rollout_sampling(section: RolloutSection, trl: Mapping[str, Any]) -> Sampling:
    """How rollouts are drawn.

    Args:
        trl: the recipe's `trl` section; it may say top_k, min_p, repetition_penalty and generation_kwargs.
    """
    return Sampling(
        max_tokens=section.max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
        top_k=trl.get("top_k", 0),
        min_p=trl.get("min_p") or 0.0,
        repetition_penalty=trl.get("repetition_penalty", 1.0),
        other=trl.get("generation_kwargs") or {},
    )


def evaluation_sampling(evaluation: EvalSection, rollout: Sampling) -> Sampling:
    """How an evaluation draws: as rollouts do, but for what the `eval` section says."""
    own = {
        "max_tokens": evaluation.max_new_tokens,
        "temperature": evaluation.temperature,
        "top_p": evaluation.top_p,
    }
    return dataclasses.replace(rollout, **{name: value for name, value in own.items() if value is not None})
