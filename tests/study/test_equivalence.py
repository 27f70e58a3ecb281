"""Verdicts over seeds against scipy's tests."""

import re

import numpy as np
import pytest
from scipy import stats

from rl_posttrain.errors import RunError
from rl_posttrain.study.equivalence import compare_to_baseline, holm
from rl_posttrain.study.estimates import ALPHA


def seeded(*values, start=0):
    return list(enumerate(values, start))


def unseeded(*values):
    return [(None, value) for value in values]


def compare(one, base, margin=0.05):
    (result,) = compare_to_baseline({"base": base, "one": one}, "base", margin)
    assert (result.variant, result.baseline) == ("one", "base")
    return result


GENERATOR = np.random.default_rng(3)
SAMPLES = [
    (GENERATOR.normal(0.5 + difference, spread, number), GENERATOR.normal(0.5, 0.03, number))
    for number in (3, 5, 20)
    for difference in (-0.2, 0.0, 0.01, 0.08)
    for spread in (0.01, 0.1)
]


@pytest.mark.parametrize(("one", "base"), SAMPLES)
@pytest.mark.parametrize("paired", [True, False])
def test_against_scipy(one, base, paired):
    margin = 0.05
    give = seeded if paired else unseeded
    result = compare(give(*one), give(*base), margin)

    def test_at(limit, alternative="two-sided"):
        if paired:
            return stats.ttest_rel(one - limit, base, alternative=alternative)
        return stats.ttest_ind(one - limit, base, equal_var=False, alternative=alternative)

    assert result.p_different == pytest.approx(test_at(0.0).pvalue, rel=1e-9)
    interval = test_at(0.0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert result.difference == pytest.approx(one.mean() - base.mean())
    one_sided = test_at(margin, "less").pvalue, test_at(-margin, "greater").pvalue
    assert result.p_equivalent == pytest.approx(max(one_sided), rel=1e-9)
    assert (result.num_pairs, result.paired) == (len(one), paired)


def test_unequal_numbers_of_runs_against_scipy():
    one, base = np.array([0.5, 0.52, 0.57]), np.array([0.5, 0.41, 0.45, 0.48, 0.39])
    result = compare(unseeded(*one), unseeded(*base))
    test = stats.ttest_ind(one, base, equal_var=False)
    assert result.p_different == pytest.approx(test.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert result.num_pairs == 3


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([], []),
        ([0.2], [0.2]),
        # Sorted .005 .01 .03 .04, times 4, 3, 2, 1: .02 .03 .06 .04, of which none may be below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0, 0.0], [0.0, 1.0, 0.0]),
    ],
)
def test_holm_by_hand(given, corrected):
    assert holm(given) == pytest.approx(corrected)


def test_several_variants_are_corrected_together_and_those_without_a_verdict_are_no_test():
    base = seeded(0.5, 0.52, 0.48, 0.51)
    values = {
        "clear": seeded(0.61, 0.62, 0.6, 0.63),
        "base": base,
        "hardly": seeded(0.56, 0.55, 0.5, 0.58),
        "short": seeded(0.9, 0.9),
    }
    results = {result.variant: result for result in compare_to_baseline(values, "base", 0.01)}
    assert list(results) == ["clear", "hardly", "short"]
    alone = {name: compare(values[name], base, 0.01) for name in ("clear", "hardly")}
    assert alone["clear"].p_different < alone["hardly"].p_different
    assert alone["hardly"].p_different == pytest.approx(results["hardly"].p_different)  # the largest stays
    assert results["clear"].p_different == pytest.approx(2 * alone["clear"].p_different)
    assert results["short"].word == "none"
    # Intervals are each variant's own.
    assert results["clear"].low == pytest.approx(alone["clear"].low)


def test_a_finding_that_is_none_among_several():
    base = seeded(0.5, 0.5, 0.5, 0.5, 0.5)
    hardly = seeded(0.52, 0.56, 0.53, 0.51, 0.55)
    assert 0.01 < compare(hardly, base, 0.001).p_different < 0.025
    assert compare(hardly, base, 0.001).word == "better"
    many = {"base": base} | {f"variant{index}": hardly for index in range(5)}
    results = compare_to_baseline(many, "base", 0.001)
    assert {result.word for result in results} == {"undecided"}


