"""Curves, tables and verdicts in the terminal."""

import contextlib
import io
import string
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.runs.metrics import find_metric, our_name
from rl_posttrain.runs.picture import COLOURS
from rl_posttrain.runs.series import summarize
from rl_posttrain.study.bands import Curve, band, drawn, extremes, whole
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.judging import Judgement
from rl_posttrain.views.designs import looks_table, tuning_table
from rl_posttrain.views.tables import cell_text, state_of, verdict_table

_CELLS = {  # of the table: key of the summary, format
    "reward_first5": ".3f",
    "reward_last5": ".3f",
    "reward_gain": "+.3f",
    "reward_best": ".3f",
    "accuracy_last5": ".3f",
    "seconds_per_step": ".1f",
    "tokens": ",d",
}
_VERDICT_COLUMNS = ("variant", "verdict", "difference", "interval", "seeds", "failed", "final", "auc", "steps_to")
_NARROW_COLUMNS = ("variant", "verdict", "difference", "final", "auc")  # where the terminal is narrower than _WIDE
_WIDE = 110
_LOOK_COLUMNS = ("look", "seeds", "variant", "verdict", "difference", "interval", "p_different", "level_different")
_VERDICT_STYLES = {"good": "green", "bad": "red", "even": "blue", "open": "yellow"}
_MARKERS = "*o+x#@%&" + string.ascii_lowercase


def print_curves(
    collection: Collection,
    *,
    keys: Sequence[str] = ("reward",),
    axis: str = "step",
    smoothing: int = 1,
    every_run: bool = False,
    console: Console,
) -> None:
    """Print one plot for each key and task: a line per run, or the mean of each variant where it has several seeds.

    In a pipe or a file there are no colour codes, and each line has its own plotting character instead.

    Args:
        keys: names of metrics, such as "reward" or "eval/accuracy".
        axis: step, tokens or seconds.
        smoothing: steps of the trailing mean; 1 draws the values as they are.
        every_run: draw a line for every run, also where variants have several seeds.

    Raises:
        RunError: a run did not record a key or the axis, or the seeds of a variant have no part of the axis in common.
            Nothing is printed then.
    """
    for run in collection.runs:
        for key in keys:
            _require(run, key, axis)
    plots = [
        plot(collection, key, axis=axis, smoothing=smoothing, every_run=every_run, console=console) for key in keys
    ]
    for texts in plots:
        console.print(*texts, "", sep="\n", soft_wrap=True)


def plot(
    collection: Collection, key: str, *, axis: str, smoothing: int, every_run: bool, console: Console
) -> list[Text]:
    """Of each task the legend and the plot of one key, as `print_curves` prints them, for the width of `console`.

    Raises:
        RunError: as `print_curves`.
    """
    for run in collection.runs:
        _require(run, key, axis)
    texts = []
    for task, part in collection.by_task.items():
        groups = {run.name: [run] for run in part.runs}
        if collection.is_study and not every_run:
            groups = {label: whole(runs) for label, runs in part.variants.items()}
        curves = {label: band(drawn(runs, key, axis, smoothing))[:2] for label, runs in groups.items()}
        for label, (x, _) in curves.items():
            if not len(x):
                raise RunError(f"{label}: its seeds have no {axis} in common that recorded {key!r}; set --every-run")
        heading = f"{key} on {task}" if task else key
        texts += [*([Text()] if texts else []), *_plot(curves, heading, axis, smoothing, console)]
    return texts


