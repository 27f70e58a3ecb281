"""What the page shows, as plain data."""

import datetime
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.metric import Metric
from rl_posttrain.runs.metrics import AXES, plotted
from rl_posttrain.study.along import Along
from rl_posttrain.study.bands import t95
from rl_posttrain.study.histories import History
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.summaries import memory_gib, phase_seconds
from rl_posttrain.study.survival import TimeTo
from rl_posttrain.views.designs import looks_table, sensitivity_charts, tuning_table
from rl_posttrain.views.report.looks import look
from rl_posttrain.views.tables import differences_table, seeds_table, stability_table, times_table, verdict_table
from rl_posttrain.views.task_tables import robust_table, tasks_table
from rl_posttrain.views.text import as_text

_MOST_POINTS = 24_000  # of all runs together, for each metric
_MOST_OF_A_RUN = 4_000  # more than a screen has pixels
_FEWEST_POINTS = 50
_MOST_SENTENCES = _MOST_IN_TITLE = 6
_MOST_COMMANDS = 100
_NUM_SAMPLES = 3
_SAMPLE_CHARACTERS = 4000


def make_payload(judgement: Judgement, command: str) -> dict[str, Any]:
    """Everything that the page shows; `page.render_page` says what each part is.

    Args:
        command: the command that makes this report again.
    """
    collection = judgement.collection
    variants = list(collection.variants)
    most = min(_MOST_OF_A_RUN, max(_FEWEST_POINTS, _MOST_POINTS // len(collection.runs)))
    charts = [metric for metric in plotted("page") if any(metric.name in run.columns for run in collection.runs)]
    tasks = list(collection.by_task)
    binned = max(-(-len(run.columns["step"]) // most) for run in collection.runs)
    # Variants of several seeds are drawn as means over them, and a mean of peaks would be no mean.
    peaks = binned > 1 and not collection.is_study
    kind = "the lowest or the highest" if peaks else "the mean"
    binning = f" A point is {kind} of up to {2 * binned if peaks else binned} steps." if binned > 1 else ""
    phases = phase_seconds(collection)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "title": _title(judgement),
        "headline": _headline(judgement),
        "notices": judgement.notices,
        "checks": judgement.checks,
        "footer": f"Made {made} by rl_posttrain from {len(collection.runs)} runs.",
        "axes": {axis: label for axis, label in AXES.items() if any(axis in run.columns for run in collection.runs)},
        "charts": [chart for metric in charts for chart in _charts(metric, _note(metric) + binning, tasks)],
        "variants": [
            {"label": label, "colour": look(index)[0], "dash": look(index)[1]} for index, label in enumerate(variants)
        ],
        "runs": [
            _run(run, variants.index(run.variant), [metric.name for metric in charts], most, peaks)
            | ({"task": tasks.index(run.task)} if judgement.tasks else {})
            for run in collection.runs
        ],
        "smoothing": 1 if peaks else 5,
        "t95": [None, None, *(round(t95(number), 4) for number in range(2, max(3, len(collection.runs) + 1)))],
        "phases": {"names": list(phases), "seconds": [_rounded(values) for values in phases.values()]},
        "along": _along(judgement, variants),
        "reached": _reached(judgement, variants),
        "profiles": _profiles(judgement, variants),
        "memory": [{"label": label, "gib": _rounded(values)} for label, values in memory_gib(collection).items()],
        "sensitivity": sensitivity_charts(judgement),
        "tables": {
            "verdict": verdict_table(judgement),
            "tuning": tuning_table(judgement),
            "looks": looks_table(judgement),
            "robust": robust_table(judgement),
            "tasks": tasks_table(judgement),
            "times": times_table(judgement),
            "stability": stability_table(judgement),
            "seeds": seeds_table(judgement),
            "differences": differences_table(judgement),
        },
        "samples": _samples(judgement),
        "environment": _environments(collection.runs),
        "commands": _commands(collection.runs, command),
    }


def _note(metric: Metric) -> str:
    """What stands below a chart's title, without the marks of Markdown."""
    direction = "" if metric.better == "neutral" else f" {metric.better.capitalize()} is better."
    return metric.meaning.replace("`", "") + direction


def _charts(metric: Metric, note: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One chart; of several tasks one for each where rewards are drawn, which have no mean over tasks."""
    chart = {"id": metric.name, "title": metric.heading, "unit": metric.unit, "note": note}
    if len(tasks) == 1 or metric not in plotted("rewards"):
        return [chart]
    return [
        chart | {"id": f"{metric.name}/{task}", "key": metric.name, "title": f"{metric.heading}: {task}", "task": place}
        for place, task in enumerate(tasks)
    ]


def _along(judgement: Judgement, variants: Sequence[str]) -> list[dict[str, Any]]:
    """A chart for each task: of each variant in its place its difference in each tenth of the steps."""
    parts = judgement.tasks.judgements if judgement.tasks else {"": judgement}
    return [
        {
            "id": f"along/{task}" if task else "along",
            "title": f"Difference from {judgement.baseline} along the run{f': {task}' if task else ''}",
            "note": "Mean reward in each tenth of the steps, failed runs counted. The intervals of a variant hold all "
            "ten at once with 95 %. Differences within the grey band are smaller than the margin.",
            "margin": part.margin,
            "curves": [_tenths(part.along.get(variant)) for variant in variants],
        }
        for task, part in parts.items()
        if part.along
    ]


def _tenths(found: Along | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "x": _rounded([(start + end) / 2 for start, end in itertools.pairwise(found.edges)]),
        "y": _rounded(found.differences),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
    }


def _profiles(judgement: Judgement, variants: Sequence[str]) -> dict[str, Any] | None:
    """Of each variant in its place the share of its runs above each score; None where there is one task."""
    if judgement.tasks is None:
        return None
    found = [judgement.tasks.profiles.get(variant) for variant in variants]
    return {
        "title": "Performance profile",
        "note": "Share of the runs whose score is higher, the mean over tasks. A score is the share of the range of "
        "its task's reward. The band is a stratified bootstrap at each score by itself.",
        "curves": [
            profile
            and {
                "x": _rounded(profile.scores),
                "y": _rounded(profile.shares),
                "low": _rounded(profile.low),
                "high": _rounded(profile.high),
            }
            for profile in found
        ],
    }


def _title(judgement: Judgement) -> str:
    runs = judgement.collection.runs
    task = next((run.recipe["task"]["name"] for run in runs if run.recipe.get("task")), None)
    if judgement.tasks:
        task = f"{len(judgement.tasks.ranges)} tasks"
    model = {run.recipe["model"]["name"] for run in runs if run.recipe.get("model")}
    about = f"{model.pop()} on {task}" if len(model) == 1 and task else task or "runs of another program"
    variants = list(judgement.collection.variants)
    return f"{about}: {', '.join(variants) if len(variants) <= _MOST_IN_TITLE else f'{len(variants)} variants'}"


def _headline(judgement: Judgement) -> list[str]:
    comparisons = judgement.comparisons
    if len(comparisons) <= _MOST_SENTENCES:
        return [comparison.sentence for comparison in comparisons]
    words = [comparison.word for comparison in comparisons]
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    said = ", ".join(f"{number} {'no verdict' if word == 'none' else word}" for word, number in counts.items())
    return [f"{len(comparisons)} variants against {judgement.baseline}: {said}. The table shows each of them."]


def _reached(judgement: Judgement, variants: Sequence[str]) -> dict[str, Any]:
    """By axis, and of each variant in its place: the share of its runs at the threshold, as steps of a stair."""

    def stair(found: TimeTo | None, end: float) -> dict[str, Any] | None:
        if found is None:
            return None
        # A variant whose runs are all there stays so.
        last = [None] if found.shares[-1] == 1 and found.times[-1] < end else []
        return {
            "x": [0.0, *found.times, *(end for _ in last)],
            "y": [0.0, *_rounded(found.shares), *(1.0 for _ in last)],
            "low": [None, *_rounded(found.shares_low), *last],
            "high": [None, *_rounded(found.shares_high), *last],
        }

    share = " of the range" if judgement.tasks else ""
    note = "Share of all runs; the mean reward of 5 steps counts. A run that failed never gets there."
    return {
        "title": f"Runs that reached {judgement.threshold:.3g}{share}",
        "note": note,
        "stairs": {
            axis: [
                stair(by_variant.get(variant), max(found.times[-1] for found in by_variant.values()))
                for variant in variants
            ]
            for axis, by_variant in judgement.times.items()
        },
    }


def _run(run: History, variant: int, charts: Sequence[str], most: int, peaks: bool) -> dict[str, Any]:
    number = len(run.columns["step"])
    width = -(-number // most)
    thinned = _peaks if peaks and width > 1 else _binned
    return {
        "name": run.name,
        "variant": variant,
        "seed": run.seed,
        "state": run.outcome.word,
        "x": {axis: _binned(run.columns[axis], width, last=True) for axis in AXES if axis in run.columns},
        "y": {key: thinned(run.columns[key], width) for key in charts if key in run.columns},
    }


def _binned(column: np.ndarray, width: int, *, last: bool = False) -> list[float | None]:
    """Means over `width` steps at a time, or the last value of each `width` steps; None where no value is finite."""
    starts = np.arange(0, len(column), width)
    if last:
        return _rounded(column[np.minimum(starts + width, len(column)) - 1], 9)
    finite = np.isfinite(column)
    sums, counts = (np.add.reduceat(values, starts) for values in (np.where(finite, column, 0.0), finite.astype(float)))
    return _rounded(np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0))


def _peaks(column: np.ndarray, width: int) -> list[float | None]:
    """The lowest and the highest of about 2 * `width` steps at a time, in their order; as many values as `_binned`."""
    number = -(-len(column) // width)
    starts = np.arange(number // 2) * len(column) // (number // 2)
    ends, shown = [*starts[1:], len(column)], []
    for start, end in zip(starts, ends, strict=True):
        part = column[start:end][np.isfinite(column[start:end])]
        if len(part):
            shown += [part[place] for place in sorted((part.argmin(), part.argmax()))]
        else:
            shown += [None, None]
    return _rounded(shown + ([column[-1]] if number % 2 else []))


def _rounded(values: Sequence[float | None], digits: int = 5) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}") for value in values]


def _samples(judgement: Judgement) -> list[dict[str, Any]]:
    """Completions of each variant's first seed, from its first and its last step."""
    found = []
    for variant, runs in judgement.collection.variants.items():
        run = min(runs, key=lambda run: (not run.finished, run.seed if run.seed is not None else 0))
        steps = run.columns["step"]
        early, late = (_sample(run, int(step)) for step in (steps[0], steps[-1]))
        if early and late:
            found.append({"variant": variant, "seed": run.seed, "early": early, "late": late})
    return found


def _sample(run: History, step: int) -> dict[str, Any] | None:
    try:
        rollouts = run.source.rollouts(step)
    except RunError:
        return None
    by_prompt = {as_text(row["prompt"]): row for row in reversed(rollouts)}  # the first completion of each prompt
    rows = [
        {key: as_text(row.get(key))[:_SAMPLE_CHARACTERS] for key in ("prompt", "completion", "answer")}
        | {"reward": row.get("reward")}
        for row in reversed(list(by_prompt.values())[-_NUM_SAMPLES:])
    ]
    return {"step": step, "rows": rows} if rows else None


def _environments(runs: Sequence[History]) -> list[dict[str, Any]]:
    """The different environments of the runs, each with the number of its runs."""
    groups: dict[str, list[History]] = {}
    for run in runs:
        shared = {key: value for key, value in run.environment.items() if key not in ("started", "command")}
        shared.pop("initial_weights_sha256", None)
        if shared:
            groups.setdefault(json.dumps(shared, sort_keys=True), []).append(run)
    found = []
    for text, members in groups.items():
        shared = json.loads(text)
        packages = shared.pop("packages", {})
        rows = [[key.replace("_", " "), str(value)] for key, value in shared.items() if value is not None]
        rows += [[name, version] for name, version in packages.items() if version]
        found.append({"name": f"{len(members)} run{'s' * (len(members) > 1)}", "rows": rows})
    return found


def _commands(runs: Sequence[History], command: str) -> list[str]:
    made = [run.environment["command"] for run in runs if run.environment.get("command")]
    more = [f"# and {len(made) - _MOST_COMMANDS} more"] if len(made) > _MOST_COMMANDS else []
    return ["\n".join([*made[:_MOST_COMMANDS], *more]), command] if made else [command]
