"""The figures of a report as PNGs: rewards, what training did, what it cost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rl_posttrain.runs.metrics import PHASES
from rl_posttrain.runs.picture import write_png
from rl_posttrain.study.bands import band, drawn, whole
from rl_posttrain.study.histories import History
from rl_posttrain.study.judging import Judgement
from rl_posttrain.views.report.looks import DASHES, look

_WINDOW = 5
_MOST_POINTS = 1000
AXES = {"step": "step", "tokens": "tokens", "seconds": "wall-clock (s)"}
_TRAINING = {
    "completion_length": "completion length (tokens)",
    "entropy": "entropy (nats a token)",
    "grad_norm": "gradient norm before clipping",
    "update_norm": "norm of a step's change of the weights",
}


def plot_rewards(judgement: Judgement, path: Path) -> None:
    """Reward and accuracy against steps, tokens and wall-clock: thin lines for seeds, mean and 95 % band."""
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    rows = [key for key in ("reward", "accuracy") if _recorded(judgement, key) and not _repeats(judgement, key)]
    figure = Figure(figsize=(13, 1.2 + 3.4 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(AXES), sharey="row", squeeze=False)
    for key, line in zip(rows, panels, strict=True):
        for axis, axes in zip(AXES, line, strict=True):
            _draw(axes, variants, key, axis)
            axes.set(xlabel=AXES[axis], ylabel=f"{key}, mean of {_WINDOW} steps" if axis == "step" else "")
    title = "reward" if "accuracy" in rows or not _repeats(judgement, "accuracy") else "reward (accuracy is the same)"
    _finish(figure, panels, variants, f"{title}; thin: seeds, band: 95 % interval of the mean", path)


def plot_training(judgement: Judgement, path: Path) -> None:
    """Completion length, entropy, gradient norm and update norm against steps."""
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    keys = [key for key in _TRAINING if _recorded(judgement, key)] or ["reward"]
    figure = Figure(figsize=(13, 1.2 + 3.2 * -(-len(keys) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(keys) // 2), 2, squeeze=False)
    for axes in panels.flat[len(keys) :]:
        axes.set_visible(False)
    for key, axes in zip(keys, panels.flat, strict=False):
        _draw(axes, variants, key, "step")
        axes.set(xlabel="step", ylabel=_TRAINING.get(key, key))
    _finish(figure, panels, variants, f"means of {_WINDOW} steps", path)


def plot_cost(judgement: Judgement, path: Path) -> None:
    """Seconds a step by phase; optimizer state and peak memory. A bar a variant; what no run recorded is left out."""
    from matplotlib.figure import Figure

    variants = judgement.collection.variants
    labels = list(variants)
    figure = Figure(figsize=(13, 1.6 + 0.34 * len(labels)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    start = np.zeros(len(labels))
    for index, (phase, seconds) in enumerate(phase_seconds(judgement).items()):
        widths = np.array([value or 0.0 for value in seconds])
        left.barh(labels, widths, left=start, color=look(index)[0], edgecolor="white", label=phase)
        start += widths
    for index, (label, gib) in enumerate(memory(judgement).items()):
        places = np.arange(len(labels)) + 0.4 * (index - 0.5)
        widths = np.array([value or 0.0 for value in gib])
        bars = right.barh(places, widths, height=0.38, color=look(index)[0], label=label)
        right.bar_label(bars, [f" {value:.2f}" if value else " not recorded" for value in gib], fontsize=8)
    left.set(xlabel="seconds a step (mean)")
    right.set(xlabel="GiB, the process that holds most")
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8)
    right.margins(x=0.15)
    write_png(figure, path)


FIGURES: dict[str, Callable[[Judgement, Path], None]] = {
    "rewards.png": plot_rewards,
    "training.png": plot_training,
    "cost.png": plot_cost,
}


def phase_seconds(judgement: Judgement) -> dict[str, list[float | None]]:
    """Mean seconds a step of each phase that some run recorded, a value a variant."""
    found = {
        phase: [_mean(runs, f"time/{phase}") for runs in judgement.collection.variants.values()] for phase in PHASES
    }
    return {phase: values for phase, values in found.items() if any(value is not None for value in values)}


def memory(judgement: Judgement) -> dict[str, list[float | None]]:
    """GiB of optimizer state and peak memory, the largest of a variant's runs; what no run recorded is left out."""
    keys = {"optimizer state": "optimizer_state_bytes", "peak memory": "peak_memory_bytes"}
    found = {}
    for label, key in keys.items():
        most = [
            max((float(np.nanmax(run.columns[key])) for run in runs if key in run.columns), default=None)
            for runs in judgement.collection.variants.values()
        ]
        if any(value is not None for value in most):
            found[label] = [None if value is None else value / 2**30 for value in most]
    return found


def _mean(runs: list[History], key: str) -> float | None:
    means = [float(np.nanmean(run.columns[key])) for run in runs if key in run.columns]
    return sum(means) / len(means) if means else None


def _recorded(judgement: Judgement, key: str) -> bool:
    return any(key in run.columns for run in judgement.collection.runs)


def _repeats(judgement: Judgement, key: str) -> bool:
    """Whether `key` is the reward once more, as accuracy is where it is all that is rewarded."""
    runs = judgement.collection.runs
    return key != "reward" and all(
        key not in run.columns or np.array_equal(run.columns[key], run.columns["reward"], equal_nan=True)
        for run in runs
    )


def _draw(axes, variants: dict[str, list[History]], key: str, axis: str) -> None:
    curves = [drawn(runs, key, axis, _WINDOW) for runs in variants.values()]
    heights = np.concatenate([y for lines in curves for _, y in lines] or [np.zeros(1)])
    room = 0.1 * (heights.max() - heights.min())  # a band of few runs can be wider than all there is to see
    for index, (runs, lines) in enumerate(zip(variants.values(), curves, strict=True)):
        colour, dash = look(index)
        for x, y in lines:
            every = -(-len(x) // _MOST_POINTS)  # more than the pixels there are
            axes.plot(
                x[::every], y[::every], color=colour, linewidth=0.7, alpha=0.35, marker="." if len(x) == 1 else None
            )
        if averaged := drawn(whole(runs), key, axis, _WINDOW):
            x, mean, half = band(averaged)
            ends = np.clip([mean - half, mean + half], heights.min() - room, heights.max() + room)
            axes.fill_between(x, *ends, color=colour, alpha=0.12, linewidth=0)
            axes.plot(x, mean, color=colour, linestyle=DASHES[dash], linewidth=2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure, panels, variants: dict[str, list[History]], title: str, path: Path) -> None:
    from matplotlib.lines import Line2D

    looks = [look(index) for index in range(len(variants))]
    lines = [Line2D([], [], color=colour, linestyle=DASHES[dash], linewidth=2) for colour, dash in looks]
    # matplotlib leaves an entry that starts with "_" out of a legend.
    labels = [f" {label}" if label.startswith("_") else label for label in variants]
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title, fontsize=10)
    write_png(figure, path)
