"""The tables of a judgement."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import FAILED, ONE_REWARD, RUNNING, history, study

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.views.tables import cell_text, differences_table, seeds_table, stability_table, verdict_table


def finished_study():
    return study({"adams": [0.5, 0.51, 0.52], "adamw": [0.4, 0.42, 0.44]}, recipe=ONE_REWARD)


def with_others():
    """The same with a run of the baseline that failed, and one that has not made a step yet."""
    runs = finished_study().runs
    failed = history([0.0] * 4, name="adamw-3", variant="adamw", seed=3, outcome=FAILED, recipe=ONE_REWARD)
    waiting = Absent("adamw-4", Path("adamw-4"), "adamw", 4, ONE_REWARD, RUNNING)
    return Collection([*runs, failed], [], [waiting])


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
    table = check_shape(verdict_table(judge(finished_study())))
    assert table["title"] == "Verdicts against adamw"
    assert "Margin: 0.05 (0.05 of the reward range of 1" in table["note"]
    base = row_of(table, variant="adamw")
    assert base["verdict"] == "baseline"
    assert base["seeds"] == {"text": "3", "value": 3}
    assert base["failed"] == base["collapsed"] == {"text": "0 of 3 (95 %: up to 63 %)", "value": 0}
    assert base["final"] == {"text": "0.420 ± 0.020", "value": pytest.approx(0.42)}
    assert base["steps_to"] == {"text": "over 10", "value": 10.0}
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


def test_the_verdict_table_counts_every_run_that_was_planned():
    table = check_shape(verdict_table(judge(with_others())))
    base = row_of(table, variant="adamw")
    assert base["seeds"] == {"text": "4 + 1 running", "value": 4}
    assert base["failed"] == {"text": "1 of 5 (95 %: 0.51 to 72 %)", "value": 1}
    # The failed run counts as 0.
    assert base["final"]["value"] == pytest.approx((0.4 + 0.42 + 0.44) / 4)
    assert row_of(table, variant="adams")["verdict"] == {"text": "no verdict", "class": "open"}


@pytest.mark.parametrize(
    ("levels", "text", "kind"),
    [
        ([0.3, 0.31, 0.32], "worse", "bad"),
        ([0.4, 0.43, 0.44], "equivalent", "even"),
        ([0.2, 0.6, 0.6], "undecided", "open"),
        ([0.9, 0.9], "no verdict", "open"),
        ([0.9], "no verdict", "open"),
    ],
)
def test_the_verdict_tables_words(levels, text, kind):
    judgement = judge(study({"adams": levels, "adamw": [0.4, 0.42, 0.44]}, recipe=ONE_REWARD))
    row = row_of(check_shape(verdict_table(judgement)), variant="adams")
    assert row["verdict"] == {"text": text, "class": kind}
    assert ("difference" in row) == (len(levels) > 2)
    if text == "undecided":
        comparison = judgement.comparisons[0]
        low, high = comparison.seeds_between
        assert high is None  # more than anybody runs
        assert row["needed"] == {"text": f"{comparison.seeds_needed} ({low} to -)", "value": comparison.seeds_needed}


def test_no_verdict_over_runs_without_seeds():
    collection = study({"adams": [0.5, 0.6], "adamw": [0.4]})
    runs = [history(run.columns["reward"], name=run.name, variant=run.variant, seed=None) for run in collection.runs]
    row = row_of(verdict_table(judge(Collection(runs, []))), variant="adams")
    assert row["verdict"]["text"] == "no verdict"


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
    table = check_shape(seeds_table(judge(with_others())))
    assert [row["run"] for row in table["rows"]] == [
        "adams-0", "adams-1", "adams-2", "adamw-0", "adamw-1", "adamw-2", "adamw-3", "adamw-4",
    ]  # fmt: skip
    row = row_of(table, run="adams-1")
    assert row["seed"] == {"text": "1", "value": 1}
    assert row["final"] == {"text": "0.510", "value": 0.51}
    assert row["steps_to"] == {"text": "5", "value": 5.0}
    assert row["state"] == "finished"
    failed, waiting = row_of(table, run="adamw-3"), row_of(table, run="adamw-4")
    assert (failed["state"], waiting["state"]) == ("failed: cut short", "running: 4 of 10 steps")
    assert failed["final"] is failed["auc"] is failed["steps_to"] is waiting["final"] is None
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
