"""GRPO: a completion's advantage is its reward less the mean of its group (arXiv:2402.03300).

`algorithm.scale_rewards` divides by the standard deviation of the group or of the batch, or by nothing
(Dr. GRPO, arXiv:2503.20783).
"""

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.algorithms.algorithm import Advantages, Scored

_EPS = 1e-4  # as TRL adds it to the standard deviation


class GRPO:
    """Group-relative advantages, one a completion.

    Several rewards are summed by weight and then normalized, or with
    ``trl.multi_objective_aggregation: normalize_then_sum`` normalized in each group, summed, and normalized over the
    batch (GDPO, arXiv:2601.05242).

    A group of four rewards 1, 0, 0, 0 has mean 1/4 and standard deviation 1/2:

    >>> import torch
    >>> rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> [round(value, 3) for value in group_advantages(rewards, 4, scale="none")[0].tolist()]
    [0.75, -0.25, -0.25, -0.25]
    >>> [round(value, 3) for value in group_advantages(rewards, 4, scale="group")[0].tolist()]
    [1.5, -0.5, -0.5, -0.5]
    """

    min_group_size = 2

    def __init__(self, recipe: Recipe):
        self._scale = recipe.algorithm.scale_rewards
        self._sums_first = recipe.trl.get("multi_objective_aggregation", "sum_then_normalize") == "sum_then_normalize"

    def advantages(self, scored: Scored) -> Advantages:
        """(B,) advantages; a completion that no reward judged has the advantage 0."""
        if self._sums_first:
            values, deviation = group_advantages(scored.totals(), scored.group_size, scale=self._scale)
        else:
            unjudged = scored.rewards.isnan().all(dim=1)
            groups = scored.rewards.view(-1, scored.group_size, scored.rewards.size(1))
            normalized = (groups - groups.nanmean(dim=1, keepdim=True)) / (nan_std(groups, 1) + _EPS)
            rewards = (
                (normalized.view_as(scored.rewards) * scored.weights).nansum(dim=1).masked_fill(unjudged, torch.nan)
            )
            deviation = nan_std(rewards.view(1, -1), 1).expand(len(rewards), 1).squeeze(1)
            values = (rewards - rewards.nanmean()) / (deviation + _EPS)
        equal = torch.isclose(deviation, torch.zeros_like(deviation))
        return Advantages(scored.own(values.nan_to_num(nan=0.0)), {"frac_zero_variance": equal.float().mean().item()})


def group_advantages(rewards: torch.Tensor, group_size: int, *, scale: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards less their group's mean, over a standard deviation.

    Args:
        rewards: (N,) float32; NaN counts in no mean.
        group_size: G, a divisor of N.
        scale: what they are divided by: the standard deviation of the ``group``, of the ``batch``, or ``none``.

    Returns:
        Advantages (N,), and the standard deviation (N,) of the group, or of the batch for ``batch``.
    """
    groups = rewards.view(-1, group_size)
    mean = groups.nanmean(dim=1).repeat_interleave(group_size)
    if scale == "batch":
        deviation = nan_std(rewards.view(1, -1), 1).squeeze(1).expand(len(rewards))
    else:
        deviation = nan_std(groups, 1).squeeze(1).repeat_interleave(group_size)
    centred = rewards - mean
    return (centred if scale == "none" else centred / (deviation + _EPS)), deviation


def nan_std(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation along `dim`, which stays with size 1, over n - 1; NaN values are left out."""
    count = (~values.isnan()).sum(dim=dim, keepdim=True)
    squares = (values - values.nanmean(dim=dim, keepdim=True)).square().nanmean(dim=dim, keepdim=True)
    return (squares * torch.where(count > 1, count / (count - 1), torch.nan)).sqrt()
