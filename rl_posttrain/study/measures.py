"""Statistics of one run. Every window is in steps, so that a run that logs every tenth step is measured as the others.

A row stands for the steps since the row before it: a mean over steps weighs each row by them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate

from rl_posttrain.study.histories import History
from rl_posttrain.study.outcomes import last_tenth_of, usual_distance

# What a verdict can be about. The user chooses one before looking: every further measure is a further chance of error.
# There is no "best": the highest point of a noisier curve, or of one with more rows, is higher by luck.
MEASURES = {
    "final": "mean reward of the last tenth of the steps",
    "auc": "area under the reward curve over the steps, divided by their number",
}
_WINDOW = 5  # rows at the common distance, of the trailing mean for threshold and drop: one good step can be luck
_MOST_PLACES = 10  # for each row
_SPIKE_FACTOR, _SPIKE_WINDOW, _SPIKE_NEEDS = 3.0, 20, 5


@dataclass(frozen=True)
class Ruler:
    """What the runs of a comparison are measured with, in steps.

    Attributes:
        distance: between two rows of the run that logs most rarely. Curves are looked at so often, and no more often.
        start, end: the steps that the area is taken over: those that every finished run has.
    """

    distance: float
    start: float
    end: float

    @property
    def window(self) -> float:
        """Steps of the trailing mean of `level`."""
        return _WINDOW * self.distance


def common_ruler(runs: Sequence[History]) -> Ruler:
    """The ruler for all of `runs`; the area is over what all finished ones cover (of all, where none is finished)."""
    curves = [run.points("reward")[0] for run in runs]
    whole = [curve for run, curve in zip(runs, curves, strict=True) if run.finished] or curves
    start, end = max(curve[0] for curve in whole), min(curve[-1] for curve in whole)
    return Ruler(max(map(usual_distance, curves)), start, max(start, end))


def run_statistics(run: History, threshold: float, ruler: Ruler | None = None) -> dict[str, float | None]:
    """The statistics of one run, by name; None where the run did not record what is needed.

    ``final``, ``auc``: see `MEASURES`; None for a run that failed. ``accuracy``: mean of the last tenth of the steps.
    ``steps_to``, ``tokens_to``, ``seconds_to``: until the level reaches `threshold`; None where it never does. The
    level is the mean reward of 5 steps, or of 5 times the distance between the rows of the run that logs most rarely.
    ``largest_drop``: how far the level falls below its highest earlier value. ``spikes``: number of rows, at the common
    distance, whose gradient norm is over 3 times the median of the 20 before. ``non_finite``: number of steps whose
    reward, loss or gradient norm was not finite. ``seconds_per_step``: median.

    Args:
        ruler: of the runs that this one is compared with; by default its own.
    """
    ruler = ruler or common_ruler([run])
    steps, rewards = run.points("reward")
    places, levels = level(steps, rewards, ruler.window, ruler.distance)
    reached = np.flatnonzero(levels >= threshold - 1e-9 * (1 + abs(threshold)))
    step_reached = places[reached[0]] if len(reached) else None
    norms = _at_distance(*run.points("grad_norm"), ruler.distance)
    ends, seconds = (np.diff(values, prepend=0.0) for values in run.points("seconds"))
    seconds = seconds[ends > 0] / ends[ends > 0]  # other programs may log every tenth step only
    failed = run.outcome.failed
    return {
        "final": None if failed else last_tenth(steps, rewards),
        "auc": None if failed else _area(steps, rewards, ruler),
        "steps_to": None if step_reached is None else float(step_reached),
        **{f"{axis}_to": _at_step(run, axis, step_reached) for axis in ("tokens", "seconds")},
        "accuracy": None if failed or "accuracy" not in run.columns else last_tenth(*run.points("accuracy")),
        "largest_drop": float((np.maximum.accumulate(levels) - levels).max()),
        "spikes": float(_count_spikes(norms)) if len(norms) else None,
        "non_finite": float(run.columns["non_finite"].sum()) if "non_finite" in run.columns else 0.0,
        "seconds_per_step": float(np.median(seconds)) if len(seconds) else None,
    }


def last_tenth(steps: np.ndarray, values: np.ndarray) -> float:
    """Mean over the last tenth of the steps, rounded up to whole rows; (S,) each."""
    return mean_over(steps, values, steps[-1] - last_tenth_of(steps), steps[-1])


def mean_over(steps: np.ndarray, values: np.ndarray, start: float, end: float) -> float:
    """Mean of `values`, (S,), over the steps after `start` up to `end`."""
    edges = _edges(steps)
    shares = np.maximum(0.0, np.minimum(edges[1:], end) - np.maximum(edges[:-1], start))
    return float(np.average(values, weights=shares))


def level(steps: np.ndarray, values: np.ndarray, window: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Means over the `window` steps before a place, and the places, every `distance` steps; (P,) each.

    The first place is after one window; of a run that is shorter than that, the one place is its end.
    """
    edges = _edges(steps)
    sums = np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])
    window = min(window, edges[-1] - edges[0])
    # A row that is far from all others must not make billions of places.
    distance = max(distance, (edges[-1] - edges[0]) / (_MOST_PLACES * len(steps)))
    places = np.arange(edges[0] + window, edges[-1] + distance * 1e-6, distance)
    return places, (np.interp(places, edges, sums) - np.interp(places - window, edges, sums)) / window


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Entry i is the mean of values[i - window + 1 .. i], of fewer values at the start; (S,) to (S,)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _edges(steps: np.ndarray) -> np.ndarray:
    """Where each row's steps begin, and where those of the last one end; (S,) to (S + 1,)."""
    return np.concatenate([[steps[0] - usual_distance(steps)], steps])


def _area(steps: np.ndarray, rewards: np.ndarray, ruler: Ruler) -> float:
    start, end = max(ruler.start, steps[0]), min(ruler.end, steps[-1])
    if start >= end:
        return float(np.interp(end, steps, rewards))
    inside = (steps > start) & (steps < end)
    x = np.concatenate([[start], steps[inside], [end]])
    y = np.concatenate([[np.interp(start, steps, rewards)], rewards[inside], [np.interp(end, steps, rewards)]])
    return float(integrate.trapezoid(y, x) / (end - start))


def _at_distance(steps: np.ndarray, values: np.ndarray, distance: float) -> np.ndarray:
    """The values at every `distance` steps, of the first row at or after each place."""
    if len(steps) < 2:
        return values
    distance = max(distance, (steps[-1] - steps[0]) / (_MOST_PLACES * len(steps)))
    places = np.arange(steps[0], steps[-1] + distance * 1e-6, distance)
    rows = np.searchsorted(steps, places - distance * 1e-6)
    return values[np.unique(np.minimum(rows, len(steps) - 1))]


def _count_spikes(norms: np.ndarray) -> int:
    usual = [np.median(norms[:index]) for index in range(_SPIKE_NEEDS, min(_SPIKE_WINDOW, len(norms)))]
    if len(norms) > _SPIKE_WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(norms[:-1], _SPIKE_WINDOW)
        usual = np.concatenate([usual, np.median(windows, axis=1)])
    return int((norms[_SPIKE_NEEDS:] > _SPIKE_FACTOR * np.asarray(usual)).sum())


def _at_step(run: History, axis: str, step: float | None) -> float | None:
    """The value of an axis at the first row at or after `step`; None where the run did not record it."""
    if step is None or axis not in run.columns:
        return None
    row = np.searchsorted(run.columns["step"], step - 1e-6)
    value = run.columns[axis][min(row, len(run.columns["step"]) - 1)]
    return float(value) if math.isfinite(value) else None
