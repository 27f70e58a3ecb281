"""Time until a threshold, where some runs never get there (Kaplan and Meier 1958).

The median over the runs that got there would leave the others out. Here every run counts: one that did not get there
is followed up to its end, and what is known of it is that its time is longer (it is censored).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.histories import Collection, History

# Axis of the metrics to the words of the tables.
AXES_TO = {"step": "steps", "tokens": "tokens", "seconds": "seconds"}


@dataclass(frozen=True)
class Followed:
    """How long one run was followed until it reached the threshold, or to its end where it never did."""

    time: float
    reached: bool


@dataclass(frozen=True)
class TimeTo:
    """The times of a variant's runs.

    Attributes:
        num_runs, num_reached: all runs, and those that got there.
        median, median_low, median_high: the first time at which half of the runs are there, with its 95 % interval
            (Brookmeyer and Crowley 1982, with log-log limits); None where the runs do not bound it.
        horizon: how far the restricted mean looks; the same for every variant of a comparison.
        mean, mean_low, mean_high: mean of the smaller of time and horizon, with its 95 % interval (Student's t of the
            pseudo-values; of a single run None).
        times: (P,) rising; where the share changes.
        shares: (P,) share of the runs that are there at each of `times`.
        shares_low, shares_high: (P,) its 95 % interval; None where all or no runs are there.
    """

    num_runs: int
    num_reached: int
    median: float | None
    median_low: float | None
    median_high: float | None
    horizon: float
    mean: float
    mean_low: float | None
    mean_high: float | None
    times: list[float]
    shares: list[float]
    shares_low: list[float | None]
    shares_high: list[float | None]


def times_to_threshold(
    collection: Collection, statistics: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, TimeTo]]:
    """By axis (step, tokens, seconds) and variant. Axes that no run recorded are left out, and so are running runs.

    A run that failed never gets there, whatever it had reached before; it is followed to its planned length.

    Args:
        statistics: by run, as `run_statistics` gives them.
    """
    planned = {
        variant: [run for run in runs if not run.outcome.running] for variant, runs in collection.planned.items()
    }
    found = {}
    for axis, words in AXES_TO.items():
        if not any(axis in run.columns for run in collection.runs):
            continue
        known = {
            variant: [
                one for run in runs if (one := _followed(run, axis, statistics.get(run.name, {}).get(f"{words}_to")))
            ]
            for variant, runs in planned.items()
        }
        longest = max((one.time for runs in known.values() for one in runs), default=1.0)
        # Of a run without a step it is only known that it never got there.
        found[axis] = times_to(
            {
                variant: [*known[variant], *[Followed(longest, False)] * (len(runs) - len(known[variant]))]
                for variant, runs in planned.items()
            }
        )
    return found


def _followed(run: History | Absent, axis: str, time: float | None) -> Followed | None:
    """How long a run was followed; None where it recorded nothing on that axis."""
    if time is not None and not run.outcome.failed:
        return Followed(time, True)
    if isinstance(run, Absent) or axis not in run.columns:
        return None
    known = np.isfinite(run.columns[axis])
    steps, values = run.columns["step"][known], run.columns[axis][known]
    planned = max(float(run.num_planned or 0), float(steps[-1]))
    # A failed run would have needed the tokens and seconds of its planned steps, at its own mean rate.
    return Followed(float(values[-1] * planned / steps[-1]) if steps[-1] > 0 else planned, False)


def times_to(groups: Mapping[str, Sequence[Followed]]) -> dict[str, TimeTo]:
    """The times of each group of runs, with one horizon for all; groups without runs are left out."""
    groups = {name: runs for name, runs in groups.items() if runs}
    if not groups:
        return {}
    horizon = common_horizon(list(groups.values()))
    return {name: time_to(runs, horizon) for name, runs in groups.items()}


def common_horizon(groups: Sequence[Sequence[Followed]]) -> float:
    """The longest time for which the curve of every group is known; never 0."""
    ends = [max(run.time for run in runs) for runs in groups]
    # A group whose runs all got there is known for ever.
    open_ends = [end for end, runs in zip(ends, groups, strict=True) if not all(run.reached for run in runs)]
    return min(open_ends, default=max(ends))


def time_to(runs: Sequence[Followed], horizon: float) -> TimeTo:
    """The times of one group of runs, at least one.

    Args:
        horizon: as `common_horizon` gives it.
    """
    below = _curve(runs)
    mean, number, half = _restricted_mean(runs, horizon), len(runs), None
    if number > 1:
        spread = _pseudo_values(runs, horizon).std(ddof=1)
        half = float(stats.t.ppf(0.975, number - 1) * spread / np.sqrt(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all or no runs are there: None below
        limits = below.confidence_interval(0.95, method="log-log")
    low, high = limits.low.probabilities, limits.high.probabilities
    times = below.quantiles
    return TimeTo(
        num_runs=number,
        num_reached=sum(run.reached for run in runs),
        median=_first(times, below.probabilities <= 0.5),
        median_low=_first(times, (low <= 0.5) | (below.probabilities == 0)),
        median_high=_first(times, high <= 0.5),
        horizon=horizon,
        mean=mean,
        mean_low=None if half is None else max(0.0, mean - half),
        mean_high=None if half is None else min(horizon, mean + half),
        times=times.tolist(),
        shares=(1 - below.probabilities).tolist(),
        shares_low=_known(1 - high),
        shares_high=_known(1 - low),
    )


def _curve(runs: Sequence[Followed]):
    """scipy's Kaplan-Meier curve of the share that is still below the threshold."""
    data = stats.CensoredData(
        uncensored=[run.time for run in runs if run.reached], right=[run.time for run in runs if not run.reached]
    )
    return stats.ecdf(data).sf


def _restricted_mean(runs: Sequence[Followed], horizon: float) -> float:
    """The area under the curve up to `horizon`."""
    below = _curve(runs)
    inside = below.quantiles < horizon
    edges = np.concatenate([[0.0], below.quantiles[inside], [horizon]])
    return float(np.diff(edges) @ np.concatenate([[1.0], below.probabilities[inside]]))


def _pseudo_values(runs: Sequence[Followed], horizon: float) -> np.ndarray:
    """What each of several runs adds to the restricted mean, (R,).

    They are pseudo-values (Andersen, Hansen and Klein 2004, doi:10.1007/s10985-004-4771-0). Where no run
    is censored before the horizon these are the smaller of time and horizon.
    """
    number, whole = len(runs), _restricted_mean(runs, horizon)
    without = [_restricted_mean([*runs[:index], *runs[index + 1 :]], horizon) for index in range(number)]
    return number * whole - (number - 1) * np.array(without)


def _first(times: np.ndarray, holds: np.ndarray) -> float | None:
    return float(times[np.argmax(holds)]) if holds.any() else None


def _known(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
