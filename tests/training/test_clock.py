"""Seconds by phase, on a clock that a test moves."""

import pytest

from rl_posttrain.training import clock as module
from rl_posttrain.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """The time in seconds; a test adds to it."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_what_no_phase_claims_is_the_update(now):
    shown = []
    clock = Clock(shown.append)
    clock.start(seconds_before=50.0)
    with clock.phase("rollout"):
        now[0] += 3
    now[0] += 4
    with clock.phase("reward"):
        now[0] += 1
    row = clock.end_step()
    assert row == {"time/rollout": 3, "time/reward": 1, "time/sync": 0, "time/update": 4, "seconds": 58}
    assert shown == ["rollout", "update", "reward", "update"]
    now[0] += 2
    assert clock.end_step() == {"time/rollout": 0, "time/reward": 0, "time/sync": 0, "time/update": 2, "seconds": 60}


def test_a_phase_inside_of_a_phase_is_part_of_it(now):
    shown = []
    clock = Clock(shown.append)
    with clock.phase("evaluation"):
        now[0] += 1
        with clock.phase("rollout"):
            now[0] += 5
    row = clock.end_step()
    assert (row["time/evaluation"], row["time/rollout"], row["time/update"]) == (6, 0, 0)
    assert shown == ["evaluation", "update"]


def test_a_checkpoint_counts_in_the_runs_seconds_and_in_no_phase(now):
    clock = Clock(lambda phase: None)
    clock.end_step()
    with clock.phase("checkpoint"):
        now[0] += 7
    now[0] += 2
    row = clock.end_step()
    assert (row["time/update"], row["seconds"]) == (2, 9)
    assert "time/checkpoint" not in row
