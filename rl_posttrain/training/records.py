"""What a step leaves behind: its metrics row and its rollouts, under the names of docs/metrics.md."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.scoring.evaluation import shares_of_full_credit
from rl_posttrain.scoring.rewards import judging_rewards

# Our name for each of TRL's; what TRL does not log in a run is left out.
_FROM_TRL = {
    "completion_length": "completions/mean_length",
    "truncated_share": "completions/clipped_ratio",
    "entropy": "entropy",
    "kl": "kl",
    "frac_zero_variance": "frac_reward_zero_std",
    "tokens": "num_tokens",
}
# What the trainer adds to TRL's under the same names.
_OURS = ("sampling_logprob_difference", "skipped_share", "resampled_share")


def metrics_row(
    step: int,
    logs: Mapping[str, float],
    trl_metrics: Mapping[str, list[float]],
    rollouts: list[dict],
    specs: Sequence[RewardSpec],
) -> dict[str, Any]:
    """One row of metrics.jsonl, but for the seconds.

    Args:
        step: the update that has just been made, from 1.
        logs: what transformers logs a step: loss, grad_norm, learning_rate.
        trl_metrics: TRL's metric lists, one value a micro batch.
        rollouts: the step's rollout rows.
        specs: the recipe's rewards.
    """
    row: dict[str, Any] = {"step": step, "reward": _mean([rollout["reward"] for rollout in rollouts])}
    for reward in specs:
        row[f"rewards/{reward.name}"] = _mean([rollout["rewards"][reward.name] for rollout in rollouts])
    row |= shares_of_full_credit([rollout["rewards"] for rollout in rollouts], *judging_rewards(specs))
    row["prompts_sha256"] = _digest([rollout["prompt"] for rollout in rollouts])
    row |= {"loss": logs["loss"], "grad_norm": logs.get("grad_norm"), "lr": logs.get("learning_rate")}
    for ours, theirs in (_FROM_TRL | {name: name for name in _OURS}).items():
        if theirs in trl_metrics:
            row[ours] = _mean(trl_metrics[theirs])
    # What rewards log themselves stands under their names.
    names = {reward.name for reward in specs}
    row |= {key: _mean(values) for key, values in trl_metrics.items() if key.partition("/")[0] in names}
    return row


def rollout_rows(
    step: int,
    trl_logs: Mapping[str, Any],
    answers: Sequence[str | None],
    lengths: Sequence[int],
    weights: Sequence[float],
    max_new_tokens: int,
) -> list[dict]:
    """The completions of one step as rollouts/ keeps them, in the order in which groups stand.

    Args:
        trl_logs: TRL's record of the last generation: prompt, completion, rewards by name, advantages.
        answers: the golds, one a completion.
        lengths: tokens of each completion, its end included.
        weights: of the rewards, in TRL's order.
    """
    rows = []
    for place, (prompt, completion, answer, length) in enumerate(
        zip(trl_logs["prompt"], trl_logs["completion"], answers, lengths, strict=True)
    ):
        rewards = {name: _number(values[place]) for name, values in trl_logs["rewards"].items()}
        known = [weight * value for weight, value in zip(weights, rewards.values(), strict=True) if value is not None]
        rows.append(
            {
                "step": step,
                "prompt": prompt,
                "completion": completion,
                "answer": answer,
                "rewards": rewards,
                "reward": sum(known) if known else None,
                "advantage": trl_logs["advantages"][place],
                "num_tokens": length,
                "at_limit": length >= max_new_tokens,
            }
        )
    return rows


def _digest(prompts: list) -> str:
    """The first 16 digits of a SHA-256 over prompts in their order: runs that were asked the same have the same."""
    return hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:16]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None
