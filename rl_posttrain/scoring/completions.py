"""Completions and the rewards they earn."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.rewards import Reward, call_together


def score(completions: Sequence[Completion], rewards: Sequence[Reward], **options: Any) -> None:
    """Call every reward once with all completions, and fill `rewards` and `reward` of each.

    Args:
        rewards: of the recipe, with their weights.
        **options: what TRL hands to rewards beside columns, such as `trainer_state`, `log_metric` and `log_extra`.
    """
    arguments = reward_arguments(completions)
    for reward, values in zip(rewards, call_together(rewards, **arguments, **options), strict=True):
        for completion, value in zip(completions, values, strict=True):
            completion.rewards[reward.spec.name] = value
    weights = {reward.spec.name: reward.spec.weight for reward in rewards}
    for completion in completions:
        known = [weights[name] * value for name, value in completion.rewards.items() if value is not None]
        completion.reward = sum(known) if known else None


def reward_arguments(completions: Sequence[Completion]) -> dict[str, list]:
    """Prompts, replies, token ids and the task's columns, by the names under which TRL hands them to a reward."""
    columns: Mapping[str, Any] = completions[0].row
    named = {name: [completion.row[name] for completion in completions] for name in columns if name != "prompt"}
    return named | {
        "prompts": [completion.row["prompt"] for completion in completions],
        "completions": [completion.reply for completion in completions],
        "completion_ids": [completion.token_ids for completion in completions],
    }
