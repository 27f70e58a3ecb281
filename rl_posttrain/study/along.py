"""How far variants are from the baseline along the run: the difference in each tenth of the steps, all ten at once.

A band around a mean curve holds at each point by itself, so that reading two curves by their bands is looking a hundred
times for a difference. These intervals hold all together with 95 % (Bonferroni), and pairs count as pairs.
"""

import itertools
from collections.abc import Collection as Seeds
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.equivalence import estimate
from rl_posttrain.study.estimates import ALPHA, Estimate
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.measures import Ruler, mean_over
from rl_posttrain.study.outcomes import usual_distance

PARTS = 10


@dataclass(frozen=True)
class Along:
    """The difference of a variant from the baseline in each tenth of the steps.

    Attributes:
        edges: (11,) steps at which a tenth begins or ends; it has the steps after its first edge, up to its second.
        differences: (10,) of the mean reward.
        low, high: (10,) intervals that hold all differences at once with 95 %.
    """

    edges: list[float]
    differences: list[float]
    low: list[float]
    high: list[float]


def differences_along(
    collection: Collection, baseline: str, pairs: Mapping[str, Seeds[int]], failed: float | None, ruler: Ruler
) -> dict[str, Along]:
    """By variant; variants that have too few runs, or of which a run still trains, are left out.

    Args:
        pairs: by variant, the seeds at which its run and the baseline's are a pair.
        failed: what a failed run counts as in a tenth that it did not come through; None: its variant is left out.
        ruler: of the collection.
    """
    start = ruler.start - max(usual_distance(run.points("reward")[0]) for run in collection.runs)
    edges = np.linspace(start, ruler.end, PARTS + 1)
    values = {
        variant: [(run.seed, _by_tenth(run, edges, failed)) for run in runs]
        for variant, runs in collection.planned.items()
    }
    known = [variant for variant, runs in values.items() if all(tenths is not None for _, tenths in runs)]
    found = {}
    for variant in known:
        if variant == baseline or baseline not in known:
            continue
        parts = []
        for part in range(PARTS):
            mine, theirs = ([(seed, tenths[part]) for seed, tenths in values[name]] for name in (variant, baseline))
            parts.append(estimate(variant, mine, baseline, theirs, pairs[variant]))
        if all(isinstance(one, Estimate) for one in parts):
            low, high = zip(*(one.interval(ALPHA / PARTS) for one in parts), strict=True)
            found[variant] = Along(edges.tolist(), [one.difference for one in parts], list(low), list(high))
    return found


def _by_tenth(run: History | Absent, edges: np.ndarray, failed: float | None) -> list[float] | None:
    """The mean reward of a run in each tenth; None where it still trains, or failed and counts as nothing."""
    if run.outcome.running or (run.outcome.failed and failed is None):
        return None
    if isinstance(run, Absent):
        return [failed] * PARTS
    steps, rewards = run.points("reward")
    reached = steps[-1] + usual_distance(steps) / 2
    return [
        mean_over(steps, rewards, start, end) if not run.outcome.failed or end <= reached else failed
        for start, end in itertools.pairwise(edges)
    ]
