"""Statistics of runs, by hand, and what a judgement and its tables say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rl_posttrain.errors import RunError
from rl_posttrain.study.foreign import ForeignRun
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.judging import check_terms, judge, run_statistics, trailing_mean
from rl_posttrain.views.tables import (
    cell_text,
    differences_table,
    seeds_table,
    stability_table,
    state_of,
    verdict_table,
)

ONE_REWARD = {"rewards": [{"fn": "math_accuracy", "weight": 1.0, "range": [0.0, 1.0]}]}


def history(rewards, *, name="run", variant="adams", seed=0, recipe=None, finished=True, steps=None, **columns):
    """A run as `read_runs` makes it; NaN where a step recorded nothing."""
    steps = np.arange(1.0, len(rewards) + 1) if steps is None else steps
    columns = {"step": steps, "reward": rewards} | {key.replace("__", "/"): value for key, value in columns.items()}
    return History(
        name=name,
        path=Path(name),
        variant=variant,
        seed=seed,
        columns={key: np.asarray(column, dtype=float) for key, column in columns.items()},
        recipe=recipe or {},
        environment={},
        finished=finished,
        source=ForeignRun(Path(f"{name}.csv")),
    )


def study(levels, **options):
    """A run of 10 steps at one level for each variant and seed; `levels`: variant to the seeds' levels."""
    runs = [
        history([level] * 10, name=f"{variant}-{seed}", variant=variant, seed=seed, **options)
        for variant, found in levels.items()
        for seed, level in enumerate(found)
    ]
    return Collection(runs, left_out=[])


def test_a_run_of_thirty_steps_by_hand():
    rewards = [0.0] * 10 + [0.5] * 17 + [0.4, 0.6, 0.8]
    found = run_statistics(history(rewards, seconds=10 + 4.0 * np.arange(30), tokens=100.0 * np.arange(1, 31)), 0.5)
    assert found["final"] == pytest.approx(0.6)  # the last tenth is three steps
    # Trapezoids: from step 10 to 11 half of 0.5; 16 whole 0.5; then 0.45, 0.5 and 0.7; over 29 steps.
    assert found["auc"] == pytest.approx((0.25 + 16 * 0.5 + 0.45 + 0.5 + 0.7) / 29)
    assert found["best"] == pytest.approx((0.5 + 0.5 + 0.4 + 0.6 + 0.8) / 5)
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
        "best": 0.5,
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


def test_one_lucky_step_reaches_no_threshold_and_is_not_the_best():
    found = run_statistics(history([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), threshold=0.5)
    assert found["steps_to"] is None
    assert found["best"] == pytest.approx(0.2)


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
    assert (found["final"], found["best"], found["auc"], found["largest_drop"]) == (0.5, 0.5, 0.5, 0.0)
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
    assert judgement.terms.endswith(f"Threshold: {threshold:.3g}.")


def test_margin_and_threshold_come_from_what_was_seen_where_there_is_no_recipe():
    judgement = judge(study({"sgd": [-5.0, -3.0], "adamw": [-1.0]}))
    assert (judgement.margin, judgement.threshold) == pytest.approx((0.2, -3.0))
    assert "(0.05 of the reward range of 4, from the lowest to the highest reward of these runs)" in judgement.terms
    assert [judgement.statistics[name]["steps_to"] for name in ("sgd-0", "sgd-1", "adamw-0")] == [None, 5, 5]


@pytest.mark.parametrize("own", [{}, {"range": None}])
def test_what_a_reward_without_a_range_pays_is_seen_and_not_assumed(own):
    rewards = [{"fn": "math_accuracy", "range": [0, 1]}, {"fn": "mine.py:short_answer"} | own]
    judgement = judge(study({"sgd": [-0.5, 0.0], "adamw": [0.5]}, recipe={"rewards": rewards}))
    assert (judgement.margin, judgement.threshold) == pytest.approx((0.05, 0.0))
    assert "from the lowest to the highest reward of these runs" in judgement.terms


def test_rewards_that_are_all_the_same_still_have_a_margin():
    judgement = judge(study({"sgd": [0.5] * 3, "adamw": [0.5] * 3}))
    assert judgement.margin == pytest.approx(0.05)
    assert judgement.comparisons[0].word == "equivalent"


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
        "Threshold: 0.45."
    )
    (comparison,) = judgement.comparisons
    assert (comparison.variant, comparison.word) == ("adamw", "worse")
    assert comparison.difference == pytest.approx(-0.09)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (("zzz", None), "--measure=zzz: no such measure; known: auc, best, final"),
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
    check_terms("best", None)
    check_terms("auc", 1e-9)


