"""What a verdict is about where nobody says: the baseline, the margin, the threshold."""

import re

import numpy as np
import pytest
from made_runs import ONE_REWARD, history, study

from rl_posttrain.errors import RunError
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.study.outcomes import Outcome
from rl_posttrain.study.terms import check_terms, parse_failed, parse_range


@pytest.mark.parametrize(
    ("labels", "baseline"),
    [
        (["adams", "adamw", "scale"], "adamw"),
        (["adams", "adamw-lr=1e-5-betas=0.9,0.95", "adamw-lr=1e-5"], "adamw-lr=1e-5"),  # the shortest name
        (["adams", "adamw_torch", "scale"], "adams"),  # the first: that is another name
        (["scale", "adams"], "scale"),
    ],
)
def test_the_default_baseline(labels, baseline):
    assert judge(study({label: [0.5, 0.5, 0.5] for label in labels})).baseline == baseline


def test_the_default_baseline_goes_by_the_recipe_where_there_is_one():
    optimizers = {"adamw-like": "adams", "torch": "adamw"}
    runs = [
        history([0.5], name=name, variant=name, recipe={"optimizer": {"name": optimizer}})
        for name, optimizer in optimizers.items()
    ]
    assert judge(Collection(runs, left_out=[])).baseline == "torch"


@pytest.mark.parametrize(
    ("weights", "ranges", "margin", "threshold"),
    [
        ([1.0], [[0, 1]], 0.05, 0.5),
        ([1.0, 0.5], [[0, 1], [0, 1]], 0.075, 0.75),
        ([1.0, -0.2], [[0, 1], [0, 1]], 0.06, 0.4),
        ([2.0, None], [[0, 1], [0, 1]], 0.15, 1.5),
        ([1.0, 0.5], [[0, 1], [-1, 0]], 0.075, 0.25),  # from -0.5 to 1
        ([1.0, -1.0], [[0, 10], [2, 4]], 0.6, 2.0),  # from -4 to 8
    ],
)
def test_margin_and_threshold_come_from_the_ranges_and_weights_of_the_rewards(weights, ranges, margin, threshold):
    rewards = [
        {"fn": "mine.py:mine", "range": own} | ({} if weight is None else {"weight": weight})
        for weight, own in zip(weights, ranges, strict=True)
    ]
    judgement = judge(study({"adams": [0.3], "adamw": [0.3]}, recipe={"rewards": rewards}))
    assert (judgement.margin, judgement.threshold) == pytest.approx((margin, threshold))
    share = f"Margin: {margin:.3g} (0.05 of the reward range of {20 * margin:.3g}, the recipe's reward ranges and "
    assert share in judgement.terms
    assert f"Threshold: {threshold:.3g}. A failed run counts as " in judgement.terms


def rising(variant, seed, start, end, **options):
    rewards = np.linspace(start, end, 10)
    return history(rewards, name=f"{variant}-{seed}", variant=variant, seed=seed, **options)


@pytest.mark.parametrize("third", [-5.0, 0.3, 1e6])
def test_where_the_range_is_not_known_margin_and_threshold_come_from_the_baseline_alone(third):
    runs = [rising("adamw", seed, 0.2, end) for seed, end in enumerate((0.5, 0.6, 0.7))]
    runs += [rising("adams", seed, 0.2, 0.9) for seed in range(3)]
    runs += [rising("sgd", seed, third, third / 2) for seed in range(3)]
    judgement = judge(Collection(runs, []))
    assert judgement.margin == pytest.approx(0.05 * 0.6)
    assert judgement.threshold == pytest.approx((0.2 + 0.6) / 2)
    assert "Margin: 0.03 (0.05 of adamw's mean final reward of 0.6)" in judgement.terms
    assert "Threshold: 0.4 (half-way from adamw's first to its final reward)." in judgement.terms
    notice = "the range of the reward is not known, so the margin of 0.03 is 0.05 of adamw's mean final reward"
    assert any(found.startswith(notice) for found in judgement.notices)
    assert [comparison.word for comparison in judgement.comparisons if comparison.variant == "adams"] == ["better"]


def test_a_range_or_a_margin_that_was_said_is_the_one_that_counts():
    collection = study({"adams": [0.5, 0.52, 0.51], "adamw": [0.4, 0.44, 0.42]})
    judgement = judge(collection, reward_range=(-1.0, 3.0))
    assert (judgement.margin, judgement.threshold) == pytest.approx((0.2, 1.0))
    assert "Margin: 0.2 (0.05 of the reward range of 4, as --range says). Threshold: 1." in judgement.terms
    assert not any("not known" in notice for notice in judge(collection, margin=0.1).notices)


def test_a_baseline_at_zero_gives_no_margin_and_so_no_equivalence():
    judgement = judge(study({"adams": [0.001, 0.0, 0.002], "adamw": [0.0, 0.0, 0.0]}))
    assert judgement.margin == 0.0
    assert judgement.comparisons[0].word == "undecided"


