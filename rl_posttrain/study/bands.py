"""The mean curve of a variant's runs and the band around it, for figures and for the terminal."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from rl_posttrain.study.histories import History
from rl_posttrain.study.measures import trailing_mean

_GRID = 200


Curve = tuple[np.ndarray, np.ndarray]


def drawn(runs: Sequence[History], key: str, axis: str, window: int) -> list[Curve]:
    """Each run's curve of trailing means over `window` points; runs that did not record `key` are left out."""
    curves = [run.points(key, axis) for run in runs]
    return [(x, trailing_mean(y, window)) for x, y in curves if len(x)]


def whole(runs: Sequence[History]) -> Sequence[History]:
    """The finished runs, or all where none is finished: an unfinished run would make the variant's mean shorter."""
    return [run for run in runs if run.finished] or runs


def band(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, mean, and half of the mean's 95 % confidence interval (Student's t; 0 for a single run), (P,) each.

    Where the curves have the same points, these are used; else an even grid over the part of the axis that all curves
    cover. Empty where there is no such part.
    """
    if all(np.array_equal(x, curves[0][0]) for x, _ in curves):
        x, values = curves[0][0], np.array([y for _, y in curves])
    else:
        start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        x = np.linspace(start, end, _GRID if start < end else int(start == end))
        values = np.array([np.interp(x, *curve) for curve in curves])
    if len(curves) == 1:
        return x, values[0], np.zeros(len(x))
    half = values.std(axis=0, ddof=1) / np.sqrt(len(curves)) * t95(len(curves))
    return x, values.mean(axis=0), half


def extremes(lines: Sequence[np.ndarray], num_bins: int) -> np.ndarray:
    """Places at which every peak shows: of each line the lowest and the highest value of each of `num_bins` bins.

    More points than pixels show nothing more, and a mean or every hundredth point hides peaks.

    Args:
        lines: (P,) each.

    Returns:
        (Q,) int, rising; all places where P is at most 2 * `num_bins`. The first and the last are always there.
    """
    number = len(lines[0])
    if number <= 2 * num_bins:
        return np.arange(number)
    starts = np.arange(num_bins) * number // num_bins
    found = [np.array([0, number - 1])]
    for line in lines:
        for sign in (1, -1):
            signed = sign * line
            highest = np.repeat(np.maximum.reduceat(signed, starts), np.diff(starts, append=number))
            places = np.flatnonzero(signed == highest)
            found.append(places[np.unique(np.searchsorted(starts, places, side="right"), return_index=True)[1]])
    return np.unique(np.concatenate(found))


def t95(number: int) -> float:
    """Half of a 95 % interval over `number` runs, in standard errors."""
    return float(stats.t.ppf(0.975, number - 1))
