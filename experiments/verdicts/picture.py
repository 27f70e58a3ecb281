"""Draws what the words of a verdict mean: five made-up variants, each at five seeds, and what is said of each.

    python experiments/verdicts/picture.py [--out docs/results/verdict_words.png]

The values are made up, and the verdicts are those of `compare_to_baseline`.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from rl_posttrain.study.equivalence import compare_to_baseline

MARGIN = 0.05
BASELINE = (0.70, 0.74, 0.66, 0.72, 0.68)
# What each variant's run has above the baseline's at the same seed.
ABOVE = {
    "A": (0.13, 0.09, 0.12, 0.10, 0.11),
    "B": (0.024, 0.016, 0.030, 0.021, 0.027),
    "C": (0.010, -0.012, 0.006, -0.008, 0.002),
    "D": (0.12, -0.04, 0.06, 0.10, -0.03),
    "E": (-0.10, -0.16, -0.12, -0.09, -0.14),
}
COLOURS = {"better": "#00793d", "worse": "#b3261e", "equivalent": "#0b57a4", "undecided": "#5f6368"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/verdict_words.png"))
    out = parser.parse_args().out
    values = {"baseline": list(enumerate(BASELINE))}
    for variant, above in ABOVE.items():
        values[variant] = [(seed, base + more) for seed, (base, more) in enumerate(zip(BASELINE, above, strict=True))]
    figure, axes = pyplot.subplots(figsize=(8.6, 3.4), layout="constrained")
    axes.axvspan(-MARGIN, MARGIN, color="#e8eef7", zorder=0)
    axes.plot([0.0, 0.0], [-4.6, 0.45], color="#202124", linewidth=1)
    for place, found in enumerate(compare_to_baseline(values, "baseline", MARGIN)):
        colour, row = COLOURS[found.word], -place
        axes.plot(ABOVE[found.variant], [row - 0.26] * len(BASELINE), "o", color=colour, markersize=4, alpha=0.45)
        axes.errorbar(
            found.difference, row, xerr=[[found.difference - found.low], [found.high - found.difference]], fmt="s",
            color=colour, capsize=4, linewidth=2, markersize=6,
        )  # fmt: skip
        little = "\nand a little better" if found.word == "equivalent" and found.p_different < 0.05 else ""
        axes.text(0.235, row, f"{found.word}{little}", color=colour, weight="bold", va="center")
    axes.text(0.0, 0.62, "within the margin", ha="center", va="bottom", fontsize=9, color="#0b57a4")
    axes.set_yticks([-place for place in range(len(ABOVE))], list(ABOVE))
    axes.set_xlim(-0.24, 0.36)
    axes.set_ylim(-4.6, 1.1)
    axes.set_xlabel("reward of the variant minus reward of the baseline")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
