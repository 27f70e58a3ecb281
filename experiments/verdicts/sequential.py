"""How often `compare --until-decided` is wrong over all looks, and how many seeds it needs, with a known truth.

    python experiments/verdicts/sequential.py [--comparisons 2000] [--max-seeds 20] [--margin 0.05]
        [--seed 0]

Each comparison draws a final reward for every variant and seed: variants share a seed's offset, and each run has its
own. After each look of the plan the variants are judged as the command does, and decided ones stop. "False" counts
comparisons in which any variant was called so wrongly at any look: different where there is no difference, equivalent
where the difference is the margin. The last lines show, for contrast, the other spending,
and what comes of testing at the level of one look after each look.
"""

import argparse
import itertools
from collections.abc import Iterable
from statistics import fmean

import numpy as np

from rl_posttrain.study.equivalence import estimate
from rl_posttrain.study.estimates import ALPHA
from rl_posttrain.study.monitor import Monitor
from rl_posttrain.study.sequential import SequentialPlan, plan_looks

SEED_SPREAD = 0.03
SPREADS = (0.02, 0.08)  # standard deviation of a run's own offset
NUM_VARIANTS = (1, 3, 9)
UNPLANNED = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--max-seeds", type=int, default=20)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    looks, margin = plan_looks(arguments.max_seeds), arguments.margin
    print(f"{arguments.comparisons} comparisons a line; looks at {', '.join(map(str, looks))} seeds; margin {margin:g}")
    heads = ("spending", "variants", "spread", "difference", "false claims", "true claims", "undecided", "seeds")
    print("".join(f"{head:>16s}" for head in heads))
    shifts = (0.0, margin, 2 * margin)
    lines = list(itertools.product(["pocock"], NUM_VARIANTS, SPREADS, shifts))
    lines += itertools.product(["obrien-fleming", UNPLANNED], [1], SPREADS, shifts)
    for spending, number, spread, shift in lines:
        found = simulate(arguments.comparisons, [shift] * number, spread, looks, margin, spending, arguments.seed)
        false, true, undecided, seeds = found
        print(
            f"{spending:>16s}{number:16d}{spread:16g}{shift:16g}{false:16.1%}{true:16.1%}{undecided:16.1%}{seeds:16.1f}",
            flush=True,
        )


def simulate(
    num_comparisons: int,
    shifts: list[float],
    spread: float,
    looks: tuple[int, ...],
    margin: float,
    spending: str,
    seed: int,
) -> tuple[float, float, float, float]:
    """Shares of comparisons with a false claim; of variants with a true one, and undecided; mean seeds of a variant.

    Args:
        shifts: true difference of each variant from the baseline: 0, the margin or more.
        spending: one of `SPENDING`; `UNPLANNED`: each look is tested at the whole level.
    """
    generator = np.random.default_rng(seed)
    names = [f"variant{place}" for place in range(len(shifts))]
    false, true, undecided, seeds = 0, 0, 0, []
    for _ in range(num_comparisons):
        shared = generator.normal(0.0, SEED_SPREAD, looks[-1])
        base = shared + generator.normal(0.0, spread, looks[-1])
        runs = {
            name: shared + shift + generator.normal(0.0, spread, looks[-1])
            for name, shift in zip(names, shifts, strict=True)
        }
        plan = SequentialPlan(
            ("base", *names), "base", tuple(range(looks[-1])), looks, "final", margin,
            spending="pocock" if spending == UNPLANNED else spending,
        )  # fmt: skip
        monitor = Monitor(plan) if spending != UNPLANNED else Unplanned(plan)
        used = dict.fromkeys(names, 0)
        while monitor.is_open:
            number = monitor.num_seeds
            used |= dict.fromkeys(monitor.undecided, number)
            monitor.look(
                {
                    name: estimate(name, _pairs(runs[name][:number]), "base", _pairs(base[:number]), None)
                    for name in monitor.undecided
                }
            )
        words = {found.variant: found.word for found in monitor.comparisons()}
        wrong = [is_false(words[name], shift, margin) for name, shift in zip(names, shifts, strict=True)]
        false += any(wrong)
        undecided += fmean(words[name] == "undecided" for name in names)
        true += fmean(words[name] != "undecided" and not lie for name, lie in zip(names, wrong, strict=True))
        seeds.append(fmean(used.values()))
    return false / num_comparisons, true / num_comparisons, undecided / num_comparisons, fmean(seeds)


def is_false(word: str, shift: float, margin: float) -> bool:
    """Whether a word is wrong of a true difference."""
    if word == "equivalent":
        return abs(shift) >= margin
    return word in ("better", "worse") and not (shift > 0 and word == "better")


class Unplanned(Monitor):
    """Every look tests at the level of a single one: what a user does who adds seeds until it fits."""

    def _levels(self, place, p_values, sides):
        levels, left = {}, len(self.plan.variants) - 1
        for variant in sorted(p_values, key=lambda name: p_values[name]):
            levels[variant] = ALPHA / left
            left -= p_values[variant] < levels[variant]
        return levels


def _pairs(values: Iterable[float]) -> list[tuple[int, float]]:
    return list(enumerate(map(float, values)))


if __name__ == "__main__":
    main()
