"""Results over several tasks: cases by hand, rliable's numbers, and the t test over tasks."""

import numpy as np
import pytest
from scipy import stats

from rl_posttrain.study.equivalence import estimate
from rl_posttrain.study.estimates import Estimate
from rl_posttrain.study.robust import (
    improvement_interval,
    interquartile_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified,
)


def scores(seed):
    """Five runs on each of three tasks."""
    generator = np.random.default_rng(seed)
    both = [generator.random((5, 3)).round(2) for _ in range(2)]
    return [list(one.T) for one in both]


def test_by_hand():
    # Of eight scores the middle four: 3, 4, 5 and 6.
    assert interquartile_mean([np.array([1.0, 2, 3, 100]), np.array([4.0, 5, 6, -50])]) == pytest.approx(3.5)
    # The first task: 3 above both, 1 equal to one and below the other: (1 + 1 + 0.5 + 0) / 4. The second: 0.
    mine, theirs = [np.array([3.0, 1]), np.array([0.0])], [np.array([1.0, 2]), np.array([5.0, 6, 7])]
    assert probability_of_improvement(mine, theirs) == pytest.approx(2.5 / 4 / 2)
    profile = performance_profile([np.array([0.2, 0.4]), np.array([0.9])], 0.0, 1.0, num_draws=10)
    shares = dict(zip(np.round(profile.scores, 2), profile.shares, strict=True))
    # A score of 0.4 is not above 0.4; each task weighs the same.
    assert (shares[0.0], shares[0.3], shares[0.4], shares[0.9]) == (1, 0.75, 0.5, 0)


def test_rliable_says_the_same():
    """rliable 1.2.0 with 50,000 draws (metrics.aggregate_iqm, metrics.probability_of_improvement and
    library.create_performance_profile at 0, 0.2, ..., 1); its intervals move by 0.003 from seed to seed."""
    mine, theirs = scores(0)
    first, second = interquartile_interval(mine), interquartile_interval(theirs)
    assert (first.value, second.value) == pytest.approx((0.57666667, 0.54666667))
    assert (first.low, first.high) == pytest.approx((0.3056, 0.7728), abs=0.01)
    assert (second.low, second.high) == pytest.approx((0.3844, 0.7133), abs=0.01)
    improved = improvement_interval(mine, theirs)
    assert improved.value == pytest.approx(0.5)
    assert (improved.low, improved.high) == pytest.approx((0.28, 0.7333), abs=0.02)
    profile = performance_profile(mine, 0.0, 1.0)
    assert profile.shares[::20] == pytest.approx([0.93333333, 0.73333333, 0.66666667, 0.6, 0.33333333, 0.0])
    assert profile.low[::20] == pytest.approx([0.8, 0.53333333, 0.4, 0.4, 0.13333333, 0.0], abs=0.01)
    assert profile.high[::20] == pytest.approx([1.0, 0.93333333, 0.86666667, 0.8, 0.6, 0.0], abs=0.01)


def test_numbers_do_not_change_from_call_to_call():
    mine, theirs = scores(1)
    assert interquartile_interval(mine) == interquartile_interval(mine)
    assert improvement_interval(mine, theirs) == improvement_interval(mine, theirs)


def of_task(mine, theirs):
    return estimate("a", list(enumerate(mine)), "b", list(enumerate(theirs)), None)


def test_the_test_over_tasks_by_hand():
    first = of_task([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])  # differences 0.1, 0.2, 0.3
    second = of_task([0.4, 0.4, 0.4, 0.4], [0.4, 0.2, 0.4, 0.2])  # 0, 0.2, 0, 0.2
    both = stratified([first, second])
    one, other = 0.1**2 / 3, (0.2**2 / 3) / 4
    assert both.difference == pytest.approx((0.2 + 0.1) / 2)
    assert both.error == pytest.approx(np.sqrt(one + other) / 2)
    assert both.freedom == pytest.approx((one + other) ** 2 / (one**2 / 2 + other**2 / 3))
    assert (both.num_pairs, both.paired, both.unit) == (7, True, "pairs over 2 tasks")


def test_two_tasks_of_equal_spread_are_welchs_test():
    """The mean of two tasks' differences has the t and the degrees of Welch's test of one against minus the other."""
    generator = np.random.default_rng(2)
    one, other = generator.normal(0.1, 1.0, 6), generator.normal(0.2, 2.0, 5)
    both = stratified([of_task(one, np.zeros(6)), of_task(other, np.zeros(5))])
    reference = stats.ttest_ind(one, -other, equal_var=False)
    assert both.p_different == pytest.approx(reference.pvalue)
    assert both.freedom == pytest.approx(reference.df)


def test_no_spread_is_no_certainty():
    flat = Estimate(0.1, 0.0, 2, 3, True, p_without_spread=0.25)
    assert stratified([flat, flat]).p_different == 0.25
    assert stratified([flat, flat]).p_equivalent(1.0) == 1.0
