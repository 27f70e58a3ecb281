"""The protocol of algorithms: what one is given and what it returns; and the one place that chooses one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.training.algorithms import ALGORITHMS
from rl_posttrain.users_code import call_users


@dataclass(frozen=True)
class Scored:
    """The completions of one step as an algorithm sees them. N completions of all processes, B of this one, R rewards.

    Attributes:
        rewards: (N, R) float32, one column a reward; NaN where a reward gave none. Groups stand together.
        weights: (R,) float32, the recipe's weight of each reward.
        group_size: G, completions of one prompt; a divisor of N.
        start: place of this process's first completion among the N.
        mask: (B, T) int64, 1 on this process's completion tokens, the end-of-sequence token included.
        kl_penalty: (B, T) float32, what each token loses to the KL penalty: `algorithm.kl_coef` times the estimate, 0
            where the mask is 0. None unless the recipe takes the penalty off the reward (`algorithm.kl_in: reward`).
        values: (B, T + 1) float32 of the critic, None without one: of the state before each token, and before what
            would come after the last one.
        truncated: (B,) bool, completions that were cut at the token limit.
        completions: the B completions.
        gather: concatenates tensors of this process with those of the others along their first dimension, in the order
            of the processes. Every process calls it equally often.
    """

    rewards: torch.Tensor
    weights: torch.Tensor
    group_size: int
    start: int
    mask: torch.Tensor
    kl_penalty: torch.Tensor | None = None
    values: torch.Tensor | None = None
    truncated: torch.Tensor | None = None
    completions: Sequence[Completion] = ()
    gather: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda tensor: tensor)

    def totals(self) -> torch.Tensor:
        """(N,) float32: the weighted sum of a completion's rewards less its KL penalty; NaN where no reward judged."""
        unjudged = self.rewards.isnan().all(dim=1)
        totals = (self.rewards * self.weights).nansum(dim=1).masked_fill(unjudged, torch.nan)
        return totals if self.kl_penalty is None else totals - self.gather(self.kl_penalty.sum(dim=1))

    def token_rewards(self) -> torch.Tensor:
        """(B, T) float32: each token's KL penalty, negative, and on a completion's last token also its rewards.

        A completion that no reward judged gets none.
        """
        rewards = self.own((self.rewards * self.weights).nansum(dim=1))
        positions = torch.arange(self.mask.size(1), device=self.mask.device)
        last = (self.mask * (positions + 1)).argmax(dim=1)
        tokens = torch.zeros(self.mask.shape, dtype=torch.float32, device=self.mask.device)
        tokens.scatter_(1, last.unsqueeze(1), rewards.unsqueeze(1).to(tokens))
        return (tokens if self.kl_penalty is None else tokens - self.kl_penalty) * self.mask

    def own(self, values: torch.Tensor) -> torch.Tensor:
        """(B, ...) of this process, from (N, ...) of all."""
        return values[self.start : self.start + len(self.mask)]

    def mean_and_std(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, both scalars, of (B, T) `values` over the tokens of all processes."""
        kept = self.mask.bool() & ~values.isnan()
        parts = torch.where(kept, values, 0.0).double()
        sums = self.gather(torch.stack([parts.sum(), kept.sum().double()]).unsqueeze(0)).sum(dim=0)
        mean = sums[0] / sums[1].clamp(min=1)
        squares = torch.where(kept, (values.double() - mean).square(), 0.0).sum()
        variance = self.gather(squares.view(1)).sum() / sums[1].clamp(min=1)
        return mean.float(), variance.sqrt().float()


@dataclass(frozen=True)
class Advantages:
    """What an algorithm makes of them.

    Attributes:
        values: of this process's completions: (B, T) float32, one a token; or (B,), where all tokens of a completion
            have the same.
        metrics: what a row of metrics.jsonl holds of this step under these names.
        returns: (B, T) float32, what the critic's values are trained towards; None without a critic.
    """

    values: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    returns: torch.Tensor | None = None


class Algorithm(Protocol):
    """Made once a run, as ``Class(recipe)``.

    A class may have these two attributes:

    - `needs_critic`, False where it is missing: `Scored.values` are there, and a critic is trained towards
      `Advantages.returns`. The recipe has a `critic` section.
    - `min_group_size`, 1 where it is missing: the smallest `algorithm.group_size` that it can work with.

    A reference model is there wherever `algorithm.kl_coef` is above 0.
    """

    def advantages(self, scored: Scored) -> Advantages:
        """The advantages of this process's completions. Every process calls it with the rewards of all."""


def make_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm that `algorithm.name` names.

    Raises:
        RecipeError: there is none of that name, it has no method `advantages`, or it raises; the groups are too
            small for it; or the recipe has a critic that it does not use, or has none and it needs one.
    """
    name, group_size = recipe.algorithm.name, recipe.algorithm.group_size
    cls = load_object(name, table=ALGORITHMS, key="algorithm.name")
    if not callable(getattr(cls, "advantages", None)):
        raise RecipeError(f"algorithm.name={name}: it has no method advantages; name a class as docs/extending.md says")
    smallest = getattr(cls, "min_group_size", 1)
    if group_size < smallest:
        raise RecipeError(
            f"algorithm.group_size={group_size}: {name} compares the completions of one prompt, so set {smallest} or "
            "more; ppo and reinforce_pp take 1"
        )
    needs_critic = getattr(cls, "needs_critic", False)
    if needs_critic and recipe.critic is None:
        raise RecipeError(
            f"critic: missing; algorithm.name={name} needs one, so add the section, such as `critic: {{}}`"
        )
    if recipe.critic is not None and not needs_critic:
        keys = recipe.critic.model_dump(exclude_defaults=True)
        said = ", ".join(f"critic.{key}={value}" for key, value in keys.items()) or "critic"
        raise RecipeError(f"{said}: algorithm.name={name} has no critic; remove the section, or set algorithm.name=ppo")
    if name in ALGORITHMS:
        return cls(recipe)
    return call_users(cls, recipe, where=f"algorithm.name={name}", fix="correct the class", kind=RecipeError)
