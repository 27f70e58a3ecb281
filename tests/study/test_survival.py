"""Time to a threshold: textbook numbers, cases by hand, and that every planned run counts."""

import numpy as np
import pytest
from made_runs import FAILED, ONE_REWARD, RUNNING, history

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.study.survival import Followed, common_horizon, time_to, times_to
from rl_posttrain.views.tables import cell_text, times_table, verdict_table


def followed(reached, not_reached=()):
    return [Followed(time, True) for time in reached] + [Followed(time, False) for time in not_reached]


def test_remissions_of_leukaemia_as_in_the_textbooks():
    """Weeks of remission under 6-mercaptopurine (Freireich 1963), in Collett and in Klein and Moeschberger: the median
    is 23 weeks, not bounded above, and the mean up to week 35 is 23.29."""
    runs = followed([6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])
    found = time_to(runs, 35)
    shares = dict(zip(found.times, found.shares, strict=True))
    below = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {week: round(1 - shares[week], 3) for week in below} == below
    assert (found.median, found.median_low, found.median_high) == (23, 13, None)
    assert found.mean == pytest.approx(23.29, abs=0.005)
    assert (found.num_runs, found.num_reached) == (21, 9)


def test_runs_that_all_get_there_by_hand():
    found = time_to(followed([10, 20, 60]), 60)
    assert (found.median, found.mean) == (20, pytest.approx(30))
    # Mean and standard deviation 30 and sqrt(700), t of 2 degrees is 4.3027: 30 +- 65.7, and no time is below 0.
    assert (found.mean_low, found.mean_high) == (0, 60)
    assert found.shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert (found.shares_low[-1], found.shares_high[-1]) == (None, None)


def test_the_restricted_mean_has_students_interval_where_nobody_is_lost():
    times = [40.0, 42, 44, 46]
    found = time_to(followed(times, [100, 100]), 60)
    seen = np.array([*times, 60, 60])
    half = 2.570582 * seen.std(ddof=1) / np.sqrt(6)
    assert (found.mean, found.mean_low, found.mean_high) == pytest.approx(
        (seen.mean(), seen.mean() - half, seen.mean() + half), rel=1e-6
    )


def test_a_run_that_is_lost_early_counts_for_as_long_as_it_was_seen():
    # At 10 one of three gets there, at 20 one is lost, at 30 the last gets there: below are 2/3, 2/3 and 0.
    found = time_to(followed([10, 30], [20]), 30)
    assert found.mean == pytest.approx(10 + 20 * 2 / 3)
    assert found.median == 30


def test_half_that_never_get_there_have_a_median_and_fewer_have_none():
    assert time_to(followed([10, 20], [50, 50]), 50).median == 20
    found = time_to(followed([10], [50, 50]), 50)
    assert (found.median, found.median_high, found.mean) == (None, None, pytest.approx(110 / 3))
    assert time_to(followed([], [50, 50]), 50).median is None
    alone = time_to(followed([10]), 50)
    assert (alone.median, alone.mean, alone.mean_low) == (10, 10, None)


def test_the_horizon_is_as_far_as_every_group_is_known():
    assert common_horizon([followed([10, 20]), followed([5], [40])]) == 40
    assert common_horizon([followed([10], [100]), followed([5], [40])]) == 40
    assert common_horizon([followed([10, 20]), followed([5])]) == 20
    assert times_to({"a": followed([10]), "b": []}).keys() == {"a"}


def rising(number, at, **more):
    """A run whose reward goes from 0 to 1 after `at` - 5 steps, so that the mean of 5 steps is 0.5 or more soon."""
    recipe = ONE_REWARD | {"algorithm": {"num_steps": number}}
    return history([0.0] * (at - 5) + [1.0] * (number - at + 5), recipe=recipe, **more)


def test_failed_absent_and_late_runs_all_count():
    tokens = {"tokens": 10.0 * np.arange(1, 51)}
    runs = [
        rising(50, 20, name="a-0", **tokens),  # three of five at 1 in step 18
        rising(50, 30, name="a-1", seed=1, **tokens),  # 28
        # It got there in step 18 and then failed: it never does, within its 100 planned steps.
        history(
            [0.0] * 15 + [1.0] * 35, name="a-2", seed=2, recipe=ONE_REWARD, outcome=FAILED, num_planned=100, **tokens
        ),
        history([0.0] * 50, name="b-0", variant="b", recipe=ONE_REWARD, **tokens),
        history([0.0] * 4, name="b-1", variant="b", seed=1, recipe=ONE_REWARD, outcome=RUNNING),
    ]
    absent = Absent("a-3", runs[0].path, "adams", 3, ONE_REWARD, FAILED)
    judgement = judge(Collection(runs, [], [absent]), baseline="b")
    found = judgement.times["step"]["adams"]
    assert (found.num_runs, found.num_reached, found.median) == (4, 2, 28)
    assert found.times == [18, 28, 100]
    assert found.horizon == 50  # b was seen for 50 steps
    assert found.mean == pytest.approx((18 + 28 + 50 + 50) / 4)
    # 500 tokens in 50 steps, 1,000 in the 100 that were planned.
    assert judgement.times["tokens"]["adams"].times == [180, 280, 1000]
    assert (judgement.times["step"]["b"].num_runs, judgement.times["step"]["b"].median) == (1, None)
    assert "seconds" not in judgement.times
    rows = {row["variant"]: row for row in verdict_table(judgement)["rows"]}
    assert cell_text(rows["adams"]["steps_to"]) == "28 (2 of 4 seeds)"
    assert cell_text(rows["b"]["steps_to"]) == "over 50"
    assert rows["adams"]["seconds_to"] is None
    first = times_table(judgement)["rows"][0]
    assert [cell_text(first[key]) for key in ("variant", "axis", "reached", "median", "mean", "horizon")] == [
        "adams", "steps", "2 of 4", "28", "36", "50",
    ]  # fmt: skip
    plain = judgement.as_dict()["time_to_threshold"]["step"]["adams"]
    assert (plain["median"], plain["shares"]) == (28, pytest.approx([0.25, 0.5, 0.5]))