NOISE = (0.0, 0.01, -0.01, 0.004, -0.004)


@pytest.mark.parametrize(
    ("difference", "spread", "margin", "word", "sentence"),
    [
        (0.1, 1.0, 0.05, "better", "one is better than base: +0.1 (95 % CI +0.0905 to +0.109, 5 seeds, p = "),
        (-0.1, 1.0, 0.05, "worse", "one is worse than base: -0.1 (95 % CI -0.109 to -0.0905, 5 seeds, p = "),
        (0.001, 1.0, 0.05, "equivalent", "one is equivalent to base within 0.05: +0.001 (95 % CI -0.00846 to "),
        (0.02, 1.0, 0.05, "equivalent", "one is equivalent to base within 0.05, and a little better: +0.02 (95 % CI"),
        (-0.02, 1.0, 0.05, "equivalent", "one is equivalent to base within 0.05, and a little worse: -0.02 (95 % CI"),
        (
            0.02,
            10.0,
            0.05,
            "undecided",
            "one against base is undecided: +0.02 (95 % CI -0.0746 to +0.115, 5 seeds); about ",
        ),
    ],
)
def test_words_and_sentences(difference, spread, margin, word, sentence):
    base = (0.5, 0.4, 0.6, 0.45, 0.55)
    one = [value + difference + spread * noise for value, noise in zip(base, NOISE, strict=True)]
    result = compare(seeded(*one), seeded(*base), margin)
    # t(0.975, 4) = 2.776; sd of NOISE is sqrt(2 * (0.01**2 + 0.004**2) / 4) = 0.00762; over sqrt(5): 0.00341.
    assert result.high - result.low == pytest.approx(2 * 2.7764 * 0.0034059 * spread, rel=1e-3)
    assert result.word == word
    assert result.sentence.startswith(sentence)
    assert (result.seeds_needed is not None) == (word == "undecided")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_under_three_seeds_there_is_no_verdict(number):
    result = compare(seeded(*[0.9] * number), seeded(0.1, 0.1, 0.1, 0.1))
    assert (result.word, result.num_pairs) == ("none", number)
    assert result.difference is result.low is result.p_different is result.p_equivalent is result.seeds_needed is None
    plural = "" if number == 1 else "s"
    assert result.sentence == f"one: no verdict: it or base has {number} run{plural}, and at least 3 are needed"


def test_under_three_runs_without_seeds_there_is_no_verdict():
    result = compare(unseeded(0.9, 0.9), unseeded(0.1, 0.1, 0.1))
    assert (result.word, result.num_pairs, result.paired) == ("none", 2, False)
    assert result.sentence == "one: no verdict: it or base has 2 runs, and at least 3 are needed"


def overlapping(pairs, alone, other_alone):
    """Derrick, Russ, Toher and White (2017), T_new2, by their formulas: difference, error, freedom."""
    one, other = (np.array(found) for found in zip(*pairs, strict=True))
    mine, theirs = np.concatenate([one, alone]), np.concatenate([other, other_alone])
    first, second, n_c = mine.var(ddof=1), theirs.var(ddof=1), len(one)
    r = stats.pearsonr(one, other).statistic
    n_1, n_2, n_a, n_b = len(mine), len(theirs), len(alone), len(other_alone)
    error = np.sqrt(first / n_1 + second / n_2 - 2 * r * np.sqrt(first * second) * n_c / (n_1 * n_2))
    gamma = (first / n_1 + second / n_2) ** 2 / ((first / n_1) ** 2 / (n_1 - 1) + (second / n_2) ** 2 / (n_2 - 1))
    freedom = (n_c - 1) + (gamma - n_c + 1) / (n_a + n_b + 2 * n_c) * (n_a + n_b)
    return mine.mean() - theirs.mean(), error, freedom


def test_seeds_of_one_side_alone_count_beside_the_pairs():
    one = [(7, 0.9), (2, 0.54), (1, 0.53), (0, 0.5)]
    base = [(0, 0.4), (1, 0.42), (2, 0.44), (9, 0.0), (10, 0.3)]
    result = compare(one, base, 0.01)
    assert (result.num_pairs, result.paired, result.singles) == (3, True, (1, 2))
    difference, error, freedom = overlapping([(0.54, 0.44), (0.53, 0.42), (0.5, 0.4)], [0.9], [0.0, 0.3])
    assert result.difference == pytest.approx(difference)
    half = stats.t.ppf(0.975, freedom) * error
    assert (result.low, result.high) == pytest.approx((difference - half, difference + half))
    assert result.p_different == pytest.approx(2 * stats.t.sf(difference / error, freedom))
    assert "3 pairs, 1 + 2 single runs" in result.sentence


