"""What a step leaves behind: its row of metrics and its rollouts, under the names of docs/metrics.md."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.shares import shares_of_full_credit
from rl_posttrain.training.clock import Clock

OnStep = Callable[[dict, list[dict]], None]
# TRL's metrics of its loss that go into a row, by our names.
_FROM_TRL = {"entropy": "entropy", "clip_share/policy": "clip_ratio/region_mean"}


class Recorder:
    """Collects facts from the loop, and makes a row of metrics of them at the end of a step.

    Args:
        specs: the recipe's rewards.
        on_step: called with the step's row, and its rollouts if it drew any.
        gather: concatenates a list over processes; all processes call the recorder at the same moments.
        clock: knows the step's seconds.
    """

    def __init__(self, specs: Sequence[RewardSpec], on_step: OnStep, gather: Callable[[list], list], clock: Clock):
        self._specs, self._on_step, self._gather, self._clock = specs, on_step, gather, clock
        self._rollouts: list[dict] = []
        self._described: dict[str, Any] = {}
        self._of_step: dict[str, Any] = {}
        self._logged: dict[str, list[float]] = defaultdict(list)
        self._extra: dict[str, list] = defaultdict(list)

    def log_metric(self, name: str, value: float) -> None:
        """Called by reward functions. The row gets the mean over calls and processes."""
        self._logged[name].append(value)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Called by reward functions with a value for each completion, for `rollouts/`."""
        self._extra[column] += values

    def drawn(self, step: int, completions: Sequence[Completion], metrics: Mapping[str, float]) -> list[dict]:
        """Take this process's completions, scored and with advantages, and the metrics of drawing them.

        They describe every step that trains on them, until new ones are drawn.

        Returns:
            The rollouts of all processes; groups are together.
        """
        extra, self._extra = self._extra, defaultdict(list)
        for column, values in extra.items():
            for completion, value in zip(completions, values, strict=True):
                completion.extra[column] = value
        self._rollouts = self._gather([completion.as_rollout(step) for completion in completions])
        lengths = [rollout["num_tokens"] for rollout in self._rollouts]
        cut = [rollout["finish_reason"] == "length" for rollout in self._rollouts]
        self._described = {
            "completion_length": sum(lengths) / len(lengths),
            "truncated_share": sum(cut) / len(cut),
            **metrics,
            **self._take_logged(),
        }
        return self._rollouts

    def describe(self, **metrics: float) -> None:
        """Add metrics that describe the present completions."""
        self._described |= metrics

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an evaluation after this step's update."""
        self._of_step |= metrics

    def row(
        self, step: int, logs: Mapping[str, float], trl_metrics: Mapping[str, list[float]], update: Mapping[str, float]
    ) -> dict[str, Any]:
        """The row of metrics.jsonl for the update `step` that was just made.

        Args:
            logs: what transformers logs a step: loss, grad_norm, learning_rate.
            trl_metrics: TRL's metrics of the loss, one value a micro batch.
            update: what the update did: its norm, bytes of state, peak memory.
        """
        row: dict[str, Any] = {"step": step, "reward": _mean([rollout["reward"] for rollout in self._rollouts])}
        for reward in self._specs:
            row[f"rewards/{reward.name}"] = _mean([rollout["rewards"][reward.name] for rollout in self._rollouts])
        judges = judging_rewards(self._specs)
        row |= shares_of_full_credit([rollout["rewards"] for rollout in self._rollouts], *judges)
        row["prompts_sha256"] = _digest([rollout["prompt"] for rollout in self._rollouts])
        row |= {"loss": logs["loss"], "grad_norm": logs.get("grad_norm"), "lr": logs.get("learning_rate")}
        row |= {ours: _mean(trl_metrics[theirs]) for ours, theirs in _FROM_TRL.items() if theirs in trl_metrics}
        row |= self._described | update | self._of_step | self._clock.end_step()
        self._of_step = {}
        return row

    def write(self, row: dict[str, Any]) -> None:
        """Pass the row on, with the rollouts if this step drew them."""
        self._on_step(row, self._rollouts if self._rollouts[0]["step"] == row["step"] else [])

    def _take_logged(self) -> dict[str, float]:
        """The metrics that rewards logged for these completions, as means over all processes."""
        logged, self._logged = self._logged, defaultdict(list)
        every: dict[str, list[float]] = defaultdict(list)
        for name, values in self._gather(list(logged.items())):
            every[name] += values
        return {name: _mean(every[name]) for name in sorted(every)}


def _digest(prompts: list) -> str:
    """The first 16 digits of a SHA-256 over prompts in their order: equal prompts give equal digits."""
    return hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:16]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None
