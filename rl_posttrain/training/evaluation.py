"""Evaluation during training: the task's eval rows, sampled by the same engine as the rollouts."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rl_posttrain.evaluation.evaluate import Amount, Processes, evaluate
from rl_posttrain.evaluation.settings import settings_of
from rl_posttrain.machine.process import world_size
from rl_posttrain.recipe.resolve import TaskSpec
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.sampling import evaluation_sampling
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.scoring.rewards import Reward
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.training.rollouts import Rollouts


class Evaluation:
    """Accuracy, pass@k and the like of the policy: before the first step, every `eval.every_steps`, and after the last.

    The samples of a question have the same seeds each time, so that evaluations of one run differ by the policy alone.

    Args:
        task: with its version.
        rows: the task's; those to evaluate on are the same on every process.
        run: keeps the evaluations.
        sampling: of the rollouts.
        gather: concatenates a list over processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: TaskSpec,
        rows: TaskRows,
        run: RunDirectory,
        rewards: Sequence[Reward],
        rollouts: Rollouts,
        sampling: Sampling,
        gather: Callable[[list], list],
    ):
        self._recipe, self._rows, self._rollouts, self._rewards, self._run = recipe, rows.eval, rollouts, rewards, run
        self._sampling = evaluation_sampling(recipe.eval, sampling)
        self._settings = settings_of(
            model=recipe.model.name,
            dtype=recipe.model.dtype,
            engine=recipe.rollout.engine,
            task=task,
            rows=rows,
            rewards=recipe.rewards,
            sampling=self._sampling,
            seed=recipe.run.seed,
        )
        self._processes = Processes(rollouts.rank, world_size(), gather)

    def is_due(self, step: int) -> bool:
        """Whether the recipe asks for an evaluation after this many steps; 0 is before the first."""
        section = self._recipe.eval
        if step == 0:
            return section.starts
        if step == self._recipe.algorithm.num_steps:
            return section.is_on
        return bool(section.every_steps) and step % section.every_steps == 0

    def run(self, step: int) -> dict[str, float | None]:
        """The ``eval/...`` metrics under the present weights, with standard errors; every process calls it."""
        section = self._recipe.eval
        with undisturbed_random():
            results = evaluate(
                self._rows,
                lambda rows, seeds: self._rollouts.sample(rows, seeds, step, self._sampling),
                self._rewards,
                Amount(section.num_questions or len(self._rows), section.num_samples, section.k),
                seed=self._recipe.run.seed,
                depends_on_batch=self._rollouts.depends_on_batch,
                folder=self._run.evaluation_folder(step),
                settings=self._settings | {"step": step},
                processes=self._processes,
            )
        metrics: dict[str, float | None] = {}
        for name, estimate in results["metrics"].items():
            metrics[f"eval/{name}"] = estimate["value"]
            if name.startswith(("accuracy", "pass@", "maj@")):
                metrics[f"eval/{name}_error"] = estimate["error"]
        return metrics


@contextlib.contextmanager
def undisturbed_random() -> Iterator[None]:
    """Put the random generators of Python, numpy and torch back afterwards: rewards may draw from them, too."""
    python, numpy = random.getstate(), np.random.get_state()
    devices: Any = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
