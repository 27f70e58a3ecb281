"""Runs with more steps than a screen has pixels: they are drawn with all of their peaks."""

import itertools

import numpy as np
import pytest

from rl_posttrain.study.bands import extremes
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.views.report.payload import make_payload

NUM_ROWS = 50_001  # odd, so that the last bin is another


@pytest.mark.parametrize("number", [1, 2, 19, 20, 21, 22, 999, 1000, 1001])
def test_of_each_bin_the_lowest_and_the_highest_are_kept(number):
    random = np.random.default_rng(number)
    for line in (random.normal(size=number), np.zeros(number), random.integers(0, 3, number).astype(float)):
        places = extremes([line], 10)
        assert list(places) == sorted(set(places))
        assert len(places) <= max(2 * 10 + 2, 0)
        assert {0, number - 1} <= set(places)
        if number > 20:
            bounds = [bin_ * number // 10 for bin_ in range(11)]
            for start, end in itertools.pairwise(bounds):
                kept = line[[place for place in places if start <= place < end]]
                assert (kept.min(), kept.max()) == (line[start:end].min(), line[start:end].max())
        else:
            assert len(places) == number


@pytest.mark.parametrize("peak", [0, 17_003, NUM_ROWS - 2, NUM_ROWS - 1])
def test_a_page_of_a_long_run_is_small_and_shows_a_single_high_step(tmp_path, peak):
    reward = np.sin(np.arange(NUM_ROWS) / 1000)
    reward[peak], reward[NUM_ROWS // 2] = 7.0, -7.0
    rows = "".join(f"{step},{value!r}\n" for step, value in enumerate(reward.tolist(), 1))
    (tmp_path / "adamw.csv").write_text(f"step,reward\n{rows}")
    payload = make_payload(judge(read_runs([tmp_path / "adamw.csv"])), "command")
    (run,) = payload["runs"]
    shown = run["y"]["reward"]
    assert len(shown) == len(run["x"]["step"]) <= 4000
    assert (max(shown), min(shown)) == (7.0, -7.0)
    assert abs(run["x"]["step"][shown.index(7.0)] - peak) < 60
    assert payload["smoothing"] == 1
    assert payload["charts"][0]["note"].endswith("A point is the lowest or the highest of up to 26 steps.")
