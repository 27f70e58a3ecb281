"""PPO: a critic tells each token what to expect, and the advantage is what came beyond that (arXiv:1707.06347).

Advantages are generalized advantage estimates (arXiv:1506.02438) over the completion's tokens. Their lambda can differ
from that of the critic's returns (VC-PPO, arXiv:2503.01491), and can grow with the length (VAPO, arXiv:2504.05118).
"""

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.algorithms.algorithm import Advantages, Scored

_EPS = 1e-8
# A smaller standard deviation of returns is rounding.
_SAME = 1e-5


class PPO:
    """Advantages per token, from rewards and the critic's values; whitened over the batch if `critic` says so.

    Four completions of one token with rewards 1, 0, 0, 0, of each of which the critic expected 0.5, are 0.5 better or
    worse; whitened, these have mean -1/4 and standard deviation sqrt(3)/4.

    >>> import torch
    >>> from rl_posttrain.recipe.load import load_recipe
    >>> ones, values = torch.ones(4, 1, dtype=torch.long), torch.tensor([[0.5, 0.0]] * 4)
    >>> scored = Scored(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.ones(1), 1, 0, ones, values=values)
    >>> plain = PPO(load_recipe("quickstart_ppo", ["critic.whiten_advantages=false"])).advantages(scored)
    >>> plain.values.flatten().tolist(), plain.returns.flatten().tolist()
    ([0.5, -0.5, -0.5, -0.5], [1.0, 0.0, 0.0, 0.0])
    >>> whitened = PPO(load_recipe("quickstart_ppo")).advantages(scored).values
    >>> [round(value, 3) for value in whitened.flatten().tolist()]
    [1.732, -0.577, -0.577, -0.577]
    """

    needs_critic = True

    def __init__(self, recipe: Recipe):
        self._critic = recipe.critic

    def advantages(self, scored: Scored) -> Advantages:
        """(B, T) advantages and returns. A completion that no reward judged has advantages 0, and teaches no value."""
        critic, mask = self._critic, scored.mask
        policy_lambda = torch.full((len(mask),), critic.gae_lambda, device=mask.device)
        if critic.length_adaptive_alpha is not None:
            policy_lambda = length_adaptive_lambda(mask.sum(dim=1), critic.length_adaptive_alpha)
        value_lambda = critic.gae_lambda if critic.value_lambda is None else critic.value_lambda
        bootstrap = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        if critic.bootstrap_truncated:
            bootstrap = scored.truncated
        rewards = scored.token_rewards()
        values = scored.values[:, :-1]

        def estimate(lambda_: torch.Tensor) -> torch.Tensor:
            return gae(rewards, scored.values, mask, gamma=critic.gamma, lambda_=lambda_, bootstrap=bootstrap)

        judged = ~scored.own(scored.rewards).isnan().all(dim=1, keepdim=True)
        advantages = estimate(policy_lambda) * judged
        returns = torch.where(judged, values + estimate(torch.full_like(policy_lambda, value_lambda)), values)
        counted = (part.masked_fill(~judged, torch.nan) for part in (advantages, returns, values))
        metrics = self._metrics(scored, *counted)
        if critic.whiten_advantages:
            advantages = (advantages - metrics["advantage_mean"]) / (metrics["advantage_std"] + _EPS) * judged
        return Advantages(advantages * mask, metrics, returns * mask)

    def _metrics(self, scored: Scored, advantages, returns, values) -> dict[str, float]:
        """Over the tokens of all processes; (B, T) each, NaN where they do not count."""
        mean, std = scored.mean_and_std(advantages)
        return_mean, return_std = scored.mean_and_std(returns)
        _, error_std = scored.mean_and_std(returns - values)
        # Returns that are all the same, but for rounding, leave nothing to explain.
        explained = 1 - (error_std / return_std).square() if return_std > _SAME else torch.tensor(torch.nan)
        return {
            "advantage_mean": mean.item(),
            "advantage_std": std.item(),
            "return_mean": return_mean.item(),
            "value_mean": scored.mean_and_std(values)[0].item(),
            "explained_variance": explained.item(),
        }


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float,
    lambda_: torch.Tensor,
    bootstrap: torch.Tensor,
) -> torch.Tensor:
    """Generalized advantage estimates over the tokens of each completion (arXiv:1506.02438, eq. 16).

    A_t = delta_t + gamma lambda A_t+1 and delta_t = r_t + gamma V_t+1 - V_t, where t + 1 is the next token of the mask.
    At gamma = lambda = 1 that is the return less the value; at lambda = 0 the error of one step.

    >>> rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.75, 0.0]])
    >>> ones, no = torch.ones(1, 3), torch.tensor([False])
    >>> gae(rewards, values, ones, gamma=1.0, lambda_=torch.ones(1), bootstrap=no).tolist()
    [[0.5, 0.75, 0.25]]
    >>> gae(rewards, values, ones, gamma=1.0, lambda_=torch.zeros(1), bootstrap=no).tolist()
    [[-0.25, 0.5, 0.25]]

    Args:
        rewards: (B, T) float, 0 where the mask is 0.
        values: (B, T + 1) float: of the state before each token, and before what would come after the last one.
        mask: (B, T), 1 on the completion's tokens; tokens between them with a 0 are passed over.
        lambda_: (B,) float.
        bootstrap: (B,) bool: the value after the last token counts, as the completion was cut there; else it is 0.

    Returns:
        (B, T) in the dtype of the values, 0 where the mask is 0.
    """
    positions = torch.arange(mask.size(1), device=mask.device)
    last = (mask * (positions + 1)).argmax(dim=1)
    after = values.gather(1, last.unsqueeze(1) + 1).squeeze(1)
    next_value = torch.where(bootstrap, after, torch.zeros_like(after))
    next_advantage = torch.zeros_like(next_value)
    advantages = torch.zeros_like(values[:, :-1])
    for t in reversed(range(mask.size(1))):
        here = mask[:, t].bool()
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(here, delta + gamma * lambda_ * next_advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, next_advantage, torch.zeros_like(next_advantage))
    return advantages


def length_adaptive_lambda(lengths: torch.Tensor, alpha: float) -> torch.Tensor:
    """A lambda for each completion, 1 - 1 / (alpha length): the longer, the nearer to 1 (VAPO, arXiv:2504.05118).

    >>> length_adaptive_lambda(torch.tensor([10, 100, 1000]), 0.05).tolist()
    [0.0, 0.800000011920929, 0.9800000190734863]

    Args:
        lengths: (B,) tokens.
        alpha: above 0; the paper's is 0.05.

    Returns:
        (B,) float32, at least 0.
    """
    return (1 - 1 / (alpha * lengths.clamp(min=1))).clamp(min=0.0)
