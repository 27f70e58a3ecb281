"""What a verdict is about: the measure, the margin, the threshold, and the value of a failed run.

They are fixed by the recipe, the user or the baseline alone, so that no further variant can move them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.measures import MEASURES, last_tenth, mean_over
from rl_posttrain.study.outcomes import last_tenth_of, usual_distance

FAILED = ("worst", "none")
_MARGIN_SHARE, _THRESHOLD_SHARE = 0.05, 0.5


@dataclass(frozen=True)
class RewardRange:
    """The lowest and the highest reward that a step can have, and who says so."""

    low: float
    high: float
    origin: str

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Terms:
    """The terms of a verdict.

    Attributes:
        margin: smaller differences do not matter; 0 where none is known, and then nothing is equivalent.
        range: of the reward; None where it is not known.
        failed: the value that a failed run counts as; None where there is none, so that it makes a verdict impossible.
        words: all of it in a sentence.
        notices: what stands on the baseline's runs because the range is not known.
    """

    measure: str
    margin: float
    threshold: float
    range: RewardRange | None
    failed: float | None
    words: str
    notices: list[str]


def check_terms(
    measure: str,
    margin: float | None,
    reward_range: tuple[float, float] | None = None,
    failed: str | float = "worst",
    threshold: float | None = None,
) -> None:
    """Check the measure, the margin, the range of the reward, the value of a failed run and the threshold.

    Raises:
        RunError: there is no such measure, the margin is not a number above 0, the range has no width, or the value is
            neither a number nor one of `FAILED`, or is above the range; or the threshold is no number.
    """
    if measure not in MEASURES:
        raise RunError(f"--measure={measure}: no such measure; {did_you_mean(measure, MEASURES)}")
    if margin is not None and not 0 < margin < math.inf:
        raise RunError(f"--margin={margin}: differences below the margin do not matter; set a number above 0")
    if reward_range is not None and not (all(map(math.isfinite, reward_range)) and reward_range[0] < reward_range[1]):
        shown = ",".join(f"{end:g}" for end in reward_range)
        raise RunError(f"--range={shown}: it is the lowest and the highest reward; write LOW,HIGH with LOW below HIGH")
    if failed not in FAILED and not (isinstance(failed, float | int) and math.isfinite(failed)):
        raise RunError(f"--failed={failed}: what a failed run counts as; set worst, none or a number")
    if reward_range is not None and failed not in FAILED and failed > reward_range[1]:
        raise RunError(
            f"--failed={failed:g}: no run can earn more than {reward_range[1]:g}, the highest reward of --range; set "
            f"a low reward, such as {reward_range[0]:g}"
        )
    if threshold is not None and not math.isfinite(threshold):
        raise RunError(f"--threshold={threshold}: steps are counted up to this reward; set a number")


def parse_range(text: str | None) -> tuple[float, float] | None:
    """``LOW,HIGH`` as numbers.

    Raises:
        RunError: it is not written so.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise RunError(f"--range={text}: write the lowest and the highest reward as LOW,HIGH, such as 0,1") from None
    return low, high


def parse_failed(text: str) -> str | float:
    """``worst``, ``none`` or a number; anything else is left for `check_terms` to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def make_terms(
    collection: Collection,
    baseline: str,
    *,
    measure: str,
    margin: float | None,
    threshold: float | None,
    reward_range: tuple[float, float] | None,
    failed: str | float,
) -> Terms:
    """The terms of a comparison with `baseline`, from what the user said, the recipe, or else the baseline's runs."""
    known = _range((run.recipe for run in collection.runs), reward_range)
    base = [run for run in collection.variants.get(baseline, []) if run.finished]
    notices, where, half = [], "", ""
    if margin is None and known:
        margin = _MARGIN_SHARE * known.width
        where = f" ({_MARGIN_SHARE} of the reward range of {known.width:.3g}, {known.origin})"
    elif margin is None:
        unknown, say = "the range of the reward is not known", "set --margin, or --range LOW,HIGH"
        if base:
            mean = float(np.mean([last_tenth(*run.points("reward")) for run in base]))
            margin = _MARGIN_SHARE * abs(mean)
            where = f" ({_MARGIN_SHARE} of {baseline}'s mean final reward of {mean:.3g})"
            share = f"the margin of {margin:.3g} is {_MARGIN_SHARE} of {baseline}'s mean final reward"
            notices.append(f"{unknown}, so {share}; {say}")
        else:
            margin, where = 0.0, f" (no run of {baseline} finished, and {unknown})"
            notices.append(f"{unknown} and no run of {baseline} finished, so there is no margin; {say}")
    if threshold is None and known:
        threshold = known.low + _THRESHOLD_SHARE * known.width
    elif threshold is None:
        threshold = _halfway(base or collection.variants.get(baseline, []) or collection.runs)
        half = f" (half-way from {baseline}'s first to its final reward)"
    value = known.low if failed == "worst" and known else failed if isinstance(failed, float | int) else None
    counted = "" if value is None else f" A failed run counts as {value:.3g}."
    return Terms(
        measure=measure,
        margin=margin,
        threshold=threshold,
        range=known,
        failed=value,
        words=f"Measure: {measure}, {MEASURES[measure]}. Margin: {margin:.3g}{where}. "
        f"Threshold: {threshold:.3g}{half}.{counted}",
        notices=notices,
    )


def margin_before_runs(
    recipes: Iterable[Mapping[str, Any]], margin: float | None, reward_range: tuple[float, float] | None
) -> float:
    """The margin, where it must be fixed before there is a run.

    Raises:
        RunError: nobody says it, and no recipe says the range of its rewards.
    """
    if margin is not None:
        return margin
    if (known := _range(recipes, reward_range)) is None:
        raise RunError(
            "--margin: the range of the reward is not known, and the margin must be fixed before the first look; set "
            "--margin, or --range LOW,HIGH"
        )
    return _MARGIN_SHARE * known.width


def _range(recipes: Iterable[Mapping[str, Any]], said: tuple[float, float] | None) -> RewardRange | None:
    return RewardRange(*said, "as --range says") if said else range_of_recipes(recipes)


def range_of_recipes(recipes: Iterable[Mapping[str, Any]]) -> RewardRange | None:
    """The range of the reward from the ranges and weights of a recipe; None where no recipe has all of them."""
    for recipe in recipes:
        rewards = recipe.get("rewards") or ()
        if rewards and all(reward.get("range") for reward in rewards):
            # The ends of each, weighted; a weight below 0 swaps them.
            ends = [[reward.get("weight", 1.0) * end for end in reward["range"]] for reward in rewards]
            low, high = (float(sum(pick(pair) for pair in ends)) for pick in (min, max))
            if high > low:
                return RewardRange(low, high, "the recipe's reward ranges and weights")
    return None


def _halfway(runs: Sequence[History]) -> float:
    """Half-way from the mean reward of the runs' first tenth to that of their last tenth."""
    curves = [run.points("reward") for run in runs]
    ends = [last_tenth(*curve) for curve in curves]
    starts = [mean_over(x, y, -math.inf, x[0] - usual_distance(x) + last_tenth_of(x)) for x, y in curves]
    return float(np.mean(starts) + _THRESHOLD_SHARE * (np.mean(ends) - np.mean(starts)))
