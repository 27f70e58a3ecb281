"""What the rows of a run say of its goals: which step is the best, and whether the run may stop.

`checkpoint.keep_best` and `algorithm.stop_at` of a recipe name metrics. Both are decided by rows alone, so a resumed
run decides as the one that was never stopped.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rl_posttrain.runs.metrics import find_metric
from rl_posttrain.runs.series import number


def default_mode(metric: str) -> str:
    """``min`` for a metric where lower is better, else ``max``."""
    entry = find_metric(metric)
    return "min" if entry is not None and entry.better == "lower" else "max"


def is_better(metric: str, mode: str, row: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Whether a row's metric is better than the best so far; one that is only as good is not.

    Args:
        metric, mode: of `checkpoint.keep_best`.
        best: as `best_row` gives it.
    """
    value = number(row, metric)
    if value is None or best is None:
        return value is not None
    return value > best["value"] if mode == "max" else value < best["value"]


def as_best(metric: str, mode: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What best.json says of a row: ``step``, ``metric``, ``mode`` and ``value``."""
    return {"step": row["step"], "metric": metric, "mode": mode, "value": number(row, metric)}


def best_row(
    metric: str, mode: str, rows: Sequence[Mapping[str, Any]], steps: Collection[int]
) -> dict[str, Any] | None:
    """The best of the rows of `steps`, as `as_best` gives it; None where none of them has the metric."""
    best = None
    for row in rows:
        if row["step"] in steps and is_better(metric, mode, row, best):
            best = as_best(metric, mode, row)
    return best


def reached(stop_at: Mapping[str, float] | None, row: Mapping[str, Any]) -> bool:
    """Whether a row has reached all of `stop_at`.

    A metric where lower is better reaches a value from above, every other one from below. A row without one of the
    metrics has not reached it.
    """
    if not stop_at:
        return False
    values = {metric: number(row, metric) for metric in stop_at}
    return all(
        value is not None and (value <= stop_at[metric] if default_mode(metric) == "min" else value >= stop_at[metric])
        for metric, value in values.items()
    )


def stop_in_words(stop_at: Mapping[str, float], row: Mapping[str, Any], num_steps: int) -> str:
    """Why a run stopped: ``step 12 of 30: eval/accuracy 0.9375 has reached 0.9``."""
    parts = [f"{metric} {number(row, metric):.4g} has reached {value:g}" for metric, value in stop_at.items()]
    return f"step {row['step']} of {num_steps}: {', '.join(parts)}"
