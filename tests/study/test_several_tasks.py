"""One verdict over several tasks: what is pooled, on what scale, and what is refused."""

import dataclasses
import json
import re

import numpy as np
import pytest
from made_runs import FAILED, history

from rl_posttrain.errors import RunError
from rl_posttrain.study.histories import Collection, read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.study.robust import stratified
from rl_posttrain.study.several_tasks import judge_runs, judge_tasks
from rl_posttrain.study.tasks import task_names
from rl_posttrain.views.report.payload import make_payload
from rl_posttrain.views.tables import cell_text, seeds_table
from rl_posttrain.views.task_tables import robust_table, tasks_table


def reward(low, high):
    return {"rewards": [{"fn": "math_accuracy", "weight": 1.0, "range": [low, high]}]}


def runs_of(task, levels, low=0.0, high=1.0, **more):
    """A run of 10 steps at one level for each variant and seed."""
    return [
        dataclasses.replace(
            history(
                [level] * 10,
                name=f"{task}/{variant}-{seed}",
                variant=variant,
                seed=seed,
                recipe=reward(low, high),
                tokens=10.0 * np.arange(1, 11),
                **more,
            ),
            task=task,
        )
        for variant, found in levels.items()
        for seed, level in enumerate(found)
    ]


EASY = {"adams": [0.8, 0.9, 0.85], "adamw": [0.7, 0.75, 0.8]}
LONG = {"adams": [4.0, 6.0, 5.0], "adamw": [3.0, 5.0, 5.0]}  # of 0 to 10


def both(easy=EASY, long=LONG):
    return Collection(runs_of("easy", easy) + runs_of("long", long, 0.0, 10.0), left_out=[])


def test_scores_are_shares_of_each_tasks_range():
    judgement = judge_tasks(both())
    # On easy 0.1, 0.15 and 0.05; on long a tenth of 1, 1 and 0.
    assert judgement.comparisons[0].difference == pytest.approx((0.1 + 0.2 / 3) / 2)
    alone = {
        task: judge(Collection(runs, []), margin=0.5).differences["adams"]
        for task, runs in (("easy", runs_of("easy", EASY)), ("long", runs_of("long", LONG, 0.0, 10.0)))
    }
    long = dataclasses.replace(alone["long"], difference=alone["long"].difference / 10, error=alone["long"].error / 10)
    reference = stratified([alone["easy"], long])
    assert judgement.comparisons[0].p_different == pytest.approx(reference.p_different)
    assert (judgement.comparisons[0].low, judgement.comparisons[0].high) == pytest.approx(reference.interval())
    assert "10" not in f"{judgement.margin}"
    assert (judgement.margin, judgement.threshold) == (0.05, 0.5)
    assert judgement.counted["long/adams-1"] == pytest.approx(0.6)
    assert judgement.tasks.judgements["long"].margin == pytest.approx(0.5)
    assert "6 pairs over 2 tasks" in judgement.comparisons[0].sentence
    assert judgement.terms.startswith("One verdict over 2 tasks: easy, long. ")
    # 0.5 of the range: all runs of easy get there at once, of long those at 5 and above.
    times = judgement.times["step"]
    assert (times["adams"].num_reached, times["adamw"].num_reached) == (5, 5)
    # Middle half of 0.4, 0.5, 0.6, 0.8, 0.85, 0.9: one is cut at each end.
    assert judgement.tasks.middle["adams"].value == pytest.approx((0.5 + 0.6 + 0.8 + 0.85) / 4)
    # Easy: 0.8 is above two and equal to one, 0.85 and 0.9 above all. Long: 4 above one; 5: above one, equal to two; 6.
    assert judgement.tasks.improvement["adams"].value == pytest.approx(((2.5 + 6) / 9 + (1 + 2 + 3) / 9) / 2)
    json.dumps(judgement.as_dict(), allow_nan=False)


