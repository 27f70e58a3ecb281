"""The completions of a step: weight sync, sampling, resampling, rewards."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import RolloutEngine, Sampling
from rl_posttrain.rollout.seeds import derive_seed, seeds_of_samples
from rl_posttrain.scoring.completions import reward_arguments, score
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.rewards import Reward, call_together
from rl_posttrain.training.clock import Clock
from rl_posttrain.training.groups import Rows, resample
from rl_posttrain.training.stopping import Stopping
from rl_posttrain.training.weight_check import WeightCheck


class Policy(Protocol):
    """What rollouts need of the policy that is trained."""

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Walks the whole weights under their checkpoint names; every process must walk all of them."""

    def tokenize(self, prompts: list) -> list[list[int]]:
        """Token ids of prompts, which are text or chat messages."""

    def decode(self, token_ids: list[list[int]]) -> list[str]:
        """Text of token ids, without special tokens."""


class Rollouts:
    """Draws and scores completions on this process.

    Args:
        engine: samples under the weights of the last sync.
        rewards: of the recipe.
        pool: the task's training rows, for resampling.
        weight_check: brings the weights to the engine.
        rank: this process's number; every process draws from seeds of its own.
        gather: concatenates a list over processes.
        stopping: knows when a step is dropped.
    """

    def __init__(
        self,
        recipe: Recipe,
        engine: RolloutEngine,
        policy: Policy,
        sampling: Sampling,
        rewards: Sequence[Reward],
        *,
        pool: Rows,
        weight_check: WeightCheck,
        rank: int,
        gather: Callable[[list], list],
        clock: Clock,
        stopping: Stopping,
    ):
        self._recipe, self._engine, self._policy, self._sampling = recipe, engine, policy, sampling
        self._rewards, self._pool, self._gather, self._clock = rewards, pool, gather, clock
        self.rank, self._weight_check, self._stopping = rank, weight_check, stopping
        self._synced: int | None = None
        self._num_tokens = 0

    def collect(self, rows: Rows, num_updates: int, **reward_options: Any) -> tuple[list[Completion], dict[str, float]]:
        """Scored completions of `rows`, one each, under the weights after `num_updates` updates.

        Returns:
            The completions, and the metrics of drawing them: tokens of all processes, the share that was resampled, the
            share of the weights that are compared with the engine's.

        Raises:
            WeightSyncError: the engine has other weights than the policy.
            Interrupted: a signal has come, and the step is dropped.
        """
        self._num_tokens = 0
        metrics = {}
        with self._stopping.droppable():
            completions = self.draw(rows, num_updates, "rollout")
        if self._recipe.algorithm.zero_variance_groups == "resample":
            completions, num_replaced = self._resample(completions, num_updates)
            num_groups = sum(self._gather([len(completions)])) / self._recipe.algorithm.group_size
            metrics["resampled_share"] = sum(self._gather([num_replaced])) / num_groups
        if (share := self._weight_check.share) is not None:
            metrics["checked_weights_share"] = share
        metrics |= self._engine.metrics
        metrics["new_tokens"] = sum(self._gather([self._num_tokens]))
        with self._clock.phase("reward"), self._stopping.droppable(), self._stopping.alone():
            self.take_unusable_rewards()  # those of groups that were resampled
            score(completions, self._rewards, **reward_options)
        return completions, metrics

    def draw(self, rows: Rows, num_updates: int, *purpose: str | int) -> list[Completion]:
        """One completion a row; its seed follows from run, step, purpose, question and sample."""
        parts = (self._recipe.run.seed, num_updates + 1, *purpose)
        seeds = seeds_of_samples(rows, *parts, rank=self.rank, gather=self._gather)
        return self.sample(rows, seeds, num_updates, self._sampling)

    def sample(self, rows: Rows, seeds: Sequence[int], num_updates: int, sampling: Sampling) -> list[Completion]:
        """One completion a row, from its seed, under the weights after `num_updates` updates."""
        self._sync(num_updates)
        prompts = self._policy.tokenize([row["prompt"] for row in rows])
        alone = self._stopping.alone() if self._engine.samples_alone else contextlib.nullcontext()
        with self._clock.phase("rollout"), alone:
            completions = self._engine.generate(prompts, seeds, sampling)
        texts = self._policy.decode([completion.token_ids for completion in completions])
        for completion, row, text in zip(completions, rows, texts, strict=True):
            completion.row, completion.text = row, text
            self._num_tokens += completion.num_tokens
        return completions

    def seed(self, num_updates: int, *purpose: str | int) -> int:
        """A seed for what is random after `num_updates` updates beside the samples."""
        return derive_seed(self._recipe.run.seed, num_updates + 1, *purpose)

    def take_unusable_rewards(self) -> list[str]:
        """Of the rewards since the last call those that were no finite numbers, in words."""
        taken = [said for reward in self._rewards for said in reward.unusable]
        for reward in self._rewards:
            reward.unusable.clear()
        return taken

    @property
    def depends_on_batch(self) -> bool:
        """Of the engine, see `RolloutEngine`."""
        return self._engine.depends_on_batch

    def weights_changed(self) -> None:
        """The policy has other weights than after its last update: the engine gets them before it samples again."""
        self._synced = None

    def close(self) -> None:
        """Give back the engine's memory."""
        self._engine.close()

    def _sync(self, num_updates: int) -> None:
        if self._synced != num_updates:
            with self._clock.phase("sync"):
                self._weight_check.sync(self._engine, self._policy.weights(), num_updates + 1)
            self._synced = num_updates

    def _resample(self, completions: list[Completion], num_updates: int) -> tuple[list[Completion], int]:
        judge, _ = judging_rewards([reward.spec for reward in self._rewards])
        of_answers = [reward for reward in self._rewards if reward.spec in judge.specs]

        def is_right(drawn: list[Completion]) -> list[bool]:
            arguments = reward_arguments(drawn)
            values = zip(*call_together(of_answers, **arguments), strict=True)
            names = [reward.spec.name for reward in of_answers]
            return [bool(judge.gives_full_credit(dict(zip(names, found, strict=True)))) for found in values]

        return resample(
            completions,
            pool=self._pool,
            group_size=self._recipe.algorithm.group_size,
            max_rounds=self._recipe.algorithm.max_resample_rounds,
            is_right=is_right,
            draw=lambda rows, number: self.draw(rows, num_updates, "resample", number),
            rank=self.rank,
            gather=self._gather,
            seed=self.seed(num_updates, "resample"),
        )
