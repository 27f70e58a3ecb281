"""Runs that finished and ended far below what they, or the others of their variant, had reached."""

import numpy as np

from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.measures import last_tenth, level
from rl_posttrain.study.outcomes import last_tenth_of, usual_distance
from rl_posttrain.study.terms import Terms

_FAR_SHARE = 0.25  # of the reward's range, or of what the variant's curves cover where that is not known
_FAR_MARGINS = 3  # where the range is not known: a curve that only has noise covers little


def collapsed_runs(collection: Collection, terms: Terms) -> dict[str, list[str]]:
    """By variant, the names of the runs that collapsed.

    A finished run collapsed where its final reward is more than a quarter of the reward's range below its own best mean
    of a tenth of the steps, or below the median of its variant's finished runs. Where the range is not known, it is the
    range of the variant's own curves (means of a tenth of the steps), and 3 margins at least.
    """
    found: dict[str, list[str]] = {}
    for variant in collection.planned:
        runs = [run for run in collection.variants.get(variant, []) if run.finished]
        levels = [_levels(run) for run in runs]
        finals = [last_tenth(*run.points("reward")) for run in runs]
        if not runs:
            found[variant] = []
            continue
        if terms.range:
            far = _FAR_SHARE * terms.range.width
        else:
            every = np.concatenate(levels)
            far = max(_FAR_SHARE * float(every.max() - every.min()), _FAR_MARGINS * terms.margin)
        usual = float(np.median(finals))
        found[variant] = [
            run.name
            for run, reached, final in zip(runs, levels, finals, strict=True)
            if max(float(reached.max()), usual) - final > far
        ]
    return found


def _levels(run: History) -> np.ndarray:
    """Means of the reward over a tenth of the steps, along the run."""
    steps, rewards = run.points("reward")
    return level(steps, rewards, last_tenth_of(steps), usual_distance(steps))[1]
