"""The sensitivity curve: the measure against each tuned value, and what fresh seeds say of the best ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.measures import MEASURES
from rl_posttrain.study.sensitivity import Curve, Spread, sensitivity
from rl_posttrain.study.variants import value_text
from rl_posttrain.views.report.looks import DASHES, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_GAP = 0.07  # between two labels, as a share of the panel's height
_WIDTH, _HEIGHT = 10.5, 4.8  # inches


def plot_tuning(judgement: Judgement, size: tuple[float, float] | None) -> "Figure":
    """A row for each tuned key: the measure against its values on the tuning seeds, and on the seeds of the verdict."""
    from matplotlib.figure import Figure

    curves = sensitivity(judgement)
    shared = max((len(found) for found in curves.values()), default=1)
    figure = Figure(figsize=size or (_WIDTH + 0.35 * shared, _HEIGHT * len(curves) + 0.5), layout="constrained")
    panels = figure.subplots(
        len(curves),
        2,
        sharey="row",
        squeeze=False,
        width_ratios=(5, max(1.4, 0.62 * shared)),
        gridspec_kw={"wspace": 0},
    )
    for (key, found), (left, right) in zip(curves.items(), panels, strict=True):
        looks = _looks(judgement, found)
        _draw_curves(left, key, found, looks)
        _draw_fresh(right, found, looks)
        low, high = _heights(found)
        left.set_ylim(low - 0.06 * (high - low), high + 0.16 * (high - low))  # room for the chosen value above its ring
        _label_ends(left, found, looks)
        seeds = judgement.tuned.tuning.seeds
        left.set_title(f"tuning seeds {_seeds(seeds)}: the best value is chosen here", loc="left", fontsize=10)
        judged = sorted({run.seed for run in judgement.collection.runs if run.seed is not None})
        right.set_title(f"fresh seeds {_seeds(judged)}:\nthe verdict is of these", loc="left", fontsize=10)
        left.set_ylabel(f"{judgement.measure}: {MEASURES[judgement.measure]}", fontsize=9, wrap=True)
    sentences = [comparison.sentence.partition(" (")[0] for comparison in judgement.comparisons[:3]]
    figure.suptitle("\n".join(sentences), fontsize=12, fontweight="bold", x=0.01, ha="left")
    bars = "95 % interval of the mean" if len(judgement.tuned.tuning.seeds) > 2 else "lowest to highest"
    figure.supxlabel(
        f"Points: runs (x: failed, counted at the floor). Line and band: mean and {bars} over tuning seeds. Ring: "
        "chosen. Bars on the right: mean and 95 % interval.",
        fontsize=8, color="0.35",
    )  # fmt: skip
    return figure


def _looks(judgement: Judgement, curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Each variant looks as in the other charts."""
    variants = list(judgement.collection.variants)
    places = [variants.index(curve.judged) if curve.judged in variants else len(variants) for curve in curves]
    return [look(place) for place in places]


def _draw_curves(axes, key: str, curves: Sequence[Curve], looks: Sequence[tuple[str, str]]) -> None:
    if all(value > 0 for curve in curves for value in curve.values):
        axes.set_xscale("log")
    for curve, (colour, dash) in zip(curves, looks, strict=True):
        x, means = np.array(curve.values), [spread.mean for spread in curve.spreads]
        lows, highs = ([getattr(spread, end) for spread in curve.spreads] for end in ("low", "high"))
        axes.fill_between(x, lows, highs, color=colour, alpha=0.13, linewidth=0)
        axes.plot(x, means, color=colour, linestyle=DASHES[dash], linewidth=2.2)
        for value, spread in zip(x, curve.spreads, strict=True):
            _points(axes, [value] * len(spread.values), spread, colour)
        best = (x[curve.chosen], means[curve.chosen])
        axes.plot(*best, "o", color=colour, markersize=13, markerfacecolor="none", markeredgewidth=2)
        axes.plot(*best, "o", color=colour, markersize=5)
        edge = "\nedge of its grid" if curve.edge else ""
        axes.annotate(
            f"{value_text(curve.values[curve.chosen])}{edge}", best, (0, 13), textcoords="offset points", ha="center",
            color=colour, fontsize=9, fontweight="bold",
        )  # fmt: skip
    values = sorted({value for curve in curves for value in curve.values})
    # Values that are written side by side must not lie upon each other; else the axis has its own.
    if len(values) <= 9 and (len(values) == 1 or axes.get_xscale() == "linear" or _apart(values)):
        axes.set_xticks(values, [value_text(value) for value in values])
        axes.set_xticks([], minor=True)
    elif axes.get_xscale() == "log":
        axes.xaxis.set_major_formatter(lambda value, _: value_text(float(f"{value:.3g}")))
    axes.margins(x=0.06)
    axes.set_xlabel(f"{key} (log scale)" if axes.get_xscale() == "log" else key)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(values: Sequence[float]) -> bool:
    places = np.log(values)
    return bool((np.diff(places) > 0.06 * (places[-1] - places[0])).all())


def _heights(curves: Sequence[Curve]) -> tuple[float, float]:
    """Lowest and highest of what is drawn."""
    spreads = [spread for curve in curves for spread in (*curve.spreads, curve.fresh) if spread is not None]
    low = min(min(spread.low, *spread.values) for spread in spreads)
    high = max(max(spread.high, *spread.values) for spread in spreads)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _label_ends(axes, curves: Sequence[Curve], looks: Sequence[tuple[str, str]]) -> None:
    """A name at the end of each line, moved up where two would lie upon each other."""
    low, high = axes.get_ylim()
    ends = [
        (curve.values[-1], curve.spreads[-1].mean, curve.variant, colour)
        for curve, (colour, _) in zip(curves, looks, strict=True)
    ]
    before = -np.inf
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        before = max(y, before + _LEAST_GAP * (high - low))
        axes.annotate(
            f" {name}", (x, y), (x, before), color=colour, fontsize=10, fontweight="bold", va="center",
            annotation_clip=False,
        )  # fmt: skip


def _draw_fresh(axes, curves: Sequence[Curve], looks: Sequence[tuple[str, str]]) -> None:
    for place, (curve, (colour, _)) in enumerate(zip(curves, looks, strict=True)):
        if curve.fresh is None:
            continue
        offsets = place + 0.22 * np.linspace(-1, 1, len(curve.fresh.values)) if curve.fresh.values[1:] else [place]
        _points(axes, offsets, curve.fresh, colour)
        _bar(axes, place, curve.fresh, colour)
    axes.set_xticks(range(len(curves)), [f"{c.variant}\n{value_text(c.values[c.chosen])}" for c in curves])
    for label, (colour, _) in zip(axes.get_xticklabels(), looks, strict=True):
        label.set(color=colour, fontweight="bold", fontsize=9)
    axes.set_xlim(-0.6, len(curves) - 0.4)
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.grid(axis="y", alpha=0.2)
    axes.set_facecolor("0.97")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _points(axes, places: Sequence[float], spread: Spread, colour: str) -> None:
    for place, value, failed in zip(places, spread.values, spread.failed, strict=True):
        marker, size = ("x", 7) if failed else (".", 7)
        axes.plot([place], [value], marker, color=colour, alpha=0.9 if failed else 0.6, markersize=size, clip_on=False)


def _bar(axes, place: float, spread: Spread, colour: str) -> None:
    axes.plot([place, place], [spread.low, spread.high], color=colour, linewidth=1.8)
    axes.plot([place - 0.28, place + 0.28], [spread.mean, spread.mean], color=colour, linewidth=3)


def _seeds(seeds: Sequence[int]) -> str:
    """``0 to 4`` or ``100, 101``."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
