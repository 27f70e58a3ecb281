"""Evaluation during training: the task's eval rows, sampled by the same engine as the rollouts."""

from collections.abc import Callable, Sequence

import torch

from rl_posttrain.machine.process import world_size
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.scoring.evaluation import evaluate_policy
from rl_posttrain.scoring.rewards import Reward
from rl_posttrain.training.rollouts import Rollouts


class Evaluation:
    """Accuracy and pass@k of the policy, every `eval.every_steps` updates.

    Args:
        rows: to evaluate on, the same on every process.
        batch_size: completions of one call of the engine, on each process.
        gather: concatenates a list over processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        rollouts: Rollouts,
        rewards: Sequence[Reward],
        rows: list[dict],
        *,
        batch_size: int,
        gather: Callable[[list], list],
    ):
        self._section, self._rollouts, self._rewards, self._rows = recipe.eval, rollouts, rewards, rows
        self._batch_size, self._gather = batch_size, gather

    def is_due(self, num_updates: int) -> bool:
        """Whether the recipe asks for an evaluation after this many updates."""
        return bool(self._section.every_steps) and num_updates % self._section.every_steps == 0

    def run(self, num_updates: int) -> dict[str, float]:
        """The ``eval/...`` metrics under the present weights; every process calls it."""
        torch.manual_seed(self._rollouts.seed(num_updates, "evaluation"))
        return evaluate_policy(
            self._rows,
            lambda rows, call: self._rollouts.draw(rows, num_updates, "evaluation", call),
            self._rewards,
            num_samples=self._section.num_samples,
            ks=self._section.k,
            batch_size=self._batch_size,
            rank=self._rollouts.rank,
            world_size=world_size(),
            gather=self._gather,
        )