def unfinished_study():
    recipe = ONE_REWARD | {"algorithm": {"num_steps": 10}}
    collection = study({"adams": [0.5, 0.51, 0.52], "adamw": [0.4, 0.42, 0.44]}, recipe=recipe)
    late = history([0.0] * 4, name="adamw-3", variant="adamw", seed=3, finished=False, recipe=recipe)
    other = history([0.9] * 4, name="adams-3", seed=3, finished=False)
    return Collection([*collection.runs, late, other], ["runs/x: no finished step yet"])


def test_a_run_that_goes_on_is_described_and_not_judged():
    judgement = judge(unfinished_study())
    assert judgement.comparisons[0].num_pairs == 3
    assert judgement.comparisons[0].difference == pytest.approx(0.09)
    assert judgement.values("adamw", "final") == pytest.approx([0.4, 0.42, 0.44])
    assert judgement.statistics["adamw-3"]["final"] == 0.0
    assert judgement.notices == [
        "left out: runs/x: no finished step yet",
        "unfinished, so drawn and not judged: adamw-3 (4/10 steps), adams-3 (4/? steps)",
    ]


def test_of_many_runs_that_go_on_the_first_five_are_named():
    judgement = judge(study({"adams": [0.5] * 7}, finished=False))
    (notice,) = judgement.notices
    assert notice.endswith("adams-4 (10/? steps) and 2 more")
    assert judgement.comparisons == []
    assert verdict_table(judgement)["rows"][0]["final"] is None


def test_runs_of_different_lengths_are_noticed():
    # The last of them stopped early, as its recipe said: 20 were planned for it, too.
    runs = [
        history([0.5] * made, name=f"run{i}", seed=i, recipe=ONE_REWARD | {"algorithm": {"num_steps": planned}})
        for i, (made, planned) in enumerate([(10, 10), (20, 20), (10, 20)])
    ]
    assert [state_of(run) for run in runs] == ["finished", "finished", "stopped early"]
    assert judge(Collection(runs, [])).notices == [
        "runs have different lengths: 10, 20 steps; each number is of all steps that its run made"
    ]


def test_as_plain_data_it_is_json():
    judgement = judge(unfinished_study())
    data = json.loads(json.dumps(judgement.as_dict(), allow_nan=False))
    assert [run["run"] for run in data["runs"]] == list(judgement.statistics)
    assert data["runs"][0]["final"] == 0.5
    assert data["runs"][6]["finished"] is False
    assert data["comparisons"][0]["word"] == "better"
    assert {key: data[key] for key in ("measure", "baseline")} == {"measure": "final", "baseline": "adamw"}


def row_of(table, **wanted):
    (row,) = [row for row in table["rows"] if wanted.items() <= row.items()]
    return row


def check_shape(table):
    """Each cell stands under a column, and what is sorted by a number has one."""
    keys = [column["key"] for column in table["columns"]]
    assert len(keys) == len(set(keys))
    for row in table["rows"]:
        assert set(row) <= set(keys)
        for column in table["columns"]:
            cell = row.get(column["key"])
            assert cell is None or isinstance(cell, str) or set(cell) <= {"text", "value", "class"}
            if column["kind"] == "number" and cell is not None:
                assert isinstance(cell["value"], (int, float))
    return table


def test_the_verdict_table():
    table = check_shape(verdict_table(judge(unfinished_study())))
    assert table["title"] == "Verdicts against adamw"
    assert "Margin: 0.05 (0.05 of the reward range of 1" in table["note"]
    base = row_of(table, variant="adamw")
    assert base["verdict"] == "baseline"
    assert base["seeds"] == {"text": "3 + 1 unfinished", "value": 3}
    assert base["final"] == {"text": "0.420 ± 0.020", "value": pytest.approx(0.42)}
    assert base["steps_to"] is None
    assert base["tokens_to"] is base["accuracy"] is base["seconds_per_step"] is None
    row = row_of(table, variant="adams")
    assert row["verdict"] == {"text": "better", "class": "good"}
    assert row["difference"] == {"text": "+0.090", "value": pytest.approx(0.09)}
    # Differences 0.1, 0.09 and 0.08: standard deviation 0.01, t(0.975, 2) = 4.303, half = 4.303 * 0.01 / sqrt(3).
    assert row["interval"] == "+0.065 to +0.115"
    assert row["p_different"]["text"] == f"{row['p_different']['value']:.2g}" == "0.0041"
    assert row["needed"] is None
    assert row["steps_to"] == {"text": "5", "value": 5.0}
    labels = {column["key"]: column["label"] for column in table["columns"]}
    assert labels["steps_to"] == "Steps to 0.5"


