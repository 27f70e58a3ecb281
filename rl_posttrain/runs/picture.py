"""The picture of a run: its curves as a PNG."""

import os
from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.runs.metrics import plotted
from rl_posttrain.runs.series import numbers, points, recorded

_WINDOW = 5  # steps of the trailing mean
# Okabe and Ito's palette, which colour-blind readers can tell apart. Its black and its yellow would not be seen on a
# dark and on a light background.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233))


def plot_png(rows_by_run: dict[str, list[dict]], path: Path, title: str = "") -> None:
    """Two panels over the steps, with the metrics whose plots are curve:top, curve:left and curve:right.

    Every run has its colour. The top panel shows trailing means of 5 steps; of its first metric a thin line shows the
    values themselves, too. Below, solid lines belong to the left axis and dashed lines to the right one. What a run did
    not record is not drawn.

    Args:
        rows_by_run: metrics rows by the name that the legend shows.
        path: the PNG. At any moment it has its old content or all of the new one.

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
    dashed = {"linewidth": 1.3, "linestyle": "--"}
    first, *others = plotted("curve:top")
    lines = [(top, first, {"linewidth": 2.2})] + [(top, metric, dashed) for metric in others]
    lines += [(bottom, metric, {"linewidth": 1.6}) for metric in plotted("curve:left")]
    lines += [(right, metric, dashed) for metric in plotted("curve:right")]
    entries = {top: [], bottom: [], right: []}  # of each panel's legend: (line, text)
    for index, (label, rows) in enumerate(rows_by_run.items()):
        colour = tuple(part / 255 for part in COLOURS[index % len(COLOURS)])
        top.plot(*points(rows, first.name, 1), color=colour, linewidth=0.8, alpha=0.5)
        for axes, metric, style in lines:
            steps, values = points(rows, metric.name, _WINDOW if axes is top else 1)
            axes.plot(steps, values, color=colour, marker="o" if len(steps) == 1 else None, **style)
        entries[top].append((Line2D([], [], color=colour, linewidth=2.2), label))
    for axes, metric, style in lines:
        if any(numbers(rows, metric.name) for rows in rows_by_run.values()):
            mean = f", mean of {_WINDOW}" if axes is top else ""
            entries[axes].append((Line2D([], [], color="0.4", **style), f"{metric.words}{mean}"))
    for axes in entries:
        label = ", ".join(metric.y_label for place, metric, _ in lines if place is axes)
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
            missing = " and ".join(metric.words for place, metric, _ in lines if place is not top)
            axes.text(0.5, 0.5, f"{missing}: not recorded", ha="center", transform=axes.transAxes)
            continue
        # matplotlib leaves an entry that starts with "_" out of a legend.
        axes.legend([line for line, _ in wanted], [f" {text}" if text.startswith("_") else text for _, text in wanted])
    figure.suptitle(title)
    write_figure(figure, path)


def write_figure(figure, path: Path) -> None:
    """Write a matplotlib figure as PNG, PDF or SVG, as the path ends. In PDF and SVG text stays text.

    At any moment `path` has its old content or all of the new one.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text as PlotText

    for text in figure.findobj(PlotText):
        text.set_parse_math(False)  # a "$" in a name does not start a formula
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
            figure.savefig(temporary, format=path.suffix[1:], dpi=130)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
