"""Which step is the best, and when a run stops: by hand."""

import pytest

from rl_posttrain.runs.goals import best_row, default_mode, reached, stop_in_words

ROWS = [
    {"step": 1, "reward": 0.5},
    {"step": 2, "eval/accuracy": 0.25},
    {"step": 4, "eval/accuracy": 0.75},
    {"step": 6, "eval/accuracy": 0.75},
    {"step": 8, "eval/accuracy": None},
    {"step": 9, "eval/accuracy": 0.5},
]


@pytest.mark.parametrize(
    ("mode", "steps", "expected"),
    [
        ("max", range(10), (4, 0.75)),  # the first of two that are equal
        ("min", range(10), (2, 0.25)),
        ("max", {6, 9}, (6, 0.75)),
        ("max", {1, 8}, None),
        ("max", (), None),
    ],
)
def test_the_best_of_the_rows(mode, steps, expected):
    best = best_row("eval/accuracy", mode, ROWS, steps)
    said = {"metric": "eval/accuracy", "mode": mode}
    assert best == (expected and {**said, "step": expected[0], "value": expected[1]})


@pytest.mark.parametrize(
    ("stop_at", "row", "expected"),
    [
        ({"eval/accuracy": 0.9}, {"eval/accuracy": 0.9}, True),
        ({"eval/accuracy": 0.9}, {"eval/accuracy": 0.89}, False),
        ({"eval/accuracy": 0.9}, {"reward": 1.0}, False),
        ({"eval/accuracy": 0.9}, {"eval/accuracy": None}, False),
        ({"truncated_share": 0.1}, {"truncated_share": 0.1}, True),  # lower is better
        ({"truncated_share": 0.1}, {"truncated_share": 0.2}, False),
        ({"tokens": 1000}, {"tokens": 1200}, True),
        ({"tokens": 1000, "reward": 0.5}, {"tokens": 1200, "reward": 0.4}, False),  # all of them
        ({"tokens": 1000, "reward": 0.5}, {"tokens": 1200, "reward": 0.5}, True),
        ({}, {"reward": 1.0}, False),
        (None, {"reward": 1.0}, False),
    ],
)
def test_what_is_reached(stop_at, row, expected):
    assert reached(stop_at, row) is expected


def test_modes_and_words():
    assert default_mode("eval/accuracy") == default_mode("a/metric/of/ones/own") == "max"
    assert default_mode("frac_zero_variance") == default_mode("mine/errors") == "min"
    row = {"step": 12, "eval/accuracy": 0.9375, "tokens": 123456}
    said = stop_in_words({"eval/accuracy": 0.9, "tokens": 1e5}, row, 30)
    assert said == "step 12 of 30: eval/accuracy 0.9375 has reached 0.9, tokens 1.235e+05 has reached 100000"
