"""How the measure depends on a tuned value: a curve for each variant, and what fresh seeds say of its best value."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rl_posttrain.study.bands import t95
from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.tuning import TunedVariant


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
        failed: of each value whether its run failed.
        low, high: the 95 % interval of the mean (Student's t) from three seeds on; else the lowest and highest value.
    """

    values: tuple[float, ...]
    failed: tuple[bool, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A variant's measure against the values of one key; other tuned keys are at their chosen values.

    Attributes:
        variant: without the tuned keys.
        judged: its name with the chosen values, as in verdicts.
        values, spreads: of each value that was tried, the measure over the tuning seeds.
        chosen: the place of the best value.
        edge: "lowest" or "highest" where the best is at the edge of the grid; else empty.
        fresh: the measure of the best value over the judging seeds; None where no run of them counts yet.
    """

    variant: str
    judged: str
    values: tuple[float, ...]
    spreads: tuple[Spread, ...]
    chosen: int
    edge: str
    fresh: Spread | None


def sensitivity(judgement: Judgement) -> dict[str, list[Curve]]:
    """The curves of each tuned key whose values are numbers; empty where nothing was tuned."""
    tuned = judgement.tuned
    keys = [key.key for key in tuned.tuning.keys if key.numeric] if tuned else []
    return {key: [_curve(judgement, variant, key) for variant in tuned.variants] for key in keys}


def spread(values: Sequence[float], failed: Sequence[bool]) -> Spread:
    """Mean and interval of at least one value."""
    mean = statistics.fmean(values)
    if len(values) < 3:
        return Spread(tuple(values), tuple(failed), mean, min(values), max(values))
    half = t95(len(values)) * statistics.stdev(values) / len(values) ** 0.5
    return Spread(tuple(values), tuple(failed), mean, mean - half, mean + half)


def _curve(judgement: Judgement, variant: TunedVariant, key: str) -> Curve:
    best = variant.best.values
    trials = [
        trial
        for trial in variant.trials
        if trial.mean is not None and all(trial.values[other] == best[other] for other in best if other != key)
    ]
    fresh = [
        (score, run.outcome.failed)
        for run in judgement.collection.planned.get(variant.chosen, [])
        if (score := judgement.counted[run.name]) is not None
    ]
    return Curve(
        variant.name,
        variant.chosen,
        tuple(trial.values[key] for trial in trials),
        tuple(spread(list(trial.scores.values()), [seed in trial.failed for seed in trial.scores]) for trial in trials),
        next(place for place, trial in enumerate(trials) if trial.variant == variant.chosen),
        variant.edges.get(key, ""),
        spread(*zip(*fresh, strict=True)) if fresh else None,
    )