def print_runs(collection: Collection, console: Console) -> None:
    """Print a table with one line per run."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("run", overflow="fold", min_width=8)
    for heading in ("steps", "reward\nfirst 5", "last 5", "gain", "best", "accuracy\nlast 5", "s/step", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", min_width=10)
    for run in collection.runs:
        summary = summarize(run.columns)
        cells = ["-" if summary[key] is None else format(summary[key], form) for key, form in _CELLS.items()]
        steps = f"{summary['steps']}/{run.num_planned or '?'}"
        state = state_of(run) if run.finished else run.outcome.word
        table.add_row(Text(run.name), steps, *cells, state)
    console.print(table)


def print_verdicts(judgement: Judgement, console: Console) -> None:
    """Print the notices, a table with one line per variant, and the verdicts in words."""
    print_notices(judgement.notices, console)
    if (tuning := tuning_table(judgement)) is not None:
        _print_table(tuning, [column["key"] for column in tuning["columns"] if column["key"] != "failed"], console)
        console.print()
    keys = _VERDICT_COLUMNS if console.width >= _WIDE else _NARROW_COLUMNS
    _print_table(verdict_table(judgement), keys, console)
    if (looks := looks_table(judgement)) is not None:
        console.print()
        _print_table(looks, _LOOK_COLUMNS, console)
    console.print(Text(f"\n{judgement.terms}", style="dim"))
    for check in judgement.checks:
        console.print(Text(check, style="bold red" if "DIFFERENT" in check else "dim"))
    console.print()
    for comparison in judgement.comparisons:
        console.print(Text(comparison.sentence), soft_wrap=True)


def _print_table(table: dict[str, Any], keys: Sequence[str], console: Console) -> None:
    """Print some columns of a table, as tables.py describes it."""
    columns = {column["key"]: column for column in table["columns"]}
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for key in keys:
        number = columns[key]["kind"] == "number"
        shown.add_column(columns[key]["label"].lower(), justify="right" if number else "left", overflow="fold")
    for row in table["rows"]:
        cells = {key: Text(cell_text(row.get(key))) for key in keys}
        if isinstance(verdict := row.get("verdict"), dict):
            cells["verdict"].stylize(_VERDICT_STYLES[verdict["class"]])
        shown.add_row(*cells.values())
    console.print(shown)


def print_notices(notices: Sequence[str], console: Console) -> None:
    for notice in notices:
        console.print(Text(notice, style="yellow"), soft_wrap=True)


def unfinished_and_left_out(collection: Collection) -> list[str]:
    """A notice for each run that was left out, failed or still trains, and on how others were read."""
    everything = [*collection.runs, *collection.absent]
    states = [f"{run.name}: {state_of(run)}" for run in everything if not run.outcome.finished]
    return [f"left out: {reason}" for reason in collection.left_out] + collection.notices + states


def _require(run: History, key: str, axis: str) -> None:
    for wanted in (key, axis):
        if wanted not in run.columns:
            raise RunError(f"{run.name}: no finished step recorded {wanted!r}; {_hint(run, wanted)}")
    if not len(run.points(key, axis)[0]):
        raise RunError(f"{run.name}: no finished step recorded both {key!r} and {axis!r}; set another --axis")


def _hint(run: History, wanted: str) -> str:
    """What to do about a metric that a run did not record."""
    if (ours := our_name(wanted)) in run.columns:
        return f"its name here is {ours!r}"
    metric = find_metric(wanted)
    if metric and metric.absent:
        return f"it is absent {metric.absent}"
    return did_you_mean(wanted, set(run.columns) - {"step"})


def _plot(curves: dict[str, Curve], key: str, axis: str, smoothing: int, console: Console) -> list[Text]:
    """The legend and the plot. plotext's own legend would hide the first steps of the curves."""
    import plotext

    coloured = console.is_terminal and console.color_system is not None and len(curves) <= len(COLOURS)
    mean = f", mean of {smoothing}" if smoothing > 1 else ""
    legend = Text(f"{key}{mean}", style="bold")
    plotext.terminal.limit(False, False)  # the console's size counts; the terminal's may be another
    figure = plotext.figure
    figure.clear()
    figure_width = max(console.width, 40)
    figure.plot_size(figure_width, 16)
    figure.theme("simple")
    for index, (label, (x, y)) in enumerate(curves.items()):
        shown = extremes([y], 2 * figure_width)  # braille has two dots a character
        x, y = x[shown], y[shown]
        colour = COLOURS[index % len(COLOURS)]
        symbol = "braille" if coloured else _MARKERS[index % len(_MARKERS)]
        marker = plotext.marker(symbol, pixel=colour) if coloured else symbol
        figure.draw(figure.signal(x.tolist(), y.tolist(), marker=marker).lines())
        legend.append("   ")
        legend.append(
            f"{'━━' if coloured else symbol} {label}", style="rgb({},{},{})".format(*colour) if coloured else ""
        )
    low, high = min(x.min() for x, _ in curves.values()), max(x.max() for x, _ in curves.values())
    ticks = sorted({round(low + (high - low) * part / 6) for part in range(7)})
    figure.ruler("x").ticks(ticks, [f"{tick:,}" for tick in ticks])
    figure.label(axis, "x")
    figure.label(key, "y")
    with contextlib.redirect_stderr(io.StringIO()):  # plotext tells what the plot shows: that values are one point
        plot = Text.from_ansi(figure.build().string().rstrip("\n"))
    figure.clear()
    return [legend, plot if coloured else Text(plot.plain)]
