"""The run's own picture: its curves as a PNG."""

import os
from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.runs.series import numbers, points, recorded

# Okabe and Ito's palette, which colour-blind readers can tell apart, without the two that a background can hide.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233))


def plot_png(rows_by_run: dict[str, list[dict]], path: Path, title: str = "") -> None:
    """Two panels over the steps: reward and accuracy; completion length and entropy. One colour a run.

    Reward is drawn thin as it was and thick as its trailing mean of 5; accuracy (same mean) dashed. Below, completion
    length is solid on the left axis and entropy dashed on the right one. What a run did not record is not drawn.

    Args:
        rows_by_run: metrics rows by the name that the legend shows.
        path: the PNG; it holds its old content or all of the new, whatever kills the process.

    Raises:
        RunError: no run is given, or one of them has no finished step with a finite reward.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    if not rows_by_run:
        raise RunError(f"{path}: no run to draw; name at least one")
    for label, rows in rows_by_run.items():
        recorded(rows, "reward", label)
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    right = bottom.twinx()
    panels = (
        (top, "reward", 5, {"linewidth": 2.2}),
        (top, "accuracy", 5, {"linewidth": 1.3, "linestyle": "--"}),
        (bottom, "completion_length", 1, {"linewidth": 1.6}),
        (right, "entropy", 1, {"linewidth": 1.3, "linestyle": "--"}),
    )
    entries = {top: [], bottom: [], right: []}  # of each panel's legend: (line, text)
    for index, (label, rows) in enumerate(rows_by_run.items()):
        colour = tuple(part / 255 for part in COLOURS[index % len(COLOURS)])
        top.plot(*points(rows, "reward", 1), color=colour, linewidth=0.8, alpha=0.5)
        for axes, key, window, style in panels:
            steps, values = points(rows, key, window)
            axes.plot(steps, values, color=colour, marker="o" if len(steps) == 1 else None, **style)
        entries[top].append((Line2D([], [], color=colour, linewidth=2.2), label))
    for axes, key, _, style in panels:
        if any(numbers(rows, key) for rows in rows_by_run.values()):
            mean = ", mean of 5" if axes is top else ""
            entries[axes].append((Line2D([], [], color="0.4", **style), f"{key.replace('_', ' ')}{mean}"))
    for axes, label in ((top, "reward, accuracy"), (bottom, "completion length (tokens)"), (right, "entropy (nats)")):
        axes.set(ylabel=label, xlabel="step" if axes is bottom else "")
        axes.spines[["top"] if axes is right else ["top", "right"]].set_visible(False)
        if axes is not right:
            axes.grid(alpha=0.25)
        axes.yaxis.set_visible(bool(entries[axes]))
    last = max(row["step"] for rows in rows_by_run.values() for row in rows)
    bottom.set_xlim(0.5, last + 0.5)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes, wanted in ((top, entries[top]), (bottom, entries[bottom] + entries[right])):
        if not wanted:
            axes.text(0.5, 0.5, "completion length and entropy: not recorded", ha="center", transform=axes.transAxes)
            continue
        # matplotlib leaves an entry that starts with "_" out of a legend.
        axes.legend([line for line, _ in wanted], [f" {text}" if text.startswith("_") else text for _, text in wanted])
    figure.suptitle(title)
    write_png(figure, path)


def write_png(figure, path: Path) -> None:
    from matplotlib.text import Text as PlotText

    for text in figure.findobj(PlotText):
        text.set_parse_math(False)  # a "$" in a name is no formula
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=130)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
