"""Whether a variant is better than, worse than or equivalent to a baseline, over seeds.

Two runs of one seed are a pair: they had the same prompts and started from the same weights. Runs without seeds are
compared unpaired (Welch). A test of difference and two one-sided tests of equivalence (Schuirmann 1987) are both made,
because a difference that was not found may still be there. P values of several variants are corrected by Holm's
method. `experiments/verdicts/calibration.py` measures how often verdicts are wrong.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_posttrain.errors import RunError, did_you_mean

ALPHA = 0.05
FEWEST_SEEDS = 3
_POWER = 0.8
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Comparison:
    """A variant compared with the baseline, on one measure.

    Attributes:
        word: better, worse, equivalent, undecided, or none (no verdict).
        num_pairs: seeds that both have; in an unpaired comparison, the smaller number of runs.
        difference, low, high: variant minus baseline, with its 95 % confidence interval.
        p_different, p_equivalent: p values of the two tests, after Holm's correction.
        seeds_needed: number of seeds that would decide with a power of 0.8, if difference and spread stay the same;
            None where there is a verdict, or where it is more than `_MOST_SEEDS`.
        sentence: the verdict in words.
    """

    variant: str
    baseline: str
    word: str
    num_pairs: int
    paired: bool
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_different: float | None = None
    p_equivalent: float | None = None
    seeds_needed: int | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Estimate:
    """A difference of means with its standard error and degrees of freedom.

    Attributes:
        unit: what makes a pair.
        measured: the difference that is shown, where `difference` was moved towards zero for the interval.
    """

    difference: float
    error: float
    freedom: float
    num_pairs: int
    paired: bool
    unit: str = "seeds"
    measured: float | None = None

    @property
    def shown(self) -> float:
        """The difference as it is shown."""
        return self.difference if self.measured is None else self.measured

    def p_below(self, limit: float) -> float:
        """P value of the claim that the true difference is below `limit`."""
        return float(_t_tail(limit - self.difference, self.error, self.freedom))

    def p_above(self, limit: float) -> float:
        return float(_t_tail(self.difference - limit, self.error, self.freedom))

    @property
    def p_different(self) -> float:
        return min(1.0, 2 * min(self.p_below(0.0), self.p_above(0.0)))

    def p_equivalent(self, margin: float) -> float:
        return max(self.p_below(margin), self.p_above(-margin))

    def interval(self) -> tuple[float, float]:
        half = float(stats.t.ppf(1 - ALPHA / 2, self.freedom)) * self.error
        return self.difference - half, self.difference + half


def compare_to_baseline(
    values: Mapping[str, Sequence[tuple[int | None, float]]], baseline: str, margin: float
) -> list[Comparison]:
    """Compare every other variant with `baseline`.

    Args:
        values: by variant, (seed, value) of each of its runs; the seed is None where it is not known.
        margin: differences smaller than this do not matter; above 0, in the measure's unit.

    Raises:
        RunError: there is no such baseline.
    """
    check_baseline(baseline, values)
    others = [variant for variant in values if variant != baseline]
    return judge_differences(baseline, {variant: _estimate(variant, baseline, values) for variant in others}, margin)


def judge_differences(
    baseline: str, differences: Mapping[str, Estimate | Comparison], margin: float
) -> list[Comparison]:
    """As `compare_to_baseline`, from differences that are estimated already.

    Args:
        differences: by variant, from `baseline`; a comparison where there is too little for a verdict.
    """
    estimates = {variant: found for variant, found in differences.items() if isinstance(found, Estimate)}
    different = dict(zip(estimates, holm([e.p_different for e in estimates.values()]), strict=True))
    equivalent = dict(zip(estimates, holm([e.p_equivalent(margin) for e in estimates.values()]), strict=True))
    results = []
    for variant, found in differences.items():
        if isinstance(found, Comparison):
            results.append(found)
            continue
        p_different, p_equivalent = different[variant], equivalent[variant]
        if p_equivalent < ALPHA:
            word = "equivalent"
        elif p_different < ALPHA:
            word = "better" if found.difference > 0 else "worse"
        else:
            word = "undecided"
        needed = _seeds_needed(found, margin, len(estimates)) if word == "undecided" else None
        low, high = found.interval()
        results.append(
            Comparison(
                variant, baseline, word, found.num_pairs, found.paired, found.shown, low, high,
                p_different, p_equivalent, needed,
                _sentence(variant, baseline, word, found, margin, p_different, p_equivalent, needed),
            )
        )  # fmt: skip
    return results


def check_baseline(baseline: str, variants: Iterable[str]) -> None:
    """Check that `baseline` is one of `variants`.

    Raises:
        RunError: it is not; the message has the most similar one.
    """
    if baseline not in variants:
        raise RunError(f"--baseline={baseline}: no variant of that name; {did_you_mean(baseline, variants)}")


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected so that the chance of any false claim among them stays at the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _estimate(
    variant: str, baseline: str, values: Mapping[str, Sequence[tuple[int | None, float]]]
) -> Estimate | Comparison:
    """The difference of a variant from the baseline; where there are too few runs, a comparison without a verdict."""
    paired = all(seed is not None for seed, _ in [*values[variant], *values[baseline]])
    if paired:
        mine, theirs = _by_seed(values[variant]), _by_seed(values[baseline])
        differences = np.array([mine[seed] - theirs[seed] for seed in mine if seed in theirs])
        number = len(differences)
        if number < FEWEST_SEEDS:
            seeds = f"{number} seed{'s' * (number != 1)}"
            return too_few(variant, baseline, number, f"it has {seeds} in common with {baseline}", FEWEST_SEEDS)
        error = float(differences.std(ddof=1)) / math.sqrt(number)
        return Estimate(float(differences.mean()), error, number - 1, number, True)
    one, other = (np.array([value for _, value in values[name]]) for name in (variant, baseline))
    number = min(len(one), len(other))
    if number < FEWEST_SEEDS:
        runs = f"{number} run{'s' * (number != 1)}"
        return too_few(variant, baseline, number, f"it or {baseline} has {runs}", FEWEST_SEEDS, paired=False)
    parts = [float(part.var(ddof=1)) / len(part) for part in (one, other)]
    error = math.sqrt(sum(parts))
    rest = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    freedom = error**4 / rest if rest else float(len(one) + len(other) - 2)
    return Estimate(float(one.mean() - other.mean()), error, freedom, number, False)


def too_few(variant: str, baseline: str, number: int, reason: str, fewest: int, *, paired: bool = True) -> Comparison:
    """A comparison without a verdict, of fewer than `fewest` pairs or runs."""
    sentence = f"{variant}: no verdict: {reason}, and at least {fewest} are needed"
    return Comparison(variant, baseline, "none", number, paired, sentence=sentence)


def _by_seed(values: Sequence[tuple[int | None, float]]) -> dict[int | None, float]:
    """Values by seed; a seed with several runs has their mean."""
    runs: dict[int | None, list[float]] = {}
    for seed, value in values:
        runs.setdefault(seed, []).append(value)
    return {seed: sum(found) / len(found) for seed, found in runs.items()}


def _t_tail(distance: float, error: float, freedom: float) -> float:
    if error == 0:  # every pair has the same difference, so there is no randomness
        return 0.0 if distance > 0 else 1.0
    return stats.t.sf(distance / error, freedom)


def _seeds_needed(found: Estimate, margin: float, num_tests: int) -> int | None:
    """The smallest number of seeds with which a test decides with a power of 0.8, if all stays as measured.

    The level is divided by the number of tests, as Holm's correction does for the smallest p value.
    """
    numbers = np.arange(found.num_pairs + 1, _most_pairs(found) + 1)
    freedom = found.freedom * (numbers - 1) / (found.num_pairs - 1)
    error = found.error * np.sqrt(found.num_pairs / numbers)
    two_sided = stats.t.ppf(1 - ALPHA / num_tests / 2, freedom)
    one_sided = stats.t.ppf(1 - ALPHA / num_tests, freedom)
    seen = stats.nct.sf(two_sided, freedom, abs(found.difference) / error)
    inside = stats.nct.sf(one_sided, freedom, (found.difference + margin) / error)
    inside += stats.nct.cdf(-one_sided, freedom, (found.difference - margin) / error) - 1
    enough = np.flatnonzero(np.maximum(seen, inside) >= _POWER)
    return int(numbers[enough[0]]) if len(enough) else None


def _most_pairs(found: Estimate) -> int:
    return _MOST_SEEDS if found.unit == "seeds" else 100 * _MOST_SEEDS


def _sentence(variant, baseline, word, found, margin, p_different, p_equivalent, needed) -> str:
    low, high = found.interval()
    kind = found.unit if found.paired else "runs, unpaired"
    shown = f"{found.shown:+.3g} (95 % CI {low:+.3g} to {high:+.3g}, {found.num_pairs} {kind}"
    if word == "equivalent":
        side = f", and a little {'better' if found.difference > 0 else 'worse'}" if p_different < ALPHA else ""
        return f"{variant} is equivalent to {baseline} within {margin:.3g}{side}: {shown}, p = {p_equivalent:.2g})"
    if word == "undecided":
        seeds = f"{f'about {needed}' if needed else f'more than {_most_pairs(found)}'} {found.unit}"
        return f"{variant} against {baseline} is undecided: {shown}); {seeds} would decide, if all stays as it is"
    return f"{variant} is {word} than {baseline}: {shown}, p = {p_different:.2g})"
