"""The tables of a judgement, for the terminal and the page.

A table is a dict of ``title``, ``note``, ``columns`` (``key``, ``label``, ``kind``: text, interval or number, ``help``)
and ``rows``. A cell is text, or a dict of ``text``, the ``value`` that it is sorted by, and the ``class`` of a verdict
(good, bad, even, open).
"""

from collections.abc import Sequence
from typing import Any

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.equivalence import Comparison
from rl_posttrain.study.histories import History, recipe_differences
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.outcomes import Share
from rl_posttrain.study.summaries import largest, mean_and_deviation, total
from rl_posttrain.study.survival import AXES_TO, TimeTo

CLASSES = {"better": "good", "worse": "bad", "equivalent": "even", "undecided": "open", "none": "open"}
_WORDS = {"none": "no verdict"}


def verdict_table(judgement: Judgement) -> dict[str, Any]:
    """A row per variant: means over its seeds, and how it compares with the baseline."""
    results = {comparison.variant: comparison for comparison in judgement.comparisons}
    rows = []
    for variant, runs in judgement.collection.planned.items():
        running = sum(run.outcome.running for run in runs)
        ended = len(runs) - running
        more = f" + {running} running" if running else ""
        row: dict[str, Any] = {
            "variant": variant,
            "seeds": {"text": f"{ended}{more}", "value": ended},
            "failed": _share(judgement.failed[variant]),
            "collapsed": _share(judgement.collapsed[variant]),
        }
        for key in ("final", "auc", "accuracy"):
            row[key] = _mean_and_spread(judgement.values(variant, key))
        for axis, words in AXES_TO.items():
            row[f"{words}_to"] = _median_and_count(judgement.times.get(axis, {}).get(variant))
        row["seconds_per_step"] = _mean_and_spread(judgement.values(variant, "seconds_per_step"), ".2f")
        if variant == judgement.baseline:
            row["verdict"] = "baseline"
        elif (result := results[variant]).difference is None:
            row["verdict"] = {"text": _WORDS[result.word], "class": CLASSES[result.word]}
        else:
            row |= {
                "difference": number_cell(result.difference, "+.3f"),
                "interval": f"{result.low:+.3f} to {result.high:+.3f}",
                "p_different": number_cell(result.p_different, ".2g"),
                "p_equivalent": number_cell(result.p_equivalent, ".2g"),
                "verdict": {"text": _WORDS.get(result.word, result.word), "class": CLASSES[result.word]},
                "needed": _seeds_needed(result),
            }
        rows.append(row)
    threshold, margin = f"{judgement.threshold:.3g}", f"{judgement.margin:.3g}"
    return {
        "title": f"Verdicts against {judgement.baseline}",
        "note": f"{judgement.terms} Numbers are means over seeds ± standard deviation; in the measure failed runs "
        "count, in the others they do not. Shares of runs that failed or collapsed have their 95 % interval. Steps, "
        "tokens and seconds to the threshold are medians over all seeds, also those that never got there. P values are "
        "corrected for the number of variants by Holm's method.",
        "columns": [
            column("variant", "Variant", "text"),
            column("verdict", "Verdict", "text"),
            column("difference", "Difference", help=f"Variant minus baseline, of the measure {judgement.measure}."),
            column("interval", "95 % interval", "interval", help="Of the difference."),
            column("p_different", "p different", help="P value of the two-sided test that the difference is 0."),
            column("p_equivalent", "p equivalent", help=f"P value of the test that it is {margin} or more."),
            column("seeds", "Seeds", help="Runs that were planned, and those of them that still train."),
            column("failed", "Failed", help="Ended early or in values that are not finite; they count as the worst."),
            column("collapsed", "Collapsed", help="Ended far below what they or their other seeds had reached."),
            column("final", "Final reward", help="Mean of the last tenth of the steps."),
            column("auc", "Area", help="Area under the reward curve, divided by the number of steps."),
            column("accuracy", "Accuracy", help="Mean of the last tenth of the steps."),
            column("steps_to", f"Steps to {threshold}", help=f"Until the mean reward of 5 steps is {threshold}."),
            column("tokens_to", f"Tokens to {threshold}"),
            column("seconds_to", f"Seconds to {threshold}"),
            column("seconds_per_step", "s/step", help="Median seconds per step."),
            column("needed", "Seeds to decide", help="With a power of 0.8, if all stays as it is; with its interval."),
        ],
        "rows": rows,
    }  # fmt: skip


