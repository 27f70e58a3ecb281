"""The tables of a judgement over several tasks: each task by itself, and results that bear outliers."""

from typing import Any

from rl_posttrain.study.estimates import Estimate
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.robust import Interval
from rl_posttrain.views.tables import column, number_cell


def tasks_table(judgement: Judgement) -> dict[str, Any] | None:
    """A row per task and variant; None where there is one task."""
    if judgement.tasks is None:
        return None
    rows = []
    for task, part in judgement.tasks.judgements.items():
        low, high = judgement.tasks.ranges[task].low, judgement.tasks.ranges[task].high
        for variant, runs in part.collection.planned.items():
            values = [value for value in part.values(variant, part.measure) if value is not None]
            row: dict[str, Any] = {
                "task": task,
                "variant": variant,
                "runs": number_cell(len(runs), "d"),
                "range": f"{low:g} to {high:g}",
                "mean": number_cell(sum(values) / len(values) if values else None, ".3f"),
            }
            found = judgement.tasks.estimates[task].get(variant)
            if isinstance(found, Estimate):
                row["difference"] = number_cell(found.shown, "+.3f")
                row["interval"] = "{:+.3f} to {:+.3f}".format(*found.interval())
            rows.append(row)
    return {
        "title": "Each task by itself",
        "note": "These intervals are not corrected for the number of tasks: they show where a difference comes from, "
        "and are no verdicts.",
        "columns": [
            column("task", "Task", "text"),
            column("variant", "Variant", "text"),
            column("runs", "Runs"),
            column("range", "Reward range", "interval"),
            column("mean", "Mean", help=f"Of the measure {judgement.measure}, in units of the task's reward."),
            column("difference", "Difference", help="Variant minus baseline, as a share of the task's range."),
            column("interval", "95 % interval", "interval", help="Of the difference, by Student's t."),
        ],
        "rows": rows,
    }


def robust_table(judgement: Judgement) -> dict[str, Any] | None:
    """A row per variant: interquartile mean and probability of improvement; None where there is one task."""
    if judgement.tasks is None:
        return None
    rows = [
        {
            "variant": variant,
            "middle": number_cell(middle.value, ".3f"),
            "middle_interval": _interval(middle),
            "improvement": number_cell(improved.value if improved else None, ".2f"),
            "improvement_interval": _interval(improved),
        }
        for variant, middle in judgement.tasks.middle.items()
        for improved in [judgement.tasks.improvement.get(variant)]
    ]
    return {
        "title": "All tasks together",
        "note": "Scores are shares of a task's reward range. Intervals are of a stratified bootstrap: runs are drawn "
        "anew within each task. They are too short where a task has few runs (docs/results/intervals.md), so the "
        "verdict stands on the t test.",
        "columns": [
            column("variant", "Variant", "text"),
            column("middle", "Interquartile mean", help="Mean of the middle half of all scores."),
            column("middle_interval", "95 % interval", "interval"),
            column(
                "improvement",
                "Probability of improvement",
                help=f"Chance that a run is better than one of {judgement.baseline} on a task picked at random; ties "
                "count half.",
            ),
            column("improvement_interval", "95 % interval", "interval"),
        ],
        "rows": rows,
    }


def _interval(found: Interval | None) -> str | None:
    return None if found is None else f"{found.low:.3f} to {found.high:.3f}"
