"""Numbers of a variant over its runs, for tables and bars. Values that are None were not recorded and do not count."""

import statistics
from collections.abc import Sequence

import numpy as np

from rl_posttrain.runs.metrics import PHASES, plotted
from rl_posttrain.study.histories import Collection, History


def known(values: Sequence[float | None]) -> list[float]:
    """The values that were recorded."""
    return [value for value in values if value is not None]


def largest(values: Sequence[float | None]) -> float | None:
    """The largest known value; None where no value is known."""
    return max(known(values), default=None)


def total(values: Sequence[float | None]) -> float | None:
    """The sum of the known values; None where no value is known."""
    return sum(known(values)) if known(values) else None


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    """Mean and standard deviation, which a single value does not have; None where no value is known."""
    found = known(values)
    if not found:
        return None
    return statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None


def phase_seconds(collection: Collection) -> dict[str, list[float | None]]:
    """Mean seconds per step of each phase that some run recorded: a value for each variant."""
    found = {phase: [_mean(runs, f"time/{phase}") for runs in collection.variants.values()] for phase in PHASES}
    return {phase: values for phase, values in found.items() if known(values)}


def memory_gib(collection: Collection) -> dict[str, list[float | None]]:
    """GiB of optimizer state and peak memory, by the metric's words, where some run recorded it: a value per variant.

    The value is the largest of the variant's runs.
    """
    found = {
        metric.words: [_most(runs, metric.name) for runs in collection.variants.values()]
        for metric in plotted("memory")
    }
    return {
        words: [None if value is None else value / 2**30 for value in values]
        for words, values in found.items()
        if known(values)
    }


def _mean(runs: Sequence[History], key: str) -> float | None:
    means = [float(np.nanmean(run.columns[key])) for run in runs if key in run.columns]
    return statistics.fmean(means) if means else None


def _most(runs: Sequence[History], key: str) -> float | None:
    return max((float(np.nanmax(run.columns[key])) for run in runs if key in run.columns), default=None)
