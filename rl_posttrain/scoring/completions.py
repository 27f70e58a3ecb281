"""Completions and the rewards they earn."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RewardError
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.rewards import Reward, call_together
from rl_posttrain.scoring.usable import is_usable, what_is_wrong


def score(completions: Sequence[Completion], rewards: Sequence[Reward], **options: Any) -> None:
    """Call every reward once with all completions, and fill `rewards` and `reward` of each.

    Args:
        rewards: of the recipe, with their weights.
        **options: what TRL hands to rewards beside columns, such as `trainer_state`, `log_metric` and `log_extra`.

    Raises:
        RewardError: as `Reward`; or a weighted sum is so large that no advantage can be made of it.
    """
    arguments = reward_arguments(completions)
    for reward, values in zip(rewards, call_together(rewards, **arguments, **options), strict=True):
        for completion, value in zip(completions, values, strict=True):
            completion.rewards[reward.spec.name] = value
    weights = {reward.spec.name: reward.spec.weight for reward in rewards}
    for completion in completions:
        known = [weights[name] * value for name, value in completion.rewards.items() if value is not None]
        completion.reward = sum(known) if known else None
        if not is_usable(completion.reward) and all(map(is_usable, completion.rewards.values())):
            raise RewardError(
                f"rewards: their weighted sum is {what_is_wrong(completion.reward)}, of {completion.rewards} on the "
                f"completion {completion.text!r:.100}; lower rewards.N.weight"
            )


def reward_arguments(completions: Sequence[Completion]) -> dict[str, list]:
    """Prompts, replies, token ids and the task's columns, by the names under which TRL hands them to a reward."""
    columns: Mapping[str, Any] = completions[0].row
    named = {name: [completion.row[name] for completion in completions] for name in columns if name != "prompt"}
    return named | {
        "prompts": [completion.row["prompt"] for completion in completions],
        "completions": [completion.reply for completion in completions],
        "completion_ids": [completion.token_ids for completion in completions],
    }
