"""REINFORCE++: rewards normalized over the whole batch, without groups; and its form with a group baseline.

arXiv:2501.03262. Both are trained with PPO's clipped loss, as all algorithms here.
"""

import dataclasses

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.algorithms.algorithm import Advantages, Scored

_EPS = 1e-8


class ReinforcePP:
    """A token's advantage is what its completion still gets, normalized over all tokens of the batch.

    That is the reward, less the KL penalty of this token and those after it.

    Completions of one token each, with rewards 1, 0, 0, 0: mean 1/4, standard deviation sqrt(3)/4.

    >>> import torch
    >>> ones = torch.ones(4, 1, dtype=torch.long)
    >>> scored = Scored(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.ones(1), 1, 0, ones)
    >>> [round(value, 3) for value in ReinforcePP(None).advantages(scored).values.flatten().tolist()]
    [1.732, -0.577, -0.577, -0.577]
    """

    def __init__(self, recipe: Recipe):
        pass

    def advantages(self, scored: Scored) -> Advantages:
        """(B, T) advantages; those of a completion that no reward judged are 0."""
        return _normalized(scored, rewards_to_go(scored.token_rewards()))


class ReinforcePPBaseline:
    """As `ReinforcePP`, with each reward less the mean of its group.

    Two groups of two, with rewards 1, 0 and 3, 3: less their group's mean 0.5, -0.5, 0, 0; of mean 0 and standard
    deviation sqrt(1/8).

    >>> import torch
    >>> ones = torch.ones(4, 1, dtype=torch.long)
    >>> scored = Scored(torch.tensor([[1.0], [0.0], [3.0], [3.0]]), torch.ones(1), 2, 0, ones)
    >>> [round(value, 3) for value in ReinforcePPBaseline(None).advantages(scored).values.flatten().tolist()]
    [1.414, -1.414, 0.0, 0.0]
    """

    min_group_size = 2

    def __init__(self, recipe: Recipe):
        pass

    def advantages(self, scored: Scored) -> Advantages:
        """(B, T) advantages; those of a completion that no reward judged are 0."""
        unjudged = scored.rewards.isnan().all(dim=1)
        totals = (scored.rewards * scored.weights).nansum(dim=1).masked_fill(unjudged, torch.nan)
        # In float64 the mean of equal rewards is exact: else a batch of such groups would be its rounding, normalized.
        groups = totals.double().view(-1, scored.group_size)
        centred = (groups - groups.nanmean(dim=1, keepdim=True)).float().view(-1, 1)
        one_reward = dataclasses.replace(scored, rewards=centred, weights=torch.ones_like(scored.weights[:1]))
        return _normalized(scored, rewards_to_go(one_reward.token_rewards()))


def rewards_to_go(token_rewards: torch.Tensor) -> torch.Tensor:
    """The sum of each token's reward and those after it; (B, T) float32 both."""
    return token_rewards.flip(1).cumsum(1).flip(1)


def _normalized(scored: Scored, values: torch.Tensor) -> Advantages:
    judged = ~scored.own(scored.rewards).isnan().all(dim=1, keepdim=True)
    mean, std = scored.mean_and_std(values.masked_fill(~judged, torch.nan))
    normalized = (values - mean) / (std + _EPS)
    metrics = {"advantage_mean": mean.item(), "advantage_std": std.item()}
    return Advantages(normalized * judged * scored.mask, metrics)