def test_survivors_of_collapsed_seeds_are_not_all_that_counts():
    # The variant has seeds 3 to 8, of which 6 to 8 collapsed; the baseline has 0 to 5.
    base = seeded(0.5, 0.52, 0.48, 0.5, 0.51, 0.49)
    one = seeded(0.6, 0.61, 0.6, 0.0, 0.02, 0.01, start=3)
    assert compare(one, base).word == "undecided"
    assert compare(one[:3], base[3:]).word == "better"  # as it would be from the three pairs alone


def test_fewer_than_three_pairs_are_no_pairs():
    one, base = [(0, 0.5), (1, 0.6), (2, 0.7)], [(1, 0.41), (2, 0.5), (3, 0.62)]
    result = compare(one, base)
    assert not result.paired
    expected = stats.ttest_ind([0.5, 0.6, 0.7], [0.41, 0.5, 0.62], equal_var=False).pvalue
    assert result.p_different == pytest.approx(expected)


def test_only_the_pairs_that_are_said_are_pairs():
    one, base = seeded(0.5, 0.6, 0.7, 0.8), seeded(0.41, 0.5, 0.62, 0.7)
    (result,) = compare_to_baseline({"base": base, "one": one}, "base", 0.05, pairs={"one": {0, 1, 2}})
    assert (result.num_pairs, result.singles) == (3, (1, 1))
    (result,) = compare_to_baseline({"base": base, "one": one}, "base", 0.05, pairs={"one": ()})
    assert not result.paired


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_level_is_the_callers(alpha):
    one, base = seeded(0.56, 0.55, 0.5, 0.58), seeded(0.5, 0.52, 0.48, 0.51)
    (result,) = compare_to_baseline({"base": base, "one": one}, "base", 0.001, alpha=alpha)
    test = stats.ttest_rel([0.56, 0.55, 0.5, 0.58], [0.5, 0.52, 0.48, 0.51])
    assert result.word == ("better" if test.pvalue < alpha else "undecided")
    assert (result.low, result.high) == pytest.approx(tuple(test.confidence_interval(1 - alpha)))
    assert f"{100 * (1 - alpha):g} % CI" in result.sentence


def test_a_seed_that_was_run_twice_is_one_seed():
    # Four runs of seed 0 are one pair, with one baseline run, and not four.
    assert compare([(0, 0.9), (0, 0.91), (0, 0.92), (0, 0.93)], [(0, 0.1)]).num_pairs == 1
    one = [(0, 0.5), (0, 0.7), (1, 0.62), (2, 0.61)]
    base = [(0, 0.5), (1, 0.5), (2, 0.4), (2, 0.6)]
    twice, once = compare(one, base), compare(seeded(0.6, 0.62, 0.61), seeded(0.5, 0.5, 0.5))
    assert (twice.difference, twice.low) == pytest.approx((once.difference, once.low))


def test_one_unknown_seed_makes_the_comparison_unpaired():
    one, base = [0.5, 0.6, 0.7], [0.41, 0.5, 0.62]
    result = compare(seeded(*one), [*seeded(*base[:2]), (None, base[2])])
    assert not result.paired
    assert result.p_different == pytest.approx(stats.ttest_ind(one, base, equal_var=False).pvalue)
    assert "3 runs, unpaired" in result.sentence


@pytest.mark.parametrize(
    ("give", "number", "p"),
    # Of 2^n signs, and of C(2n, n) arrangements, two are as extreme.
    [(seeded, 3, 2 / 8), (seeded, 6, 2 / 64), (unseeded, 3, 2 / 20), (unseeded, 4, 2 / 70)],
)
@pytest.mark.parametrize("value", [0.375, 0.53125, 0.625])
def test_without_any_spread_an_exact_permutation_test_stands_for_the_t_test(give, number, p, value):
    result = compare(give(*[value] * number), give(*[0.5] * number), 0.0625)
    assert result.p_different == pytest.approx(p)
    assert result.p_equivalent == 1.0  # nothing says how far off the difference can be
    assert result.word == ("undecided" if p > 0.05 else "better" if value > 0.5 else "worse")
    assert result.low == result.high == result.difference == value - 0.5
    assert f"no spread in {number} " in result.sentence
    assert result.seeds_needed is None


