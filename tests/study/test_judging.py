"""What a judgement says, and which runs it counts."""

import json

import pytest
from made_runs import ONE_REWARD, RUNNING, history, study

from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.views.tables import state_of, verdict_table


def unfinished_study():
    recipe = ONE_REWARD | {"algorithm": {"num_steps": 10}}
    collection = study({"adams": [0.5, 0.51, 0.52], "adamw": [0.4, 0.42, 0.44]}, recipe=recipe)
    late = history([0.0] * 4, name="adamw-3", variant="adamw", seed=3, outcome=RUNNING, recipe=recipe)
    return Collection([*collection.runs, late], ["runs/x: no run"])


def words(judgement):
    return {comparison.variant: comparison.word for comparison in judgement.comparisons}


def test_a_variant_of_which_a_run_still_trains_has_no_verdict_yet():
    judgement = judge(unfinished_study())
    (comparison,) = judgement.comparisons
    assert comparison.word == "none"
    assert comparison.sentence == "adams: no verdict: still training: adamw-3 (4 of 10 steps)"
    assert judgement.values("adamw", "final") == pytest.approx([0.4, 0.42, 0.44])
    assert judgement.statistics["adamw-3"]["final"] == 0.0
    assert judgement.notices == [
        "left out: runs/x: no run",
        "still training, so its variant has no verdict yet: adamw-3 (4 of 10 steps)",
        "adams against adamw: seeds without a partner count too, unpaired: none of the variant, 3 of the baseline",
    ]


def test_of_many_runs_that_go_on_the_first_five_are_named():
    judgement = judge(study({"adams": [0.5] * 7}, outcome=RUNNING, recipe=ONE_REWARD))
    (notice,) = judgement.notices
    assert notice.endswith("adams-4 (4 of 10 steps) and 2 more")
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
        "runs were planned for different numbers of steps: adams 10 or 20; final is at the end of each, and the area "
        "is over steps 1 to 10, which all finished runs have"
    ]
    assert judge(Collection(runs[1:], [])).notices == [
        "runs have different lengths, as their recipes say: 10, 20 steps; final is at the end of each, and the area is "
        "over steps 1 to 10, which all finished runs have"
    ]


def test_as_plain_data_it_is_json():
    judgement = judge(unfinished_study())
    data = json.loads(json.dumps(judgement.as_dict(), allow_nan=False))
    assert {run["run"] for run in data["runs"]} == set(judgement.statistics)
    runs = {run["run"]: run for run in data["runs"]}
    assert (runs["adams-0"]["final"], runs["adams-0"]["counted"], runs["adams-0"]["outcome"]) == (0.5, 0.5, "finished")
    assert (runs["adamw-3"]["finished"], runs["adamw-3"]["outcome"]) == (False, "running")
    assert (runs["adamw-3"]["reason"], runs["adamw-3"]["counted"]) == ("4 of 10 steps", None)
    assert data["comparisons"][0]["word"] == "none"
    assert {key: data[key] for key in ("measure", "baseline")} == {"measure": "final", "baseline": "adamw"}