@pytest.mark.parametrize(
    ("levels", "text", "kind"),
    [
        ([0.3, 0.31, 0.32], "worse", "bad"),
        ([0.4, 0.43, 0.44], "equivalent", "even"),
        ([0.2, 0.6, 0.6], "undecided", "open"),
        ([0.9, 0.9], "no verdict (2 seeds)", "open"),
        ([0.9], "no verdict (1 seed)", "open"),
    ],
)
def test_the_verdict_tables_words(levels, text, kind):
    judgement = judge(study({"adams": levels, "adamw": [0.4, 0.42, 0.44]}, recipe=ONE_REWARD))
    row = row_of(check_shape(verdict_table(judgement)), variant="adams")
    assert row["verdict"] == {"text": text, "class": kind}
    assert ("difference" in row) == (len(levels) > 2)
    if text == "undecided":
        assert row["needed"] == {"text": str(row["needed"]["value"]), "value": judgement.comparisons[0].seeds_needed}


def test_no_verdict_over_runs_without_seeds():
    collection = study({"adams": [0.5, 0.6], "adamw": [0.4]})
    runs = [history(run.columns["reward"], name=run.name, variant=run.variant, seed=None) for run in collection.runs]
    row = row_of(verdict_table(judge(Collection(runs, []))), variant="adams")
    assert row["verdict"]["text"] == "no verdict (1 run)"


def test_some_seeds_reached_the_threshold():
    runs = [
        history([level] * 10, name=f"run{seed}", seed=seed, recipe=ONE_REWARD, tokens=10_000.0 * np.arange(1, 11))
        for seed, level in enumerate((0.5, 0.6, 0.1))
    ]
    (row,) = check_shape(verdict_table(judge(Collection(runs, []))))["rows"]
    assert row["steps_to"] == {"text": "5 (2 of 3 seeds)", "value": 5.0}
    assert row["tokens_to"]["text"] == "50,000 (2 of 3 seeds)"


def test_the_stability_table():
    runs = [
        history([0.0] * 5 + [level] * 5 + [0.0] * 5, name=f"run{seed}", seed=seed, non_finite=[1] + [0] * 14, **norms)
        for seed, (level, norms) in enumerate([(0.5, {"grad_norm": [1.0] * 14 + [9.0]}), (1.0, {})])
    ]
    quiet = history([0.5] * 15, name="other", variant="scale")
    table = check_shape(stability_table(judge(Collection([*runs, quiet], []))))
    assert row_of(table, variant="adams") == {
        "variant": "adams",
        "largest_drop": {"text": "1.000", "value": pytest.approx(1.0)},
        "mean_drop": {"text": "0.750", "value": pytest.approx(0.75)},
        "spikes": {"text": "1", "value": 1},  # the second run recorded no norm
        "non_finite": {"text": "2", "value": 2},
    }
    assert row_of(table, variant="scale")["spikes"] is None


def test_the_table_of_every_run():
    table = check_shape(seeds_table(judge(unfinished_study())))
    assert [row["run"] for row in table["rows"]] == [
        "adams-0", "adams-1", "adams-2", "adamw-0", "adamw-1", "adamw-2", "adamw-3", "adams-3",
    ]  # fmt: skip
    row = row_of(table, run="adams-1")
    assert row["seed"] == {"text": "1", "value": 1}
    assert row["final"] == {"text": "0.510", "value": 0.51}
    assert row["steps_to"] == {"text": "5", "value": 5.0}
    assert row["state"] == "finished"
    assert row_of(table, run="adamw-3")["state"] == "4/10 steps, running or stopped"
    assert row_of(table, run="adams-3")["state"] == "4/? steps, running or stopped"
    assert row_of(table, run="adamw-3")["steps_to"] is None
    seedless = seeds_table(judge(Collection([history([0.5], seed=None)], [])))
    assert seedless["rows"][0]["seed"] is None


def test_the_table_of_differences():
    recipes = {
        "adams": ONE_REWARD | {"optimizer": {"name": "adams", "betas": [0.9, 0.95]}},
        "adamw": ONE_REWARD | {"optimizer": {"name": "adamw"}},
    }
    runs = [history([0.5], name=name, variant=name, recipe=recipe) for name, recipe in recipes.items()]
    elsewhere = history([0.5], name="trl", variant="trl")
    table = check_shape(differences_table(judge(Collection([*runs, elsewhere], []))))
    assert table["rows"] == [
        {"variant": "adams", "optimizer.name": "adams", "optimizer.betas": "[0.9, 0.95]"},
        {"variant": "adamw", "optimizer.name": "adamw", "optimizer.betas": "default"},
        {"variant": "trl", "optimizer.name": "-", "optimizer.betas": "-"},
    ]
    alone = differences_table(judge(Collection(runs[:1], [])))
    assert (alone["rows"], alone["note"]) == ([{"variant": "adams"}], "The recipes do not differ.")


def test_cells_as_text():
    assert [cell_text(cell) for cell in (None, "word", {"text": "0.5", "value": 0.5}, 3)] == ["-", "word", "0.5", "3"]
