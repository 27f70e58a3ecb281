"""The protocol of algorithms: what one is given and what it returns; and the one place that chooses one."""

from dataclasses import dataclass, field
from typing import Protocol

import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.algorithms import ALGORITHMS


@dataclass(frozen=True)
class Scored:
    """The completions of one step as an algorithm sees them. N completions of all processes, B of this one, R rewards.

    Attributes:
        rewards: (N, R) float32, one column a reward; NaN where a reward gave none. Groups stand together.
        weights: (R,) float32, the recipe's weight of each reward.
        group_size: G, completions of one prompt; a divisor of N.
        start: place of this process's first completion among the N.
        mask: (B, T) int64, 1 on this process's completion tokens, the end-of-sequence token included.
    """

    rewards: torch.Tensor
    weights: torch.Tensor
    group_size: int
    start: int
    mask: torch.Tensor


@dataclass(frozen=True)
class Advantages:
    """What an algorithm makes of them.

    Attributes:
        values: of this process's completions: (B,) float32, one a completion, or (B, T), one a token.
        metrics: what a row of metrics.jsonl holds of this step under these names.
    """

    values: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)


class Algorithm(Protocol):
    """Made once a run, as ``Class(recipe)``."""

    def advantages(self, scored: Scored) -> Advantages:
        """The advantages of this process's completions. Every process calls it with the rewards of all."""


def make_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm that `algorithm.name` names.

    Raises:
        RecipeError: there is none of that name, or it has no method `advantages`.
    """
    name = recipe.algorithm.name
    cls = load_object(name, table=ALGORITHMS, key="algorithm.name")
    if not callable(getattr(cls, "advantages", None)):
        raise RecipeError(f"algorithm.name={name}: it has no method advantages; name a class as docs/extending.md says")
    return cls(recipe)