def test_runs_of_one_seed_that_are_alike_on_all_tasks_are_noticed():
    # Differences 0.02, 0.1 and 0.18 at seeds 0, 1 and 2 on both tasks. As six values: t = 3.06 of 4 degrees, p = 0.038.
    # As three: t = 0.1 / (0.08 / sqrt(3)) = 2.17 of 2 degrees, p = 0.16.
    alike = both({"adams": [0.72, 0.8, 0.88], "adamw": [0.7] * 3}, {"adams": [3.2, 4.0, 4.8], "adamw": [3.0] * 3})
    judgement = judge_tasks(alike)
    assert judgement.comparisons[0].p_different == pytest.approx(0.0376, abs=1e-4)
    assert judgement.notices[0] == (
        "adams is better than adamw only if runs of one seed on different tasks are independent: with one value for "
        "each of 3 seeds, the mean over tasks, p = 0.16"
    )
    other = both({"adams": [0.79, 0.8, 0.81], "adamw": [0.7] * 3}, {"adams": [4.0, 4.1, 3.9], "adamw": [3.0] * 3})
    assert judge_tasks(other).notices == []


def test_failed_runs_count_as_the_floor_of_their_task():
    collection = both()
    failed = dataclasses.replace(collection.runs[6], outcome=FAILED)
    collection = Collection([*collection.runs[:6], failed, *collection.runs[7:]], [])
    judgement = judge_tasks(collection)
    assert judgement.counted[failed.name] == 0.0
    assert (judgement.failed["adams"].count, judgement.failed["adams"].number) == (1, 6)
    assert judge_tasks(collection, failed=0.25).counted[failed.name] == pytest.approx(0.25)
    assert any(notice.startswith("long: 1 of 6 runs failed") for notice in judgement.notices)


def test_a_variant_that_lacks_a_task_has_no_verdict():
    judgement = judge_tasks(both(easy=EASY | {"scale": [0.5, 0.5, 0.5]}))
    said = {comparison.variant: comparison for comparison in judgement.comparisons}
    assert said["scale"].sentence == "scale: no verdict: it has no run on long"
    assert said["adams"].word != "none"
    assert "scale" not in judgement.tasks.middle
    judgement = judge_tasks(both(long={"adams": [4.0], "adamw": [3.0]}))
    assert judgement.comparisons[0].sentence.startswith("adams: no verdict: on long: ")
    with pytest.raises(RunError, match=r"--baseline=scale: it has no run on long; name a variant"):
        judge_tasks(both(easy=EASY | {"scale": [0.5] * 3}), baseline="scale")
    with pytest.raises(RunError, match=r"--baseline=mine: no variant of that name"):
        judge_tasks(both(), baseline="mine")


def test_a_range_must_be_known():
    runs = [dataclasses.replace(run, recipe={}) for run in both().runs]
    with pytest.raises(RunError, match=r"--range: the reward range of easy is not known.*set --range LOW,HIGH"):
        judge_tasks(Collection(runs, []))
    assert judge_tasks(Collection(runs, []), reward_range=(0.0, 20.0)).counted["long/adams-0"] == pytest.approx(0.2)


def test_one_task_is_judged_as_ever():
    collection = Collection([dataclasses.replace(run, task="") for run in runs_of("easy", EASY)], [])
    assert judge_runs(collection).tasks is None
    assert judge_runs(both()).tasks is not None


