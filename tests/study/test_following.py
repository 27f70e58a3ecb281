"""Looking at runs again and again while other processes write them."""

import json
import os
import time

import numpy as np
import pytest
from run_writer import RunWriter

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.growing import GrowingMetrics
from rl_posttrain.study.absent import LOCK_FILE, RECIPES_FOLDER
from rl_posttrain.study.following import QUIET_S, Follower


def test_what_grows_is_read_as_a_whole_file_is(tmp_path):
    run = RunDirectory.create(tmp_path / "run", recipe_yaml="")
    growing = GrowingMetrics(run)
    assert growing.read() == run.columns() == ({}, ())
    random = np.random.default_rng(0)
    step = 0
    for block in (1, 5, 0, 3000, 2):
        for _ in range(block):
            step += 1
            row = {"step": step, "reward": None if step % 7 == 0 else random.normal(), "prompts_sha256": f"{step}"}
            if step > 4:
                row |= {"eval/accuracy": step / 9, "guards/x": "a word", "grad_norm": None}
            run.append_metrics(row) if block < 10 else run.metrics_path.open("a").write(json.dumps(row) + "\n")
        found, prompts = growing.read()
        expected, expected_prompts = run.columns()
        assert found.keys() == expected.keys()
        for key, column in expected.items():
            np.testing.assert_array_equal(found[key], column, err_msg=key)
        assert prompts == expected_prompts
    assert found["non_finite"].sum() == step // 7


def test_only_what_was_added_is_read(tmp_path):
    run = RunDirectory.create(tmp_path / "run", recipe_yaml="")
    for step in (1, 2):
        run.append_metrics({"step": step, "reward": 1.0})
    growing = GrowingMetrics(run)
    growing.read()
    with run.metrics_path.open("r+b") as file:  # who reads the first rows again finds no JSON
        file.write(b"x" * 10)
        file.seek(0, os.SEEK_END)
        file.write(b'{"step": 3, "reward": 3.0}\n{"step": 4, "rew')
    columns, _ = growing.read()
    assert columns["reward"].tolist() == [1.0, 1.0, 3.0]
    with run.metrics_path.open("ab") as file:
        file.write(b'ard": 4.0}\n')
    assert growing.read()[0]["reward"].tolist() == [1.0, 1.0, 3.0, 4.0]


def test_a_run_that_goes_back_to_a_checkpoint_is_read_anew_and_a_damaged_one_is_named(tmp_path):
    run = RunDirectory.create(tmp_path / "run", recipe_yaml="")
    rows = [{"step": step, "reward": float(step)} for step in (1, 2, 3)]
    for row in rows:
        run.append_metrics(row)
    growing = GrowingMetrics(run)
    growing.read()
    run.rewind(1, rows[:1])
    run.append_metrics({"step": 2, "reward": 7.0})
    run.append_metrics({"step": 3, "reward": 8.0})
    assert growing.read()[0]["reward"].tolist() == [1.0, 7.0, 8.0]
    with run.metrics_path.open("a") as file:
        file.write("no row\n")
    for _ in range(2):
        with pytest.raises(RunError, match=r"metrics.jsonl:4: this line is not a JSON object"):
            growing.read()


def test_a_folder_is_followed_until_all_of_its_runs_have_ended(tmp_path):
    with RunWriter(tmp_path / "a") as first:
        follower = Follower([tmp_path])
        waiting = follower.look()
        assert waiting.collection is None
        assert waiting.running == {"a"}
        assert (
            "no finished step" in waiting.waiting or "it made no step" in waiting.waiting or "0 of" in waiting.waiting
        )
        first.add(3)
        look = follower.look()
        assert [(run.name, look.state_of(run), len(run.columns["step"])) for run in look.collection.runs] == [
            ("a", "running", 3)
        ]
        assert follower.look() is None
        with RunWriter(tmp_path / "b", seed=1) as second:
            second.add(2)
            assert {run.name for run in follower.look().collection.runs} == {"a", "b"}
            first.add(7)
            first.finish()
            look = follower.look()
            assert {run.name: look.state_of(run) for run in look.collection.runs} == {"a": "finished", "b": "running"}
            second.kill()
        look = follower.look()
        assert {run.name: look.state_of(run) for run in look.collection.runs} == {"a": "finished", "b": "failed"}
        assert not look.running


def test_what_a_comparison_has_not_begun_goes_on(tmp_path):
    import fcntl

    recipes = tmp_path / RECIPES_FOLDER
    recipes.mkdir()
    (recipes / "a.yaml").write_text("run: {name: a, seed: 0}\n")
    with (recipes / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        look = Follower([tmp_path]).look()
        assert look.collection is None
        assert look.running
    with pytest.raises(RunError):
        Follower([tmp_path]).look()


def test_a_file_of_another_program_goes_on_until_it_has_been_quiet(tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("step,reward\n1,0.5\n2,0.6\n")
    follower = Follower([table])
    assert follower.look().running == {"other"}
    assert follower.look() is None
    with table.open("a") as file:
        file.write("3,0.7\n")
    assert follower.look().collection.runs[0].columns["reward"].tolist() == [0.5, 0.6, 0.7]
    long_ago = time.time() - 2 * QUIET_S
    os.utime(table, (long_ago, long_ago))
    assert not follower.look().running


def test_nothing_to_follow_is_one_line(tmp_path):
    with pytest.raises(RunError, match="there is no run in it"):
        Follower([tmp_path]).look()
    with pytest.raises(RunError, match="there is no such file or folder"):
        Follower([tmp_path / "none"]).look()