def times_table(judgement: Judgement) -> dict[str, Any]:
    """A row per variant and axis: how long it took to the threshold."""
    rows = []
    for axis, by_variant in judgement.times.items():
        for variant, found in by_variant.items():
            rows.append(
                {
                    "variant": variant,
                    "axis": AXES_TO[axis],
                    "reached": {"text": f"{found.num_reached} of {found.num_runs}", "value": found.num_reached},
                    "median": _median_time(found),
                    "median_interval": _time_interval(found.median_low, found.median_high),
                    "mean": number_cell(found.mean, ",.0f"),
                    "mean_interval": _time_interval(found.mean_low, found.mean_high),
                    "horizon": number_cell(found.horizon, ",.0f"),
                }
            )
    return {
        "title": f"Time to a reward of {judgement.threshold:.3g}{' of the range' if judgement.tasks else ''}",
        "note": "Until the mean reward of 5 steps gets there. Every run counts (Kaplan and Meier): "
        "one that did not get there is longer than its planned length, and so is one that failed.",
        "columns": [
            column("variant", "Variant", "text"),
            column("axis", "In", "text"),
            column("reached", "Got there", help="Runs."),
            column("median", "Median", help="When half of the runs are there."),
            column("median_interval", "95 % interval", "interval", help="Of the median, from log-log limits. "
            "Few runs do not bound it above."),
            column("mean", "Restricted mean", help="Mean of the smaller of the time and the horizon."),
            column("mean_interval", "95 % interval", "interval", help="Of the restricted mean, by Student's t."),
            column("horizon", "Horizon", help="As far as every variant was followed; a run that never got there counts "
            "so much in the restricted mean."),
        ],
        "rows": rows,
    }  # fmt: skip


def stability_table(judgement: Judgement) -> dict[str, Any]:
    rows = []
    for variant in judgement.collection.variants:
        drops = judgement.values(variant, "largest_drop", with_failed=True)
        mean = mean_and_deviation(drops)
        rows.append(
            {
                "variant": variant,
                "largest_drop": number_cell(largest(drops), ".3f"),
                "mean_drop": number_cell(mean[0] if mean else None, ".3f"),
                "spikes": number_cell(total(judgement.values(variant, "spikes", with_failed=True)), ".0f"),
                "non_finite": number_cell(total(judgement.values(variant, "non_finite", with_failed=True)), ".0f"),
            }
        )
    return {
        "title": "Stability",
        "note": "A drop is how far the mean reward of 5 steps falls below its highest earlier value. A spike is a step "
        "whose gradient norm is more than 3 times the median of the 20 steps before it. Failed runs count.",
        "columns": [
            column("variant", "Variant", "text"),
            column("largest_drop", "Largest drop", help="The largest of all seeds."),
            column("mean_drop", "Mean drop", help="The largest drop of each seed, averaged over the seeds."),
            column("spikes", "Gradient spikes", help="Number of steps, of all seeds together."),
            column("non_finite", "Not finite", help="Steps with a reward, loss or gradient norm that was not finite."),
        ],
        "rows": rows,
    }  # fmt: skip


