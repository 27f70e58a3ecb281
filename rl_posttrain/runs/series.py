"""Means of a run's metrics, and its summary.

Everything here reads metrics rows (`RunDirectory.metrics()`) and nothing else. A value that is absent or null (a NaN is
written as null) is left out of every mean; it never counts as zero.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rl_posttrain.errors import RunError, did_you_mean
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


def first_last(rows: Sequence[dict], key: str = "reward", window: int = 5) -> tuple[float, float]:
    """Mean of `key` over the first, and over the last, `window` finished steps that recorded it.

    With fewer than 2 * window such steps the two means share steps; with fewer than `window` both are means of all.

    Raises:
        RunError: no row has a finite `key`.
    """
    values = recorded(rows, key)
    return statistics.fmean(values[:window]), statistics.fmean(values[-window:])


def step_seconds(rows: Sequence[dict]) -> list[float]:
    """Seconds of each step, with evaluation and bookkeeping: the differences of `seconds`, which counts from 0.

    Programs that log every tenth step have rows of several steps; such a row gives the mean of its steps.
    """
    found, before, start = [], 0.0, 0.0
    for row in rows:
        if (end := number(row, "seconds")) is not None:
            step = number(row, "step")
            step = before + 1 if step is None else step
            if step > before:
                found.append((end - start) / (step - before))
            before, start = step, end
    return found


def summarize(rows: Sequence[dict]) -> dict[str, Any]:
    """The numbers of `summary.json`; docs/metrics.md says what each name means.

    `reward_best` is the best mean of 5 consecutive steps (of all steps, where there are fewer), because a single good
    step can be luck.

    Returns:
        Numbers by name; None for what no row recorded (accuracy, tokens, seconds).

    Raises:
        RunError: no finished step, or none with a finite reward.
    """
    first, last = first_last(rows)
    rewards = numbers(rows, "reward")
    accuracies = numbers(rows, "accuracy")
    accuracy_first, accuracy_last = first_last(rows, "accuracy") if accuracies else (None, None)
    per_step = step_seconds(rows)
    return {
        "steps": rows[-1]["step"],
        "reward_first5": first,
        "reward_last5": last,
        "reward_gain": last - first,
        "reward_best": max(smooth(rewards, 5)[min(4, len(rewards) - 1) :]),
        "accuracy_first5": accuracy_first,
        "accuracy_last5": accuracy_last,
        "seconds": max(numbers(rows, "seconds"), default=None),
        "tokens": max((int(value) for value in numbers(rows, "tokens")), default=None),
        "seconds_per_step": statistics.median(per_step) if per_step else None,
        "guards": {
            key.removeprefix("guards/"): int(math.fsum(numbers(rows, key)))
            for key in sorted({key for row in rows for key in row if key.startswith("guards/")})
        },
        "skipped_updates": int(math.fsum(numbers(rows, "skipped_updates"))),
        "rollbacks": len(numbers(rows, "rolled_back_to")),
        **{f"seconds_{phase}": math.fsum(numbers(rows, f"time/{phase}")) for phase in PHASES},
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
