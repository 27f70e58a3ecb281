"""Differences from the baseline along the run: by hand, with failed runs, and all ten at once."""

import numpy as np
import pytest
from made_runs import FAILED, ONE_REWARD, RUNNING, history
from scipy import stats

from rl_posttrain.study.along import differences_along
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.study.measures import common_ruler
from rl_posttrain.views.report.payload import make_payload


def along(runs, *, failed=0.0, pairs=range(9)):
    collection = Collection(runs, [])
    return differences_along(collection, "adamw", {"adams": pairs, "scale": pairs}, failed, common_ruler(runs))


def climbing(variant, seed, lead, number=20, **more):
    """20 steps of a reward of a hundredth of the step, and `lead` in the second half."""
    steps = np.arange(1.0, number + 1)
    return history(0.01 * steps + lead * (steps > 10), name=f"{variant}-{seed}", variant=variant, seed=seed, **more)


BASE = [climbing("adamw", seed, 0.0) for seed in range(3)]


def test_by_hand():
    runs = [climbing("adams", seed, lead) for seed, lead in enumerate((0.1, 0.2, 0.3))]
    found = along([*runs, *BASE])["adams"]
    assert found.edges == pytest.approx(np.arange(0, 21, 2))
    assert found.differences == pytest.approx([0.0] * 5 + [0.2] * 5)
    # Standard error 0.1 / sqrt(3); ten intervals at once: each at 1 - 0.05 / 10.
    half = stats.t.ppf(1 - 0.05 / 20, 2) * 0.1 / np.sqrt(3)
    assert found.low[5:] == pytest.approx([0.2 - half] * 5)
    assert found.high[5:] == pytest.approx([0.2 + half] * 5)


def test_the_last_tenth_is_the_measure_of_the_verdict():
    runs = [climbing("adams", seed, lead) for seed, lead in enumerate((0.1, 0.2, 0.35))]
    judgement = judge(Collection([*runs, *BASE], []), baseline="adamw", margin=0.05)
    assert judgement.along["adams"].differences[-1] == pytest.approx(judgement.comparisons[0].difference)
    assert judgement.as_dict()["along"]["adams"]["differences"] == judgement.along["adams"].differences
    payload = make_payload(judgement, "command")["along"][0]
    assert [curve and curve["y"][-1] for curve in payload["curves"]] == [pytest.approx(0.21667), None]
    assert payload["title"] == "Difference from adamw along the run"


def test_a_failed_run_counts_from_where_it_failed():
    runs = [climbing("adams", seed, 0.0) for seed in range(2)]
    # Its last good step is 12, the end of the sixth tenth.
    failed = history(
        0.01 * np.arange(1.0, 13), name="adams-2", variant="adams", seed=2, outcome=FAILED, num_planned=20,
        recipe=ONE_REWARD,
    )  # fmt: skip
    found = along([*runs, failed, *BASE])["adams"]
    assert found.differences[:6] == pytest.approx([0.0] * 6)
    # 0 in place of 0.135, 0.155, 0.175 and 0.195.
    assert found.differences[6:] == pytest.approx([-0.135 / 3, -0.155 / 3, -0.175 / 3, -0.195 / 3])
    assert along([*runs, failed, *BASE], failed=None) == {}


def test_what_cannot_be_compared_is_left_out():
    late = climbing("adams", 2, 0.0, number=4, outcome=RUNNING)
    assert along([*(climbing("adams", seed, 0.0) for seed in range(2)), late, *BASE]) == {}
    assert along([climbing("adams", 0, 0.1), *BASE]) == {}
    assert along(BASE) == {}