def seeds_table(judgement: Judgement) -> dict[str, Any]:
    """A row per run."""
    rows = []
    for run in [*judgement.collection.runs, *judgement.collection.absent]:
        found = judgement.statistics.get(run.name, {})
        row: dict[str, Any] = {
            "run": run.name, "variant": run.variant, "seed": number_cell(run.seed, "d"),
            "state": state_of(run),
        }  # fmt: skip
        if judgement.tasks:
            row["task"] = run.task
        for key, form in (
            ("final", ".3f"),
            ("auc", ".3f"),
            ("accuracy", ".3f"),
            ("largest_drop", ".3f"),
        ):
            row[key] = number_cell(found.get(key), form)
        for key in ("steps_to", "tokens_to", "seconds_to"):
            row[key] = number_cell(found.get(key), ",.0f")
        rows.append(row)
    threshold = f"{judgement.threshold:.3g}"
    return {
        "title": "Every run",
        "note": "A dash stands where a run did not record a value or never reached the threshold, and for the final "
        "reward and the area of a failed run.",
        "columns": [
            column("run", "Run", "text"),
            column("variant", "Variant", "text"),
            *([column("task", "Task", "text")] if judgement.tasks else []),
            column("seed", "Seed"),
            column("state", "State", "text"),
            column("final", "Final reward"),
            column("auc", "Area"),
            column("accuracy", "Accuracy"),
            column("steps_to", f"Steps to {threshold}"),
            column("tokens_to", f"Tokens to {threshold}"),
            column("seconds_to", f"Seconds to {threshold}"),
            column("largest_drop", "Largest drop"),
        ],
        "rows": rows,
    }


def differences_table(judgement: Judgement) -> dict[str, Any]:
    """A row per variant, and a column for each recipe key in which variants differ."""
    differences = recipe_differences([*judgement.collection.runs, *judgement.collection.absent])
    rows = [
        {"variant": variant, **{key: values.get(variant, "-") for key, values in differences.items()}}
        for variant in judgement.collection.planned
    ]
    return {
        "title": "What differs between the recipes",
        "note": "All other keys are equal in all variants." if differences else "The recipes do not differ.",
        "columns": [column("variant", "Variant", "text"), *(column(key, key, "text") for key in differences)],
        "rows": rows,
    }


def state_of(run: History | Absent) -> str:
    """How a run ended and why, or how far it is."""
    if run.outcome.finished:
        done = int(run.columns["step"][-1])
        return "stopped early" if run.recipe and done < run.num_planned else "finished"
    return f"{run.outcome.word}: {run.outcome.reason}"


def cell_text(cell: Any) -> str:
    """What a cell shows; a dash where it is empty."""
    return "-" if cell is None else cell["text"] if isinstance(cell, dict) else str(cell)


def column(key: str, label: str, kind: str = "number", help: str = "") -> dict[str, str]:
    """A column of a table."""
    return {"key": key, "label": label, "kind": kind, "help": help}


def number_cell(value: float | None, form: str) -> dict[str, Any] | None:
    """A number in the format `form`; an empty cell for None."""
    return None if value is None else {"text": format(value, form), "value": value}


def _share(share: Share) -> dict[str, Any]:
    return {"text": share.words(), "value": share.count}


def _seeds_needed(result: Comparison) -> dict[str, Any] | None:
    """The number of seeds that would decide, with its interval; a dash stands for more than anybody runs."""
    if result.seeds_needed is None:
        return None
    low, high = ("-" if number is None else str(number) for number in result.seeds_between)
    return {"text": f"{result.seeds_needed} ({low} to {high})", "value": result.seeds_needed}


def _mean_and_spread(values: Sequence[float | None], form: str = ".3f") -> dict[str, Any] | None:
    found = mean_and_deviation(values)
    if found is None:
        return None
    mean, deviation = found
    spread = "" if deviation is None else f" ± {deviation:{form}}"
    return {"text": f"{mean:{form}}{spread}", "value": mean}


def _median_time(found: TimeTo) -> dict[str, Any]:
    if found.median is None:
        return {"text": f"over {found.times[-1]:,.0f}", "value": found.times[-1]}
    return {"text": f"{found.median:,.0f}", "value": found.median}


def _median_and_count(found: TimeTo | None) -> dict[str, Any] | None:
    if found is None:
        return None
    cell = _median_time(found)
    if 0 < found.num_reached < found.num_runs:
        cell["text"] += f" ({found.num_reached} of {found.num_runs} seeds)"
    return cell


def _time_interval(low: float | None, high: float | None) -> str | None:
    """An interval of a time; an end that the runs do not bound is open."""
    if low is None and high is None:
        return None
    return f"{'0' if low is None else format(low, ',.0f')} to {'no bound' if high is None else format(high, ',.0f')}"
