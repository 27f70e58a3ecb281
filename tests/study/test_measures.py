"""Statistics of runs, by hand."""

import numpy as np
import pytest
from made_runs import history

from rl_posttrain.study.measures import run_statistics, trailing_mean


def test_a_run_of_thirty_steps_by_hand():
    rewards = [0.0] * 10 + [0.5] * 17 + [0.4, 0.6, 0.8]
    found = run_statistics(history(rewards, seconds=10 + 4.0 * np.arange(30), tokens=100.0 * np.arange(1, 31)), 0.5)
    assert found["final"] == pytest.approx(0.6)  # the last tenth is three steps
    # Trapezoids: from step 10 to 11 half of 0.5; 16 whole 0.5; then 0.45, 0.5 and 0.7; over 29 steps.
    assert found["auc"] == pytest.approx((0.25 + 16 * 0.5 + 0.45 + 0.5 + 0.7) / 29)
    # Step 15 is the first whose last five (11 to 15) are all at 0.5.
    assert (found["steps_to"], found["tokens_to"], found["seconds_to"]) == (15, 1500, 10 + 4 * 14)
    # The mean of five is 0.5 until it is 0.48 at step 28.
    assert found["largest_drop"] == pytest.approx(0.02)
    assert found["seconds_per_step"] == 4.0  # the first step's 10 s do not move the median
    assert found["accuracy"] is None
    assert found["spikes"] is None
    assert found["non_finite"] == 0.0


@pytest.mark.parametrize(("num_steps", "counted"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3), (30, 3)])
def test_the_last_tenth_is_rounded_up(num_steps, counted):
    rewards = np.arange(num_steps, dtype=float)
    found = run_statistics(history(rewards, accuracy=rewards / 2), threshold=1e9)
    assert found["final"] == rewards[-counted:].mean()
    assert found["accuracy"] == rewards[-counted:].mean() / 2
    assert [found[f"{axis}_to"] for axis in ("steps", "tokens", "seconds")] == [None] * 3


def test_a_single_step():
    found = run_statistics(history([0.5], grad_norm=[2.0], seconds=[7.0]), threshold=0.5)
    assert found == {
        "final": 0.5,
        "auc": 0.5,
        "steps_to": 1.0,
        "tokens_to": None,
        "seconds_to": 7.0,
        "accuracy": None,
        "largest_drop": 0.0,
        "spikes": 0.0,
        "non_finite": 0.0,
        "seconds_per_step": 7.0,
    }


def test_one_lucky_step_reaches_no_threshold():
    assert run_statistics(history([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), threshold=0.5)["steps_to"] is None


def test_a_run_of_few_steps_is_judged_by_what_there_is():
    assert run_statistics(history([0.0, 1.0]), threshold=0.5)["steps_to"] == 2
    assert run_statistics(history([0.0, 0.5]), threshold=0.5)["steps_to"] is None


def test_the_threshold_is_reached_at_it_and_from_below_zero():
    assert run_statistics(history([0.5] * 5), threshold=0.5)["steps_to"] == 5
    assert run_statistics(history([-2.0] * 5 + [-1.0] * 5), threshold=-1.2)["steps_to"] == 9


def test_the_largest_drop_is_from_the_highest_point_so_far():
    # Means of five: up to 1 at step 10, down to 0 at 20, up to 0.5.
    rewards = [0.0] * 5 + [1.0] * 10 + [0.0] * 5 + [0.5] * 5
    assert run_statistics(history(rewards), 9)["largest_drop"] == pytest.approx(1.0)
    assert run_statistics(history(np.linspace(0, 1, 50)), 9)["largest_drop"] == 0.0


def spikes_of(norms):
    return run_statistics(history([0.5] * len(norms), grad_norm=norms), 1.0)["spikes"]


def test_spikes_are_over_three_times_the_median_before():
    assert spikes_of([1.0] * 30) == 0
    assert spikes_of([1.0] * 10 + [3.0] + [1.0] * 10) == 0  # three times it, and not over
    assert spikes_of([1.0] * 10 + [3.01] + [1.0] * 10 + [50.0, 50.0]) == 3
    assert spikes_of([1.0] * 4 + [100.0]) == 0  # four steps do not tell what is usual
    assert spikes_of([1.0] * 5 + [100.0]) == 1
    # A level that stays is none: once most of the 20 before are at it, it is the median. Steps 21 to 30 are (the median
    # of 10 ones and 10 tens is 5.5, and 10 is under three times that).
    assert spikes_of([1.0] * 20 + [10.0] * 40) == 10


def test_a_gap_is_no_zero():
    rewards = [0.5, np.nan, 0.5, 0.5, np.nan, 0.5]
    found = run_statistics(history(rewards, non_finite=[0, 1, 0, 0, 1, 0], grad_norm=[np.nan] * 6), threshold=0.5)
    assert (found["final"], found["auc"], found["largest_drop"]) == (0.5, 0.5, 0.0)
    assert (found["non_finite"], found["spikes"]) == (2.0, None)


def test_an_axis_that_the_step_did_not_record_is_not_known():
    found = run_statistics(history([0.5] * 5, tokens=[1, 2, 3, 4, np.nan], seconds=[1, 2, 3, 4, 5]), threshold=0.5)
    assert (found["steps_to"], found["tokens_to"], found["seconds_to"]) == (5, None, 5)


def test_rows_that_stand_for_ten_steps():
    found = run_statistics(history([0.0, 0.0, 1.0], steps=[10, 20, 30], seconds=[30, 80, 110]), threshold=0.3)
    assert found["seconds_per_step"] == 3.0
    assert found["auc"] == pytest.approx(5.0 / 20)
    assert found["steps_to"] == 30


def test_rows_from_step_zero_on():
    found = run_statistics(history([0.0, 1.0, 1.0], steps=[0, 1, 2], seconds=[5.0, 7.0, 9.0]), threshold=2.0)
    assert found["seconds_per_step"] == 2.0


def test_trailing_mean():
    np.testing.assert_allclose(trailing_mean(np.array([1.0, 2, 3, 4, 5]), 3), [1, 1.5, 2, 3, 4])
    assert trailing_mean(np.array([4.0]), 5).tolist() == [4.0]
    assert trailing_mean(np.array([]), 5).tolist() == []