def test_rounding_is_no_spread():
    one = seeded(0.3, 0.1 + 0.2, 0.3)
    assert compare(one, seeded(0.1, 0.1, 0.1)).p_different == 2 / 8


def power_at(number, difference, spread, margin, kind, repetitions=20_000):
    """How often scipy's tests decide over `number` pairs whose differences have this mean and standard deviation."""
    pairs = np.random.default_rng(11).normal(difference, spread, (repetitions, number))
    if kind == "different":
        return (stats.ttest_1samp(pairs, 0.0, axis=1).pvalue < ALPHA).mean()
    below = stats.ttest_1samp(pairs, margin, axis=1, alternative="less").pvalue < ALPHA
    above = stats.ttest_1samp(pairs, -margin, axis=1, alternative="greater").pvalue < ALPHA
    return (below & above).mean()


@pytest.mark.parametrize(
    ("difference", "spread", "margin", "kind"),
    [
        (0.1, 0.15, 0.01, "different"),
        (-0.1, 0.3, 0.01, "different"),
        (0.0, 0.1, 0.05, "equivalent"),
        (0.01, 0.05, 0.05, "equivalent"),
        (-0.01, 0.05, 0.05, "equivalent"),
    ],
)
def test_seeds_needed_have_the_power_that_is_said(difference, spread, margin, kind):
    offsets = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * spread / np.sqrt(2.5)  # of this very standard deviation
    result = compare(seeded(*(offsets + difference)), seeded(0, 0, 0, 0, 0), margin)
    assert result.word == "undecided"
    needed = result.seeds_needed
    assert f"about {needed} seeds would decide" in result.sentence
    # The interval of a standard deviation from five values: 0.599 to 2.874 times what was measured (chi-square tables).
    low, high = (
        compare(seeded(*(offsets * factor + difference)), seeded(0, 0, 0, 0, 0), margin).seeds_needed
        for factor in (0.599, 2.874)
    )
    assert result.seeds_between[1] == pytest.approx(high, rel=0.01)
    assert result.seeds_between[0] == (pytest.approx(low, abs=1) if low else 6)
    assert f"({result.seeds_between[0]} to {result.seeds_between[1]}, by the interval of the spread)" in result.sentence
    assert result.sentence.endswith("; adding seeds to a result that was seen needs compare --until-decided")
    assert power_at(needed, difference, spread, margin, kind) == pytest.approx(0.82, abs=0.04)
    assert power_at(needed - 1, difference, spread, margin, kind) < 0.81
    assert power_at(int(needed * 0.6), difference, spread, margin, kind) < 0.65


def test_seeds_needed_of_several_variants_are_more():
    base, one = seeded(0, 0, 0, 0, 0), seeded(-0.2, 0.0, 0.1, 0.2, 0.4)
    alone = compare(one, base, 0.01).seeds_needed
    results = compare_to_baseline({"base": base, "one": one, "other": one, "third": one}, "base", 0.01)
    assert all(result.seeds_needed > alone for result in results)


def test_more_seeds_than_anybody_runs_are_no_number():
    result = compare(seeded(-1.0, 0.0, 1.001), seeded(0, 0, 0), 1e-6)
    assert (result.word, result.seeds_needed) == ("undecided", None)
    assert "more than 1000 seeds would decide" in result.sentence


def test_a_baseline_that_is_not_there():
    values = {"adams": seeded(1), "adamw lr=1e-5": seeded(1)}
    with pytest.raises(RunError, match=re.escape("--baseline=adam: no variant of that name; did you mean 'adams'?")):
        compare_to_baseline(values, "adam", 0.05)
    with pytest.raises(RunError, match="--baseline=zzz: no variant of that name; known: adams, adamw lr=1e-5"):
        compare_to_baseline(values, "zzz", 0.05)


def test_a_baseline_alone_has_nothing_beside_it():
    assert compare_to_baseline({"base": seeded(1, 2, 3)}, "base", 0.05) == []