def test_tables_and_page_have_each_task_and_all_together():
    judgement = judge_tasks(both())
    rows = tasks_table(judgement)["rows"]
    assert [(row["task"], row["variant"], cell_text(row["mean"])) for row in rows] == [
        ("easy", "adams", "0.850"), ("easy", "adamw", "0.750"), ("long", "adams", "5.000"), ("long", "adamw", "4.333"),
    ]  # fmt: skip
    assert [cell_text(row["difference"]) for row in rows if row["variant"] == "adams"] == ["+0.100", "+0.067"]
    assert cell_text(robust_table(judgement)["rows"][0]["middle"]) == "0.688"
    assert [row["task"] for row in seeds_table(judgement)["rows"]] == ["easy"] * 6 + ["long"] * 6
    payload = make_payload(judgement, "command")
    shown = [(chart["id"], chart["key"], chart["task"]) for chart in payload["charts"] if "task" in chart]
    assert shown[:2] == [("reward/easy", "reward", 0), ("reward/long", "reward", 1)]
    assert [run["task"] for run in payload["runs"]] == [0] * 6 + [1] * 6
    assert len(payload["profiles"]["curves"]) == 2
    # Each in units of its own task's reward.
    assert [(chart["id"], chart["curves"][0]["y"][-1]) for chart in payload["along"]] == [
        ("along/easy", pytest.approx(0.1)), ("along/long", pytest.approx(2 / 3, abs=1e-4)),
    ]  # fmt: skip
    alone = judge(Collection([dataclasses.replace(run, task="") for run in runs_of("easy", EASY)], []))
    assert (tasks_table(alone), robust_table(alone)) == (None, None)
    assert make_payload(alone, "command")["profiles"] is None


def test_tasks_are_named_by_what_differs():
    arithmetic = {"task": {"name": "arithmetic", "num_train": 8, "operators": ["+"]}}
    other = {"task": {"name": "arithmetic", "num_train": 9, "operators": ["+", "-"]}}
    assert task_names([arithmetic, other, arithmetic, {"task": {"name": "countdown"}}]) == [
        "arithmetic-operators=+", "arithmetic-operators=+,-", "arithmetic-operators=+", "countdown",
    ]  # fmt: skip
    paid = [{"task": {"name": "gsm8k"}, "rewards": [{"fn": "a.py:mine", "weight": weight}]} for weight in (1.0, 0.5)]
    assert task_names(paid) == ["gsm8k-rewards=1.0*mine", "gsm8k-rewards=0.5*mine"]


def test_group_says_what_is_the_task(tmp_path, run_main):
    for task, steps in (("easy", 10), ("long", 30)):
        for variant, level in (("mine", 0.8), ("theirs", 0.6)):
            for seed in range(3):
                rows = [f"{step},{level + 0.01 * seed * step / steps}\n" for step in range(1, steps + 1)]
                (tmp_path / f"{task}_{variant}_{seed}.csv").write_text("step,reward\n" + "".join(rows))
    group = r"(?P<task>[a-z]+)_(?P<variant>[a-z]+)_(?P<seed>[0-9]+)"
    pooled = read_runs([tmp_path], group=group, pool_tasks=True)
    assert {(run.task, run.variant, run.seed) for run in pooled.runs} == {
        (task, variant, seed) for task in ("easy", "long") for variant in ("mine", "theirs") for seed in range(3)
    }
    # Runs are as long as the longest of their own task.
    assert {(run.num_planned, run.outcome.finished) for run in pooled.runs} == {(10, True), (30, True)}
    status, _, stderr = run_main("report", tmp_path, "--group", group, "--out", tmp_path / "out")
    assert status == 2
    assert re.search(r"--group: .* is of task easy and .* of long, so .* set --pool-tasks", stderr)


def test_folders_are_tasks_of_other_programs_and_only_where_it_is_said(tmp_path):
    for task in ("easy", "long"):
        for variant, level in (("mine", 0.8), ("theirs", 0.6)):
            for seed in range(3):
                file = tmp_path / task / f"{variant}-seed{seed}.csv"
                file.parent.mkdir(exist_ok=True)
                rows = [f"{step},{level + 0.01 * seed + 0.001 * step * seed}\n" for step in range(1, 11)]
                file.write_text("step,reward\n" + "".join(rows))
    folders = [tmp_path / "easy", tmp_path / "long"]
    pooled = read_runs(folders, pool_tasks=True)
    assert {(run.task, run.variant) for run in pooled.runs} == {
        ("easy", "mine"), ("easy", "theirs"), ("long", "mine"), ("long", "theirs"),
    }  # fmt: skip
    judgement = judge_runs(pooled, reward_range=(0.0, 1.0), baseline="theirs")
    assert judgement.comparisons[0].difference == pytest.approx(0.2)
    assert {run.task for run in read_runs(folders).runs} == {""}
