"""Metrics in columns: a float64 array a metric, with NaN on steps that did not record it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.metrics import METRICS

# Metric name to (S,) float64 values of the S finished steps.
Columns = dict[str, np.ndarray]
# 1 on the steps that recorded a number that was not finite.
NON_FINITE = "non_finite"


def columns_of(rows: list[dict]) -> Columns:
    """The columns of metrics rows. A null is a number that was not finite; what is no number is left out."""
    columns = {key: to_column([row.get(key) for row in rows]) for key in keys_of(rows)}
    lost = _must_be_finite(columns)
    columns[NON_FINITE] = np.array([float(any(key in row and row[key] is None for key in lost)) for row in rows])
    return {key: column for key, column in columns.items() if np.isfinite(column).any()}


def columns_of_arrays(columns: Mapping[str, np.ndarray], was_recorded: Mapping[str, np.ndarray]) -> Columns:
    """As `columns_of`, from arrays.

    Args:
        columns: (S,) float64 each; infinities become NaN.
        was_recorded: (S,) bool each: whether a step recorded a value, finite or not.
    """
    columns = {key: np.where(np.isfinite(column), column, np.nan) for key, column in columns.items()}
    lost = [key for key in _must_be_finite(columns) if key in columns]
    not_finite = [was_recorded[key] & np.isnan(columns[key]) for key in lost]
    found = {key: column for key, column in columns.items() if np.isfinite(column).any()}
    size = len(next(iter(columns.values()), ()))
    return found | {NON_FINITE: np.logical_or.reduce(not_finite).astype(float) if lost else np.zeros(size)}


def _must_be_finite(columns: Columns) -> list[str]:
    lost = [metric.name for metric in METRICS if metric.must_be_finite]
    # DeepSpeed's ZeRO-0 in float32 reports no gradient norm on any step.
    if "grad_norm" in columns and not np.isfinite(columns["grad_norm"]).any():
        lost.remove("grad_norm")
    return lost


def to_column(values: list[Any]) -> np.ndarray:
    """Values as float64; NaN for what is not a number."""
    if not set(map(type, values)) <= {int, float, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond all floats
        return np.array([value if abs(value or 0) < 2**1023 else None for value in values], dtype=np.float64)


def keys_of(rows: Iterable[dict]) -> list[str]:
    """The keys of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def step_of(row: dict, where: str, before: int) -> int:
    """The step of a row of metrics.

    Args:
        where: the row's place, for the error.
        before: the step of the row before it.

    Raises:
        RunError: it is no whole number above that.
    """
    step = row.get("step")
    if type(step) is not int or step <= before:
        said = "no step" if step is None else f"step={step!r:.40}"
        raise RunError(
            f"{where}: {said}, where a whole number above {before} belongs; the file is damaged: restore it, or "
            "resume the run, which takes its rows from the checkpoint"
        )
    return step
