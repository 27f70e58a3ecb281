"""Statistics of each run, and verdicts: every variant compared with the baseline."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.study.equivalence import Comparison, compare_to_baseline
from rl_posttrain.study.histories import Collection, History, pairing

# What a verdict can be about. The user chooses one before looking: every further measure is a further chance of error.
MEASURES = {
    "final": "mean reward of the last tenth of the steps",
    "auc": "area under the reward curve over the steps, divided by their number",
    "best": "best mean reward of 5 consecutive steps",
}
_MARGIN_SHARE, _THRESHOLD_SHARE = 0.05, 0.5
_WINDOW = 5  # steps of the trailing mean for best, threshold and drop: a single good step can be luck
_SPIKE_FACTOR, _SPIKE_WINDOW, _SPIKE_NEEDS = 3.0, 20, 5


@dataclass(frozen=True)
class Judgement:
    """Runs, their statistics, and the verdicts.

    Attributes:
        statistics: by run name, as `run_statistics` gives them.
        comparisons: one for each variant but the baseline.
        notices: what a reader must know before reading any number.
        checks: whether runs of one seed started equal, in sentences.
        terms: the measure, margin and threshold in words.
    """

    collection: Collection
    statistics: dict[str, dict[str, float | None]]
    measure: str
    margin: float
    threshold: float
    baseline: str
    comparisons: list[Comparison]
    notices: list[str]
    checks: list[str]
    terms: str

    def values(self, variant: str, key: str) -> list[float | None]:
        """A statistic of every finished run of a variant; unfinished runs are not compared with finished ones."""
        return [self.statistics[run.name][key] for run in self.collection.variants[variant] if run.finished]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for ``--json``."""
        return {
            "measure": self.measure,
            "margin": self.margin,
            "threshold": self.threshold,
            "baseline": self.baseline,
            "notices": self.notices,
            "checks": self.checks,
            "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
            "runs": [
                {"run": run.name, "variant": run.variant, "seed": run.seed, "finished": run.finished}
                | self.statistics[run.name]
                for run in self.collection.runs
            ],
        }


def check_terms(measure: str, margin: float | None) -> None:
    """Check the measure and the margin.

    Raises:
        RunError: there is no such measure, or the margin is not a number above 0.
    """
    if measure not in MEASURES:
        raise RunError(f"--measure={measure}: no such measure; {did_you_mean(measure, MEASURES)}")
    if margin is not None and not 0 < margin < math.inf:
        raise RunError(f"--margin={margin}: differences below the margin do not matter; set a number above 0")


def judge(
    collection: Collection,
    *,
    baseline: str | None = None,
    measure: str = "final",
    margin: float | None = None,
    threshold: float | None = None,
) -> Judgement:
    """Statistics of every run, and a comparison of every variant with the baseline. Unfinished runs are not judged.

    Args:
        baseline: a variant's name; by default adamw where there is one, else the first variant.
        measure: one of `MEASURES`.
        margin: smaller differences do not matter, in units of reward; by default 0.05 of the reward range.
        threshold: the reward up to which steps, tokens and seconds are counted; by default the middle of the range.

    Raises:
        RunError: there is no such baseline or measure, or the margin is not above 0.
    """
    check_terms(measure, margin)
    low, high, origin = reward_range(collection)
    width = high - low
    share = "" if margin is not None else f" ({_MARGIN_SHARE} of the reward range of {width:.3g}, {origin})"
    margin = _MARGIN_SHARE * width if margin is None else margin
    threshold = low + _THRESHOLD_SHARE * width if threshold is None else threshold
    statistics = {run.name: run_statistics(run, threshold) for run in collection.runs}
    variants = collection.variants
    baseline = _default_baseline(variants) if baseline is None else baseline
    values = {
        variant: [(run.seed, statistics[run.name][measure]) for run in runs if run.finished]
        for variant, runs in variants.items()
    }
    return Judgement(
        collection=collection,
        statistics=statistics,
        measure=measure,
        margin=margin,
        threshold=threshold,
        baseline=baseline,
        comparisons=compare_to_baseline(values, baseline, margin),
        notices=_notices(collection),
        checks=pairing(collection),
        terms=f"Measure: {measure}, {MEASURES[measure]}. Margin: {margin:.3g}{share}. Threshold: {threshold:.3g}.",
    )


def _default_baseline(variants: dict[str, list[History]]) -> str:
    """The variant of AdamW with the shortest name, which has the fewest settings of its own; else the first variant."""

    def is_adamw(name: str, runs: list[History]) -> bool:
        optimizer = runs[0].recipe.get("optimizer", {}).get("name")
        return optimizer == "adamw" or (optimizer is None and name.partition("-")[0] == "adamw")

    found = [name for name, runs in variants.items() if is_adamw(name, runs)]
    return min(found, key=len, default=next(iter(variants)))


