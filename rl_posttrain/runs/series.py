"""Means of a run's metrics, and its summary.

Everything here reads metrics rows (`RunDirectory.metrics()`), or their columns, and nothing else. A value that is
absent or null (a NaN is written as null) is left out of every mean; it never counts as zero.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.runs.columns import Columns
from rl_posttrain.runs.metrics import PHASES


def number(row: dict, key: str) -> float | None:
    """`row[key]` as a float; None where it is absent or not finite."""
    value = row.get(key)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def numbers(rows: Iterable[dict], key: str) -> list[float]:
    """The finite values of `key`, in step order; rows without one are skipped."""
    return [value for row in rows if (value := number(row, key)) is not None]


def smooth(values: Sequence[float | None], window: int) -> list[float]:
    """Trailing mean: entry i is the mean of the finite values among values[i - window + 1 .. i].

    It is trailing and not centred, so that no point of a curve depends on later values. The first window - 1 entries
    are means of fewer values; an entry with no finite value in its window is NaN. The result is as long as `values`.

    Raises:
        RunError: `window` is below 1.
    """
    if window < 1:
        raise RunError(f"smoothing={window}: a mean needs at least one step; set 1 (no smoothing) or more")
    means = []
    for end in range(1, len(values) + 1):
        part = [v for v in values[max(0, end - window) : end] if v is not None and math.isfinite(v)]
        means.append(statistics.fmean(part) if part else math.nan)
    return means


def first_last(values: np.ndarray, window: int = 5) -> tuple[float, float]:
    """Mean of the first, and of the last, `window` of `values`, (S,) and at least one.

    With fewer than 2 * window values the two means share some; with fewer than `window` both are means of all.
    """
    return float(values[:window].mean()), float(values[-window:].mean())


def step_seconds(columns: Columns) -> np.ndarray:
    """Seconds of each step, with evaluation and bookkeeping: the differences of `seconds`, which counts from 0.

    Programs that log every tenth step have rows of several steps; such a row gives the mean of its steps.
    """
    if "seconds" not in columns:
        return np.empty(0)
    kept = np.isfinite(columns["seconds"]) & np.isfinite(columns["step"])
    ends, seconds = (np.diff(columns[key][kept], prepend=0.0) for key in ("step", "seconds"))
    return seconds[ends > 0] / ends[ends > 0]


def summarize(columns: Columns) -> dict[str, Any]:
    """The numbers of `summary.json`; docs/metrics.md says what each name means.

    `reward_best` is the best mean of 5 consecutive steps (of all steps, where there are fewer), because a single good
    step can be luck.

    Args:
        columns: as `columns.columns_of` gives them.

    Returns:
        Numbers by name; None for what no row recorded (reward, accuracy, tokens, seconds).

    Raises:
        RunError: no finished step.
    """
    if not columns:
        raise RunError("metrics.jsonl: no finished step yet, so there is nothing to show; wait for its first step")
    values = {key: column[np.isfinite(column)] for key, column in columns.items()}
    rewards, accuracies = values.get("reward"), values.get("accuracy")
    (first, last), (accuracy_first, accuracy_last) = (
        (None, None) if found is None else first_last(found) for found in (rewards, accuracies)
    )
    per_step = step_seconds(columns)
    best = None
    if rewards is not None:
        best = float(np.lib.stride_tricks.sliding_window_view(rewards, min(5, len(rewards))).mean(axis=1).max())
    return {
        "steps": int(columns["step"][-1]),
        "reward_first5": first,
        "reward_last5": last,
        "reward_gain": None if rewards is None else last - first,
        "reward_best": best,
        "accuracy_first5": accuracy_first,
        "accuracy_last5": accuracy_last,
        "seconds": float(values["seconds"].max()) if "seconds" in values else None,
        "tokens": int(values["tokens"].max()) if "tokens" in values else None,
        "seconds_per_step": float(np.median(per_step)) if len(per_step) else None,
        "guards": {
            key.removeprefix("guards/"): int(values[key].sum()) for key in sorted(values) if key.startswith("guards/")
        },
        "skipped_updates": int(values["skipped_updates"].sum()) if "skipped_updates" in values else 0,
        "rollbacks": len(values.get("rolled_back_to", ())),
        **{f"seconds_{phase}": float(values.get(f"time/{phase}", np.zeros(1)).sum()) for phase in PHASES},
    }


def recorded(rows: Sequence[dict], key: str, run: str = "metrics.jsonl") -> list[float]:
    """The finite values of `key`, at least one.

    Raises:
        RunError: there is no finished step, or none that recorded `key`.
    """
    if not rows:
        raise RunError(
            f"{run}: no finished step yet, so there is nothing to show; wait for its first step, or leave it out"
        )
    values = numbers(rows, key)
    if not values:
        known = sorted({name for row in rows for name in row if name != "step" and number(row, name) is not None})
        raise RunError(f"{run}: no finished step recorded {key!r}; {did_you_mean(key, known)}")
    return values


def points(rows: Sequence[dict], key: str, window: int) -> tuple[list[int], list[float]]:
    """The steps that recorded `key`, and the trailing mean of `key` over `window` of these steps."""
    kept = [row for row in rows if number(row, key) is not None]
    return [row["step"] for row in kept], smooth(numbers(kept, key), window)