def test_rewards_outside_of_the_range_are_noticed():
    judgement = judge(study({"adams": [0.5, 0.6], "adamw": [2.0, 0.7]}, recipe=ONE_REWARD))
    assert any(
        "outside of the range of 0 to 1 (the recipe's reward ranges and weights): adamw-0" in notice
        for notice in judgement.notices
    )


@pytest.mark.parametrize("own", [{}, {"range": None}])
def test_what_a_reward_without_a_range_pays_is_seen_and_not_assumed(own):
    rewards = [{"fn": "math_accuracy", "range": [0, 1]}, {"fn": "mine.py:short_answer"} | own]
    judgement = judge(study({"sgd": [-0.5, 0.0], "adamw": [0.5]}, recipe={"rewards": rewards}))
    assert (judgement.margin, judgement.threshold) == pytest.approx((0.025, 0.5))
    assert "(0.05 of adamw's mean final reward of 0.5)" in judgement.terms


def test_what_was_asked_for_counts():
    collection = study({"adams": [0.5, 0.51, 0.52], "adamw": [0.4, 0.42, 0.44]}, recipe=ONE_REWARD)
    judgement = judge(collection, baseline="adams", measure="auc", margin=0.01, threshold=0.45)
    assert (judgement.baseline, judgement.measure, judgement.margin, judgement.threshold) == (
        "adams",
        "auc",
        0.01,
        0.45,
    )
    assert judgement.terms == (
        "Measure: auc, area under the reward curve over the steps, divided by their number. Margin: 0.01. "
        "Threshold: 0.45. A failed run counts as 0."
    )
    (comparison,) = judgement.comparisons
    assert (comparison.variant, comparison.word) == ("adamw", "worse")
    assert comparison.difference == pytest.approx(-0.09)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (("zzz", None), "--measure=zzz: no such measure; known: auc, final"),
        (("fnal", None), "--measure=fnal: no such measure; did you mean 'final'?"),
        (("final", 0.0), "--margin=0.0: differences below the margin do not matter; set a number above 0"),
        (("final", -0.1), "--margin=-0.1: "),
        (("final", float("nan")), "--margin=nan: "),
        (("final", float("inf")), "--margin=inf: "),
    ],
)
def test_terms_that_cannot_be_used(terms, message):
    with pytest.raises(RunError, match=re.escape(message)):
        check_terms(*terms)
    with pytest.raises(RunError, match=re.escape(message)):
        judge(study({"adams": [0.5]}), measure=terms[0], margin=terms[1])


def test_terms_that_can():
    check_terms("final", None, (-1.0, 1.0), "none")
    check_terms("auc", 1e-9, None, -3.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,0", "--range=1,0: it is the lowest and the highest reward; write LOW,HIGH with LOW below HIGH"),
        ("0,0", "--range=0,0: "),
        ("0,inf", "--range=0,inf: "),
        ("0,nan", "--range=0,nan: "),
        ("0", "--range=0: write the lowest and the highest reward as LOW,HIGH, such as 0,1"),
        ("low,high", "--range=low,high: write "),
        ("0,1,2", "--range=0,1,2: write "),
    ],
)
def test_ranges_that_cannot_be_used(given, message):
    with pytest.raises(RunError, match=re.escape(message)):
        check_terms("final", None, parse_range(given))


@pytest.mark.parametrize(("given", "value"), [("worst", "worst"), ("none", "none"), ("-1", -1.0), ("0.25", 0.25)])
def test_what_a_failed_run_counts_as(given, value):
    assert parse_failed(given) == value
    check_terms("final", None, None, value)


def test_a_failed_run_cannot_count_as_more_than_the_highest_reward():
    check_terms("final", None, (0.0, 1.0), 1.0)
    with pytest.raises(RunError, match="--failed=7: no run can earn more than 1, the highest reward of --range"):
        check_terms("final", None, (0.0, 1.0), 7.0)


@pytest.mark.parametrize("given", [np.nan, np.inf])
def test_a_threshold_is_a_number(given):
    with pytest.raises(RunError, match=f"--threshold={given}: "):
        judge(study({"adams": [0.5]}), threshold=given)


def test_a_baseline_of_which_no_run_finished_gives_no_margin():
    ended = {"outcome": Outcome("failed", "it ends at step 10 of 100")}
    runs = [rising("adamw", seed, 0.2, 0.6, **ended) for seed in range(3)]
    judgement = judge(Collection(runs + [rising("adams", seed, 0.2, 0.9) for seed in range(3)], []))
    assert "Margin: 0 (no run of adamw finished, and the range of the reward is not known)" in judgement.terms
    (notice,) = [found for found in judgement.notices if "margin" in found]
    assert notice.startswith("the range of the reward is not known and no run of adamw finished, so there is no margin")


@pytest.mark.parametrize("given", ["wurst", "nan", "inf", ""])
def test_what_a_failed_run_cannot_count_as(given):
    with pytest.raises(RunError, match=f"--failed={given}: what a failed run counts as; set worst, none or a number"):
        check_terms("final", None, None, parse_failed(given))