def _notices(collection: Collection) -> list[str]:
    found = [f"left out: {reason}" for reason in collection.left_out]
    unfinished = [run for run in collection.runs if not run.finished]
    if unfinished:
        shown = ", ".join(
            f"{run.name} ({int(run.columns['step'][-1])}/{run.num_planned or '?'} steps)" for run in unfinished[:5]
        )
        more = f" and {len(unfinished) - 5} more" if len(unfinished) > 5 else ""
        found.append(f"unfinished, so drawn and not judged: {shown}{more}")
    # A run that stopped early (`algorithm.stop_at`) has made fewer steps than were planned.
    lengths = {int(run.columns["step"][-1]) for run in collection.runs if run.finished and run.num_planned}
    if len(lengths) > 1:
        steps = ", ".join(map(str, sorted(lengths)))
        found.append(f"runs have different lengths: {steps} steps; each number is of all steps that its run made")
    return found


def run_statistics(run: History, threshold: float) -> dict[str, float | None]:
    """The statistics of one run, by name; None where the run did not record what is needed.

    ``final``, ``best``, ``auc``: see `MEASURES`. ``accuracy``: mean of the last tenth of the steps. ``steps_to``,
    ``tokens_to``, ``seconds_to``: until the mean reward of 5 steps reaches `threshold`; None where it never does.
    ``largest_drop``: how far the mean reward of 5 steps falls below its highest earlier value. ``spikes``: number of
    steps whose gradient norm is over 3 times the median of the 20 before. ``non_finite``: number of steps whose reward,
    loss or gradient norm was not finite. ``seconds_per_step``: median.
    """
    steps, rewards = run.points("reward")
    level = trailing_mean(rewards, _WINDOW)
    settled = level[min(_WINDOW, len(level)) - 1 :]
    reached = np.flatnonzero(settled >= threshold)
    step_reached = steps[reached[0] + len(level) - len(settled)] if len(reached) else None
    span = steps[-1] - steps[0]
    _, accuracy = run.points("accuracy")
    _, norms = run.points("grad_norm")
    ends, seconds = (np.diff(values, prepend=0.0) for values in run.points("seconds"))
    seconds = seconds[ends > 0] / ends[ends > 0]  # other programs may log every tenth step only
    return {
        "final": last_tenth(rewards),
        "best": float(settled.max()),
        "auc": float(integrate.trapezoid(rewards, steps) / span) if span else float(rewards[0]),
        "steps_to": None if step_reached is None else float(step_reached),
        **{f"{axis}_to": _at_step(run, axis, step_reached) for axis in ("tokens", "seconds")},
        "accuracy": last_tenth(accuracy) if len(accuracy) else None,
        "largest_drop": float((np.maximum.accumulate(settled) - settled).max()),
        "spikes": float(_count_spikes(norms)) if len(norms) else None,
        "non_finite": float(run.columns["non_finite"].sum()) if "non_finite" in run.columns else 0.0,
        "seconds_per_step": float(np.median(seconds)) if len(seconds) else None,
    }


def last_tenth(values: np.ndarray) -> float:
    """Mean of the last tenth of `values`, (S,); the tenth is rounded up to whole steps."""
    return float(values[-math.ceil(len(values) / 10) :].mean())


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Entry i is the mean of values[i - window + 1 .. i], of fewer values at the start; (S,) to (S,)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def reward_range(collection: Collection) -> tuple[float, float, str]:
    """Lowest and highest reward for margin and threshold, from the recipe or else from the runs; and which of both."""
    for run in collection.runs:
        rewards = run.recipe.get("rewards") or ()
        if rewards and all(reward.get("range") for reward in rewards):
            # The ends of each, weighted; a weight below 0 swaps them.
            ends = [[reward.get("weight", 1.0) * end for end in reward["range"]] for reward in rewards]
            low, high = (float(sum(pick(pair) for pair in ends)) for pick in (min, max))
            if high > low:
                return low, high, "the recipe's reward ranges and weights"
    every = np.concatenate([run.points("reward")[1] for run in collection.runs])
    low, high = float(every.min()), float(every.max())
    return low, high if high > low else low + 1.0, "from the lowest to the highest reward of these runs"


def _count_spikes(norms: np.ndarray) -> int:
    usual = [np.median(norms[:index]) for index in range(_SPIKE_NEEDS, min(_SPIKE_WINDOW, len(norms)))]
    if len(norms) > _SPIKE_WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(norms[:-1], _SPIKE_WINDOW)
        usual = np.concatenate([usual, np.median(windows, axis=1)])
    return int((norms[_SPIKE_NEEDS:] > _SPIKE_FACTOR * np.asarray(usual)).sum())


def _at_step(run: History, axis: str, step: float | None) -> float | None:
    """The value of an axis at `step`; None where the run did not record it."""
    if step is None or axis not in run.columns:
        return None
    value = run.columns[axis][run.columns["step"] == step][0]
    return float(value) if np.isfinite(value) else None
