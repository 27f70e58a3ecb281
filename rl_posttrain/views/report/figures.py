"""The figures of a report as files: rewards, how training went, and what it cost."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.metric import Metric
from rl_posttrain.runs.metrics import AXES, plotted
from rl_posttrain.runs.picture import write_figure
from rl_posttrain.study.bands import band, drawn, extremes, whole
from rl_posttrain.study.histories import History
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.sensitivity import sensitivity
from rl_posttrain.study.summaries import memory_gib, phase_seconds
from rl_posttrain.views.report.looks import DASHES, look
from rl_posttrain.views.report.sensitivity import plot_tuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = tuple[float, float]
_FORMATS = ("png", "pdf", "svg")
_PER_INCH = {"in": 1.0, "cm": 2.54, "mm": 25.4}
_PRINTED_FONT = 7
_WINDOW = 5
_NUM_BINS = 1000  # about as many as a panel has pixels


def plot_rewards(judgement: Judgement, size: Size | None) -> "Figure":
    """Reward and accuracy against steps, tokens and wall-clock: thin lines for seeds, mean and 95 % band."""
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    recorded = [metric for metric in plotted("rewards") if _recorded(judgement, metric)]
    drawn_metrics = [metric for metric in recorded if not _repeats_reward(judgement, metric)]
    rows = [(metric, task) for metric in drawn_metrics for task in judgement.collection.by_task]
    figure = Figure(figsize=size or (13, 1.2 + 3.4 * len(rows)), layout="constrained")
    known = [axis for axis in AXES if any(axis in run.columns for run in judgement.collection.runs)]
    panels = figure.subplots(len(rows), len(known), sharey="row", squeeze=False)
    for (metric, task), line in zip(rows, panels, strict=True):
        for axis, axes in zip(known, line, strict=True):
            of_task = {label: [run for run in runs if run.task == task] for label, runs in variants.items()}
            _draw(axes, of_task, metric.name, axis)
            words = f"{task}\n{metric.words}" if task else metric.words
            axes.set(xlabel=AXES[axis], ylabel=f"{words}, mean of {_WINDOW} steps" if axis == "step" else "")
    same = ", ".join(metric.words for metric in recorded if metric not in drawn_metrics)
    title = f"reward ({same} is the same)" if same else "reward"
    return _finish(
        figure,
        panels,
        variants,
        f"{title}; thin lines: seeds, band: 95 % interval of the mean at each point by itself",
    )


def plot_training(judgement: Judgement, size: Size | None) -> "Figure":
    """Completion length, entropy, gradient norm and update norm against steps."""
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    metrics = [metric for metric in plotted("training") if _recorded(judgement, metric)] or plotted("rewards")[:1]
    rows, across = -(-len(metrics) // 2), min(2, len(metrics))
    figure = Figure(figsize=size or (13, 1.2 + 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, across, squeeze=False)
    for axes in panels.flat[len(metrics) :]:
        axes.set_visible(False)
    for metric, axes in zip(metrics, panels.flat, strict=False):
        _draw(axes, variants, metric.name, "step")
        axes.set(xlabel=AXES["step"], ylabel=metric.y_label)
    return _finish(figure, panels, variants, f"means of {_WINDOW} steps; bands as in the figure of rewards")


def plot_cost(judgement: Judgement, size: Size | None) -> "Figure":
    """Seconds per step by phase; optimizer state and peak memory: a bar per variant.

    What no run recorded is left out.
    """
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    labels = list(variants)
    figure = Figure(figsize=size or (13, 1.6 + 0.34 * len(labels)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    start = np.zeros(len(labels))
    for index, (phase, seconds) in enumerate(phase_seconds(judgement.collection).items()):
        widths = np.array([value or 0.0 for value in seconds])
        left.barh(labels, widths, left=start, color=look(index)[0], edgecolor="white", label=phase)
        start += widths
    for index, (label, gib) in enumerate(memory_gib(judgement.collection).items()):
        places = np.arange(len(labels)) + 0.4 * (index - 0.5)
        widths = np.array([value or 0.0 for value in gib])
        bars = right.barh(places, widths, height=0.38, color=look(index)[0], label=label)
        right.bar_label(bars, [f" {value:.2f}" if value else " not recorded" for value in gib], fontsize=8)
    left.set(xlabel="seconds per step (mean)")
    right.set(xlabel="GiB, of the process that uses most")
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8)
    right.margins(x=0.15)
    return figure


FIGURES: dict[str, Callable[[Judgement, Size | None], "Figure"]] = {
    "rewards": plot_rewards,
    "training": plot_training,
    "cost": plot_cost,
}


def figures_of(judgement: Judgement) -> dict[str, Callable[[Judgement, Size | None], "Figure"]]:
    """The figures of a report, by name: of cost where it was recorded, of sensitivity where values were tuned."""
    found = dict(FIGURES)
    if not (phase_seconds(judgement.collection) or memory_gib(judgement.collection)):
        del found["cost"]
    return found | ({"tuning": plot_tuning} if sensitivity(judgement) else {})


@dataclass(frozen=True)
class FigureFiles:
    """How figures are written.

    Attributes:
        formats: some of png, pdf and svg.
        size: width and height in inches; None for as much as the panels need.
    """

    formats: tuple[str, ...] = ("png",)
    size: Size | None = None

    def write(self, judgement: Judgement, folder: Path) -> list[Path]:
        """Write every figure in every format. Returns the files."""
        from matplotlib import rc_context

        written = []
        # A size is that of print: its letters are those of a figure in a paper.
        with rc_context({"font.size": _PRINTED_FONT} if self.size else {}):
            for name, draw in figures_of(judgement).items():
                figure = draw(judgement, self.size)
                for kind in self.formats:
                    write_figure(figure, folder / f"{name}.{kind}")
                    written.append(folder / f"{name}.{kind}")
        return written


def parse_figures(formats: str, size: str | None) -> FigureFiles:
    """``--figure-format`` and ``--figure-size``.

    Raises:
        RunError: there is no such format, or the size is no width and height.
    """
    kinds = tuple(dict.fromkeys(kind.strip().lower() for kind in formats.split(",")))
    if unknown := [kind for kind in kinds if kind not in _FORMATS]:
        raise RunError(f"--figure-format={formats}: {unknown[0]!r} is none of {', '.join(_FORMATS)}")
    if size is None:
        return FigureFiles(kinds)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)(in|cm|mm)?", size.replace(" ", ""), re.IGNORECASE)
    inches = [float(match[part]) / _PER_INCH[(match[3] or "in").lower()] for part in (1, 2)] if match else []
    if not inches or not all(1 <= side <= 100 for side in inches):
        raise RunError(f"--figure-size={size}: no size of 1 to 100 inches; set width x height, such as 6.5x3.2in")
    return FigureFiles(kinds, (inches[0], inches[1]))


def _recorded(judgement: Judgement, metric: Metric) -> bool:
    return any(metric.name in run.columns for run in judgement.collection.runs)


def _repeats_reward(judgement: Judgement, metric: Metric) -> bool:
    """Whether a metric equals the reward in every run, as accuracy does where nothing else is rewarded."""
    return metric.name != "reward" and all(
        metric.name not in run.columns
        or np.array_equal(run.columns[metric.name], run.columns["reward"], equal_nan=True)
        for run in judgement.collection.runs
    )


def _draw(axes, variants: dict[str, list[History]], key: str, axis: str) -> None:
    curves = [drawn(runs, key, axis, _WINDOW) for runs in variants.values()]
    heights = np.concatenate([y for lines in curves for _, y in lines] or [np.zeros(1)])
    room = 0.1 * (heights.max() - heights.min())  # the band of few runs can be much wider than all lines
    for index, (runs, lines) in enumerate(zip(variants.values(), curves, strict=True)):
        colour, dash = look(index)
        for x, y in lines:
            shown = extremes([y], _NUM_BINS)
            marker = "." if len(x) == 1 else None
            axes.plot(x[shown], y[shown], color=colour, linewidth=0.7, alpha=0.35, marker=marker)
        for x, y in drawn([run for run in runs if run.outcome.failed], key, axis, _WINDOW):
            axes.plot(x[-1:], y[-1:], color=colour, marker="x", markersize=7, markeredgewidth=2)
        if averaged := drawn(whole(runs), key, axis, _WINDOW):
            x, mean, half = band(averaged)
            ends = np.clip([mean - half, mean + half], heights.min() - room, heights.max() + room)
            shown = extremes([mean, *ends], _NUM_BINS)
            x, mean, ends = x[shown], mean[shown], ends[:, shown]
            axes.fill_between(x, *ends, color=colour, alpha=0.12, linewidth=0)
            axes.plot(x, mean, color=colour, linestyle=DASHES[dash], linewidth=2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure, panels, variants: dict[str, list[History]], title: str) -> "Figure":
    from matplotlib.lines import Line2D

    looks = [look(index) for index in range(len(variants))]
    lines = [Line2D([], [], color=colour, linestyle=DASHES[dash], linewidth=2) for colour, dash in looks]
    # matplotlib leaves an entry that starts with "_" out of a legend.
    labels = [f" {label}" if label.startswith("_") else label for label in variants]
    if any(run.outcome.failed for runs in variants.values() for run in runs):
        lines.append(Line2D([], [], color="black", linestyle="", marker="x", markersize=7, markeredgewidth=2))
        labels.append("a run that failed")
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure
