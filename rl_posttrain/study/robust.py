"""Results over several tasks, as Agarwal and others propose (2021, arXiv:2108.13264), and a t test beside them.

Scores are rewards as a share of their task's range, so that tasks can be put together. A group of scores is a list
with an array for each task: the scores of its runs. Intervals are percentiles of a stratified bootstrap: runs are drawn
anew within each task. Of few runs these intervals are too short; docs/results/intervals.md has by how much. So they
describe, and the verdict stays with the t test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_posttrain.study.estimates import Estimate

Scores = Sequence[np.ndarray]
NUM_DRAWS = 5000
_NUM_PLACES = 101  # of a performance profile


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Profile:
    """Share of the runs whose score is above each of `scores`, the mean over tasks; (P,) each."""

    scores: list[float]
    shares: list[float]
    low: list[float]
    high: list[float]


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores."""
    return float(_middle_half(np.concatenate(scores)[None])[0])


def interquartile_interval(scores: Scores, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Interval:
    """The interquartile mean with its interval."""
    drawn = np.concatenate(_draws(scores, num_draws, np.random.default_rng(seed)), axis=1)
    return _interval(interquartile_mean(scores), _middle_half(drawn))


def probability_of_improvement(mine: Scores, theirs: Scores) -> float:
    """Chance that a run of the one group is above a run of the other on a task that is picked at random; ties: half."""
    return float(_improvement([one[None] for one in mine], [other[None] for other in theirs])[0])


def improvement_interval(mine: Scores, theirs: Scores, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Interval:
    """The probability of improvement with its interval."""
    generator = np.random.default_rng(seed)
    drawn = _improvement(_draws(mine, num_draws, generator), _draws(theirs, num_draws, generator))
    return _interval(probability_of_improvement(mine, theirs), drawn)


def performance_profile(
    scores: Scores, low: float, high: float, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Profile:
    """The profile from `low` to `high`, with pointwise intervals."""
    places = np.linspace(low, high, _NUM_PLACES)
    generator = np.random.default_rng(seed)
    found = _shares_above([one[None] for one in scores], places)[0]
    drawn = _shares_above(_draws(scores, num_draws, generator), places)
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Profile(places.tolist(), found.tolist(), *(end.tolist() for end in ends))


def stratified(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over tasks of the differences on each, for a t test.

    Tasks are fixed, so it says nothing about other tasks. Runs of different tasks are taken as independent; the degrees
    of freedom are those of Satterthwaite (1946, doi:10.2307/3002019).

    Args:
        estimates: of each task the difference of a variant from the baseline.
    """
    number = len(estimates)
    parts = [(estimate.error / number) ** 2 for estimate in estimates]
    rest = sum(part**2 / estimate.freedom for part, estimate in zip(parts, estimates, strict=True))
    return Estimate(
        difference=sum(estimate.difference for estimate in estimates) / number,
        error=math.sqrt(sum(parts)),
        freedom=sum(parts) ** 2 / rest if rest else sum(estimate.freedom for estimate in estimates),
        num_pairs=sum(estimate.num_pairs for estimate in estimates),
        paired=all(estimate.paired for estimate in estimates),
        unit=f"pairs over {number} tasks",
        singles=(
            sum(estimate.singles[0] for estimate in estimates),
            sum(estimate.singles[1] for estimate in estimates),
        ),
        p_without_spread=max(estimate.p_without_spread for estimate in estimates),
    )


def _draws(scores: Scores, num_draws: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Of each task (`num_draws`, R): as many of its R scores, drawn with replacement."""
    return [one[generator.integers(len(one), size=(num_draws, len(one)))] for one in scores]


def _middle_half(scores: np.ndarray) -> np.ndarray:
    """(D, R) to (D,)."""
    return stats.trim_mean(scores, 0.25, axis=1)


def _improvement(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> np.ndarray:
    """Of each task (D, R) and (D, Q) to (D,)."""
    by_task = []
    for one, other in zip(mine, theirs, strict=True):
        signs = np.sign(one[:, :, None] - other[:, None, :])
        by_task.append(0.5 + 0.5 * signs.mean(axis=(1, 2)))
    return np.mean(by_task, axis=0)


def _shares_above(scores: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Of each task (D, R), and (P,), to (D, P)."""
    by_task = [np.stack([(one > place).mean(axis=1) for place in places], axis=1) for one in scores]
    return np.mean(by_task, axis=0)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))
