"""The simulation of steps beside closed forms."""

import random
import statistics

import pytest

from rl_posttrain.cost.simulation import Lengths, Plan, median_of_longest, sample_s, simulate


def test_one_engine_by_hand():
    # Two places: 5 and 2 begin; at 2 the next begins and ends at 2 + 4 = 6, after the 5.
    assert sample_s([5, 2, 4], lambda sequences: 1.0, at_once=2) == 6.0
    # A step takes a tenth of a second for each sequence: 2 x .2, 3 x .2, then one alone from 5 to 6.
    assert sample_s([5, 2, 4], lambda sequences: sequences / 10, at_once=2) == pytest.approx(0.4 + 0.6 + 0.1)
    assert sample_s([3] * 8, lambda sequences: 1.0, at_once=4) == 6.0
    assert sample_s([3] * 8, lambda sequences: 1.0, at_once=100) == 3.0


def test_with_one_length_the_ratio_of_overlap_to_turns_is_known():
    batches = [[10] * 8] * 1000
    common = {"engines": 2, "at_once": 8, "update_s": 6.0, "sync_s": 1.0}

    def run(**changes):
        return simulate(Plan(**common | changes), batches, lambda sequences: 1.0)

    # In turns: 10 s of tokens, 6 s of update, and 1 s for the weights from the second step on.
    assert run().step_s == pytest.approx(17, rel=1e-3)
    assert run(max_staleness=0).step_s == pytest.approx(17, rel=1e-3)
    # Overlapped, the slower one decides: sampling, or the update, and the weights.
    for staleness in (1, 2, 4):
        assert run(max_staleness=staleness).step_s == pytest.approx(11, rel=2e-2)
        assert run(max_staleness=staleness, update_s=20.0).step_s == pytest.approx(21, rel=2e-2)
    assert run().staleness == 0
    assert run(max_staleness=1).staleness == pytest.approx(1, abs=0.01)
    busy = run(max_staleness=1)
    assert (busy.engines_busy, busy.trainer_busy) == (pytest.approx(10 / 11, rel=2e-2), pytest.approx(6 / 11, rel=2e-2))


def test_no_batch_is_staler_than_allowed_and_more_staleness_is_never_slower():
    drawn, lengths = random.Random(0), Lengths(median=100, sigma=1.0, most=2000)
    batches = [[lengths.draw(drawn) for _ in range(64)] for _ in range(200)]
    found = {}
    for together in (True, False):
        seconds = found[together] = []
        for staleness in (0, 1, 2, 4):
            plan = Plan(engines=4, at_once=16, update_s=300.0, sync_s=0.0, max_staleness=staleness, together=together)
            result = simulate(plan, batches, lambda sequences: 1.0)
            assert result.staleness <= staleness
            seconds.append(result.step_s)
        assert seconds == sorted(seconds, reverse=True)
        assert seconds[0] > 1.2 * seconds[1] > 1.0
    # With nothing allowed all begin together in any case; later those that wait for nobody are sooner ready.
    assert found[False][0] == found[True][0]
    assert found[False][1] < 0.98 * found[True][1]


def test_waiting_for_the_longest_follows_the_closed_form():
    drawn, lengths = random.Random(1), Lengths(median=500, sigma=0.99, most=10**9)
    for n in (8, 256):
        longest = [
            sample_s([lengths.draw(drawn) for _ in range(n)], lambda sequences: 1.0, at_once=n) for _ in range(400)
        ]
        assert statistics.median(longest) == pytest.approx(median_of_longest(lengths, n), rel=0.07)
    # Of one completion it is the median itself; a cut is a cut.
    assert median_of_longest(lengths, 1) == pytest.approx(500)
    assert median_of_longest(Lengths(500, 0.99, 800), 256) == 800
    # Half of all lengths lie below the median, 99 % below exp(.99 x 2.326) = 10 times that.
    sample = sorted(lengths.draw(drawn) for _ in range(20_000))
    assert sample[10_000] == pytest.approx(500, rel=0.03)
    assert sample[19_800] == pytest.approx(5_000, rel=0.08)
