"""The completions of a step: weight sync, sampling, resampling, rewards."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import RolloutEngine, Sampling
from rl_posttrain.rollout.seeds import derive_seed, seeds_of_samples
from rl_posttrain.scoring.completions import reward_arguments, score
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.rewards import Reward, call_together
from rl_posttrain.training.ahead import DrawsAhead
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
        rows_of: this process's rows of a step; the first is 1.
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
        rows_of: Callable[[int], Rows],
    ):
        self._recipe, self._engine, self._policy, self._sampling = recipe, engine, policy, sampling
        self._rewards, self._pool, self._gather, self._clock = rewards, pool, gather, clock
        self.rank, self._weight_check, self._stopping = rank, weight_check, stopping
        self._rows_of, staleness = rows_of, recipe.rollout.max_staleness
        self._ahead = (
            DrawsAhead(engine, sampling, staleness, shares_cores=recipe.rollout.engine == "vllm")
            if staleness > 0
            else None
        )
        self._synced: int | None = None
        self._num_tokens = 0

    def collect(self, num_updates: int, **reward_options: Any) -> tuple[list[Completion], dict[str, float]]:
        """Scored completions of the step after `num_updates` others, one a row.

        Returns:
            The completions, and the metrics of drawing them: tokens of all processes, the share that was resampled, the
            share of the weights that are compared with the engine's; where draws run ahead, how old their weights are,
            and the seconds they took.

        Raises:
            WeightSyncError: the engine has other weights than the policy.
            Interrupted: a signal has come, and the step is dropped.
        """
        self._num_tokens = 0
        metrics = {}
        with self._stopping.droppable():
            if self._ahead is None:
                completions = self.draw(self._rows_of(num_updates + 1), num_updates, "rollout")
            else:
                completions, seconds = self._take(num_updates + 1)
        if self._recipe.algorithm.zero_variance_groups == "resample":
            completions, num_replaced = self._resample(completions, num_updates)
            num_groups = sum(self._gather([len(completions)])) / self._recipe.algorithm.group_size
            metrics["resampled_share"] = sum(self._gather([num_replaced])) / num_groups
        metrics |= self._engine.metrics
        if self._ahead is not None:
            ages = self._gather([num_updates - completion.weights_step for completion in completions])
            metrics |= {"staleness": sum(ages) / len(ages), "time/draw": max(self._gather([seconds]))}
            self._begin(self._ahead.missing(num_updates + 1, self._recipe.algorithm.num_steps), num_updates)
        if (share := self._weight_check.share) is not None:
            metrics["checked_weights_share"] = share
        metrics["new_tokens"] = sum(self._gather([self._num_tokens]))
        with self._clock.phase("reward"), self._stopping.droppable(), self._stopping.alone():
            self.take_unusable_rewards()  # those of groups that were resampled
            score(completions, self._rewards, **reward_options)
        return completions, metrics

    def draw(self, rows: Rows, num_updates: int, *purpose: str | int) -> list[Completion]:
        """One completion a row; its seed follows from run, step, purpose, question and sample."""
        return self.sample(rows, self._seeds(rows, num_updates + 1, *purpose), num_updates, self._sampling)

    def sample(self, rows: Rows, seeds: Sequence[int], num_updates: int, sampling: Sampling) -> list[Completion]:
        """One completion a row, from its seed, under the weights after `num_updates` updates."""
        self._sync(num_updates)
        prompts = self._policy.tokenize([row["prompt"] for row in rows])
        generate = self._engine.generate if self._ahead is None else self._ahead.generate
        with self._drawing():
            completions = generate(prompts, seeds, sampling)
        for completion in completions:
            completion.weights_step = num_updates
        return self._filled(completions, rows)

    def save(self, folder: Path, num_updates: int) -> None:
        """Write into a checkpoint what was drawn for the steps after it; every process calls it."""
        if self._ahead is not None:
            self._ahead.save(folder, num_updates, self._gather, writes=self.rank == 0)

    def load(self, folder: str | None) -> None:
        """Take from a checkpoint, if there is one, what was drawn for the steps after it; every process calls it."""
        if self._ahead is not None and folder is not None:
            self._ahead.load(Path(folder), self._prompts, self.rank, self._gather)

    def finish(self) -> None:
        """Wait until nothing is drawn any more."""
        if self._ahead is not None:
            with self._clock.phase("rollout"):
                self._ahead.finish()

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
        if self._ahead is not None:
            self._ahead.forget()

    def close(self) -> None:
        """Give back the engine's memory."""
        if self._ahead is not None:
            self._ahead.close()
        self._engine.close()

    def _take(self, step: int) -> tuple[list[Completion], float]:
        """The completions that were drawn for a step, and the seconds that it took.

        At the start of a run, and after the policy went back to a checkpoint, nothing was drawn ahead: the step's own
        draw comes first then, and those ahead have the same weights.
        """
        if self._ahead.lacks(step):
            self._begin([step], step - 1)
        with self._drawing():
            completions, seconds = self._ahead.take(step)
        return self._filled(completions, self._rows_of(step)), seconds

    def _begin(self, steps: Sequence[int], num_updates: int) -> None:
        """Begin the draws of some steps under the weights after `num_updates` updates."""
        for step in steps:
            self._sync(num_updates)
            seeds = self._seeds(self._rows_of(step), step, "rollout")
            self._ahead.begin(step, num_updates, self._prompts(step), seeds)

    def _prompts(self, step: int) -> list[list[int]]:
        return self._policy.tokenize([row["prompt"] for row in self._rows_of(step)])

    def _seeds(self, rows: Rows, step: int, *purpose: str | int) -> list[int]:
        return seeds_of_samples(rows, self._recipe.run.seed, step, *purpose, rank=self.rank, gather=self._gather)

    def _filled(self, completions: list[Completion], rows: Rows) -> list[Completion]:
        """The completions with their rows and texts, and counted."""
        texts = self._policy.decode([completion.token_ids for completion in completions])
        for completion, row, text in zip(completions, rows, texts, strict=True):
            completion.row, completion.text = row, text
            self._num_tokens += completion.num_tokens
        return completions

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[None]:
        """What runs inside draws, or waits for draws; where no process waits for this one, a signal may end it."""
        alone = self._stopping.alone() if self._engine.samples_alone else contextlib.nullcontext()
        with self._clock.phase("rollout"), alone:
            yield

    def _sync(self, num_updates: int) -> None:
        if self._synced != num_updates:
            self.finish()  # what is in flight has the weights that it began with
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
