"""Whether a variant is better than, worse than or equivalent to a baseline, over seeds.

A test of difference and two one-sided tests of equivalence (Schuirmann 1987) are both made, because a difference that
was not found may still be there. P values of several variants are corrected by Holm's method.
`experiments/verdicts/calibration.py` measures how often verdicts are wrong.
"""

import bisect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.study.estimates import ALPHA, Estimate, overlapping

FEWEST_SEEDS = 3
_POWER = 0.8
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Comparison:
    """A variant compared with the baseline, on one measure.

    Attributes:
        word: better, worse, equivalent, undecided, or none (no verdict).
        num_pairs: pairs; in an unpaired comparison, the smaller number of runs.
        paired: whether there are pairs.
        difference, low, high: variant minus baseline, with its confidence interval (95 % at a level of 0.05).
        p_different, p_equivalent: p values of the two tests, after Holm's correction.
        seeds_needed: number of seeds that would decide with a power of 0.8, if difference and spread stay the same;
            None where there is a verdict, or where it is more than `_MOST_SEEDS`.
        sentence: the verdict in words.
        singles: runs of the variant and of the baseline that are in no pair, beside pairs.
        cannot_exclude: failures and collapses that the seeds leave possible, in words; the sentence ends with them.
        seeds_between: that number at both ends of the 95 % interval of the spread; None as in `seeds_needed`.
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
    singles: tuple[int, int] = (0, 0)
    cannot_exclude: str = ""
    seeds_between: tuple[int | None, int | None] | None = None


def compare_to_baseline(
    values: Mapping[str, Sequence[tuple[int | None, float]]],
    baseline: str,
    margin: float,
    *,
    pairs: Mapping[str, Collection[int]] | None = None,
    alpha: float = ALPHA,
) -> list[Comparison]:
    """Compare every other variant with `baseline`.

    Args:
        values: by variant, (seed, value) of each of its runs; the seed is None where it is not known.
        margin: differences smaller than this do not matter; in the measure's unit; at 0 nothing is equivalent.
        pairs: by variant, the seeds at which its run and the baseline's are a pair; by default all that both have.
        alpha: level of the tests, of all variants together.

    Raises:
        RunError: there is no such baseline.
    """
    check_baseline(baseline, values)
    differences = {
        variant: estimate(
            variant, values[variant], baseline, values[baseline], None if pairs is None else pairs[variant]
        )
        for variant in values
        if variant != baseline
    }
    return judge_differences(baseline, differences, margin, alpha)


def judge_differences(
    baseline: str, differences: Mapping[str, Estimate | Comparison], margin: float, alpha: float = ALPHA
) -> list[Comparison]:
    """As `compare_to_baseline`, from differences that are estimated already.

    Args:
        differences: by variant, from `baseline`; a comparison where there is too little for a verdict.
        alpha: level of the tests, of all variants together.
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
        if p_equivalent < alpha:
            word = "equivalent"
        elif p_different < alpha:
            word = "better" if found.difference > 0 else "worse"
        else:
            word = "undecided"
        needed = between = None
        if word == "undecided" and found.error:
            needed, *between = (
                _seeds_needed(found, factor, margin, alpha / len(estimates))
                for factor in (1.0, *_spread_factors(found))
            )
            between = tuple(between)
        low, high = found.interval(alpha)
        results.append(
            Comparison(
                variant, baseline, word, found.num_pairs, found.paired, found.shown, low, high,
                p_different, p_equivalent, needed,
                _sentence(variant, baseline, word, found, margin, p_different, p_equivalent, alpha)
                + (_advice(found, needed, between) if word == "undecided" and found.error else ""),
                found.singles, seeds_between=between,
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


def estimate(
    variant: str,
    values: Sequence[tuple[int | None, float]],
    baseline: str,
    base: Sequence[tuple[int | None, float]],
    pairs: Collection[int] | None,
) -> Estimate | Comparison:
    """The difference of a variant from the baseline; where there are too few runs, a comparison without a verdict.

    Args:
        values, base: (seed, value) of each run of the variant, and of the baseline.
        pairs: seeds at which both runs are a pair; None: all that both have.
    """
    mine, theirs = _by_seed(values), _by_seed(base)
    common = [seed for seed in mine if seed in theirs and (pairs is None or seed in pairs)]
    one, other = (np.array([found[seed] for seed in common]) for found in (mine, theirs))
    if len(common) < FEWEST_SEEDS:  # two pairs do not tell how alike the runs of a pair are
        common, one, other = [], np.empty(0), np.empty(0)
    alone = [
        np.array(
            [value for seed, value in found.items() if seed not in common]
            + [value for seed, value in runs if seed is None]
        )
        for found, runs in ((mine, values), (theirs, base))
    ]
    number = len(common) + min(map(len, alone))
    if number < FEWEST_SEEDS:
        runs = f"{number} run{'s' * (number != 1)}"
        return too_few(variant, baseline, number, f"it or {baseline} has {runs}", FEWEST_SEEDS, paired=False)
    return overlapping(one, other, *alone)


def too_few(variant: str, baseline: str, number: int, reason: str, fewest: int, *, paired: bool = True) -> Comparison:
    """A comparison without a verdict, of fewer than `fewest` pairs or runs."""
    return no_verdict(variant, baseline, number, f"{reason}, and at least {fewest} are needed", paired=paired)


def no_verdict(variant: str, baseline: str, number: int, reason: str, *, paired: bool = False) -> Comparison:
    """A comparison without a verdict, and why."""
    return Comparison(variant, baseline, "none", number, paired, sentence=f"{variant}: no verdict: {reason}")


def _by_seed(values: Sequence[tuple[int | None, float]]) -> dict[int, float]:
    """Values by seed, where it is known; a seed with several runs has their mean."""
    runs: dict[int, list[float]] = {}
    for seed, value in values:
        if seed is not None:
            runs.setdefault(seed, []).append(value)
    return {seed: sum(found) / len(found) for seed, found in runs.items()}


def _spread_factors(found: Estimate) -> tuple[float, float]:
    """By how much the spread may be smaller and larger than it was measured: its 95 % interval (chi-square)."""
    quantiles = stats.chi2.ppf([0.975, 0.025], found.freedom)
    return tuple(float(factor) for factor in np.sqrt(found.freedom / quantiles))


def _seeds_needed(found: Estimate, factor: float, margin: float, alpha: float) -> int | None:
    """The smallest number of seeds with which a test decides with a power of 0.8, if all stays as measured.

    Args:
        factor: that the spread is multiplied by.
        alpha: the level divided by the number of tests, as Holm's correction does for the smallest p value.
    """

    def decides(number: int) -> bool:
        freedom = found.freedom * (number - 1) / (found.number - 1)
        error = factor * found.error * math.sqrt(found.number / number)
        two_sided, one_sided = special.stdtrit(freedom, [1 - alpha / 2, 1 - alpha])
        seen = stats.nct.sf(two_sided, freedom, abs(found.difference) / error)
        inside = stats.nct.sf(one_sided, freedom, (found.difference + margin) / error)
        inside += stats.nct.cdf(-one_sided, freedom, (found.difference - margin) / error) - 1
        return max(seen, inside) >= _POWER

    # The power grows with the number of seeds.
    numbers = range(found.number + 1, _most_seeds(found) + 1)
    place = bisect.bisect_left(numbers, True, key=decides)
    return numbers[place] if place < len(numbers) else None


def _most_seeds(found: Estimate) -> int:
    return 100 * _MOST_SEEDS if found.unit == "questions" else _MOST_SEEDS


def _sentence(variant, baseline, word, found, margin, p_different, p_equivalent, alpha) -> str:
    low, high = found.interval(alpha)
    kind = f"{found.num_pairs} {found.unit if found.paired else 'runs, unpaired'}"
    if any(found.singles):
        kind = f"{found.num_pairs} pairs, {found.singles[0]} + {found.singles[1]} single runs"
    shown = f"{found.shown:+.3g} ({100 * (1 - alpha):.4g} % CI {low:+.3g} to {high:+.3g}, {kind}"
    if word == "equivalent":
        side = f", and a little {'better' if found.difference > 0 else 'worse'}" if p_different < alpha else ""
        return f"{variant} is equivalent to {baseline} within {margin:.3g}{side}: {shown}, p = {p_equivalent:.2g})"
    if not found.error:
        kind = f"no spread in {kind}, so an exact permutation test: p = {p_different:.2g}"
        verdict = (
            f"{variant} against {baseline} is undecided"
            if word == "undecided"
            else f"{variant} is {word} than {baseline}"
        )
        return f"{verdict}: {found.shown:+.3g} ({kind})"
    if word == "undecided":
        return f"{variant} against {baseline} is undecided: {shown})"
    return f"{variant} is {word} than {baseline}: {shown}, p = {p_different:.2g})"


def _advice(found: Estimate, needed: int | None, between: tuple[int | None, int | None]) -> str:
    """How many seeds would decide, and what it takes to add them."""
    low, high = (f"{number}" if number else f"more than {_most_seeds(found)}" for number in between)
    about = f"about {needed}" if needed else f"more than {_most_seeds(found)}"
    ends = f" ({low} to {high}, by the interval of the spread)" if low != high else ""
    how = "; adding seeds to a result that was seen needs compare --until-decided" if found.unit == "seeds" else ""
    return f"; {about} {found.unit} would decide, if all stays as it is{ends}{how}"
