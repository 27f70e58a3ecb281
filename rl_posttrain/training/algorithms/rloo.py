"""RLOO: a completion's advantage is its reward less the mean reward of the others of its group (arXiv:2402.14740)."""

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.algorithms.algorithm import Advantages, Scored


class RLOO:
    """REINFORCE with a leave-one-out baseline, one advantage a completion. Nothing is divided by a deviation."""

    min_group_size = 2

    def __init__(self, recipe: Recipe):
        pass

    def advantages(self, scored: Scored) -> Advantages:
        """(B,) advantages; a completion that no reward judged, or that is the only judged one, has the advantage 0."""
        values = leave_one_out(scored.totals(), scored.group_size).nan_to_num(nan=0.0)
        return Advantages(scored.own(values))


def leave_one_out(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Rewards less the mean of the others of their group.

    The others of a 1 among three zeros have mean 0; those of a 0 have mean 1/3:

    >>> [round(value, 3) for value in leave_one_out(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4).tolist()]
    [1.0, -0.333, -0.333, -0.333]

    Args:
        rewards: (N,) float32; NaN counts in no mean.
        group_size: G, a divisor of N.

    Returns:
        (N,) float32; NaN where the reward is NaN or no other one is there.
    """
    groups = rewards.view(-1, group_size)
    others = (~groups.isnan()).sum(dim=1, keepdim=True) - 1
    total = groups.nansum(dim=1, keepdim=True)
    return (groups - (total - groups) / torch.where(others > 0, others, torch.nan)).flatten()
