"""Run directories read back to be judged: columns, variants, seeds, and what must not be compared."""

import hashlib
import math
import re

import numpy as np
import pytest
import yaml

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.histories import read_runs, recipe_differences
from rl_posttrain.study.outcomes import Outcome
from rl_posttrain.study.pairs import pairing


def recipe_of(optimizer="adams", seed=0, *, num_steps=4, task=None, rewards=None, **keys):
    return {
        "run": {"name": "quick", "seed": seed, "output_dir": "runs"},
        "task": {"name": "arithmetic", "num_train": 64, **(task or {})},
        "rewards": rewards or [{"fn": "math_accuracy", "weight": 1.0}],
        "algorithm": {"num_steps": num_steps},
        "optimizer": {"name": optimizer, "lr": 1e-5, **keys},
        "checkpoint": {"every_steps": seed},
        "logging": {"print_samples": seed},
        "eval": {"every_steps": seed},
        "compare": {"seeds": [seed]},
    }


def make_run(path, recipe, rewards=(0.0, 0.25, 0.5, 1.0), *, finished=True, weights=None, prompts=None, rows=None):
    """A run directory; `weights` and `prompts` (a letter a step) stand for what the run started from and was asked."""
    run = RunDirectory.create(path, recipe_yaml=yaml.safe_dump(recipe))
    for step, reward in enumerate(rewards, start=1):
        row = {"step": step, "reward": reward, "tokens": 100 * step}
        if prompts:
            row["prompts_sha256"] = hashlib.sha256(prompts[step - 1].encode()).hexdigest()
        run.append_metrics(row)
    for row in rows or ():
        run.append_metrics(row)
    if weights:
        run.write_environment({"initial_weights_sha256": weights})
    if finished:
        run.write_summary({"steps": len(rewards)})
    return run


def study(folder, optimizers=("adams", "adamw"), seeds=(0, 1), **options):
    return [
        make_run(folder / f"{name}-{seed}", recipe_of(name, seed), **options) for name in optimizers for seed in seeds
    ]


def test_a_run_by_itself(tmp_path):
    make_run(tmp_path / "quick", recipe_of(seed=7, num_steps=9), finished=False)
    collection = read_runs([tmp_path / "quick"])
    (run,) = collection.runs
    assert (run.name, run.variant, run.seed, run.num_planned, run.finished) == ("quick", "adams", 7, 9, False)
    assert not collection.is_study
    assert collection.left_out == []
    assert {key: column.tolist() for key, column in run.columns.items()} == {
        "step": [1, 2, 3, 4],
        "reward": [0.0, 0.25, 0.5, 1.0],
        "tokens": [100, 200, 300, 400],
        "non_finite": [0, 0, 0, 0],
    }
    assert all(column.dtype == np.float64 for column in run.columns.values())


def test_seeds_of_a_variant_stand_together_in_the_order_in_which_they_were_named(tmp_path):
    study(tmp_path, seeds=(1, 0))
    collection = read_runs([tmp_path / name for name in ("adamw-1", "adams-0", "adams-1", "adamw-0")])
    assert {variant: [run.seed for run in runs] for variant, runs in collection.variants.items()} == {
        "adamw": [1, 0],
        "adams": [0, 1],
    }
    assert collection.is_study


def test_a_folder_of_runs_is_all_of_them_and_none_twice(tmp_path):
    study(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "notes.txt").write_text("no run")
    collection = read_runs([tmp_path, tmp_path / "adams-1", tmp_path / "report" / ".." / "adams-0"])
    assert [run.name for run in collection.runs] == ["adams-0", "adams-1", "adamw-0", "adamw-1"]


def labels_of(tmp_path, *recipes):
    for index, recipe in enumerate(recipes):
        make_run(tmp_path / f"run{index}", recipe)
    return [run.variant for run in read_runs([tmp_path / f"run{index}" for index in range(len(recipes))]).runs]


def test_a_label_names_what_tells_variants_apart_and_no_more(tmp_path):
    recipes = [
        recipe_of("adams", betas=[0.9, 0.95]),
        recipe_of("adamw"),
        recipe_of("adamw", betas=[0.9, 0.95]),
        recipe_of("adamw", seed=1, betas=[0.9, 0.95]),
    ]
    # AdamS has one setting, so that its betas need no word; AdamW has two, one of which is its defaults.
    betas = "adamw-betas=0.9,0.95"
    assert labels_of(tmp_path, *recipes) == ["adams", "adamw", betas, betas]


def test_a_label_names_learning_rates(tmp_path):
    recipes = [recipe_of("adams"), recipe_of("adams", lr=1e-4), recipe_of("scale", lr=0.001)]
    assert labels_of(tmp_path, *recipes) == ["adams-lr=1e-5", "adams-lr=0.0001", "scale"]


def test_a_label_names_every_key_that_is_needed_and_the_section_of_none(tmp_path):
    other = {"algorithm": {"num_steps": 4, "group_size": 4}}
    recipes = [recipe_of(lr=1e-4), recipe_of(lr=1e-4) | other, recipe_of()]
    assert labels_of(tmp_path, *recipes) == ["adams-lr=0.0001", "adams-lr=0.0001-group_size=4", "adams-lr=1e-5"]


def test_a_label_names_a_class_without_its_file_where_that_is_enough(tmp_path):
    recipes = [recipe_of("mine/a.py:Sign"), recipe_of("mine/b.py:Sign"), recipe_of("package.module:Lion")]
    labels = ["Sign-name=mine-a.py-Sign", "Sign-name=mine-b.py-Sign", "Lion"]
    assert labels_of(tmp_path, *recipes) == labels


def test_what_a_run_keeps_and_shows_makes_no_variant(tmp_path):
    # recipe_of gives each seed other checkpoint, logging, eval and compare sections.
    assert labels_of(tmp_path, *(recipe_of(seed=seed) for seed in range(3))) == ["adams"] * 3


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for folder, seed in (("a", 0), ("b", 1)):
        make_run(tmp_path / folder / "quick", recipe_of(seed=seed))
    make_run(tmp_path / "c" / "other", recipe_of(seed=2))
    names = [run.name for run in read_runs([tmp_path / folder for folder in "abc"]).runs]
    assert names == [f"{tmp_path}/a/quick", f"{tmp_path}/b/quick", "other"]


def test_the_working_directory_has_a_name(tmp_path, monkeypatch):
    make_run(tmp_path / "quick", recipe_of())
    monkeypatch.chdir(tmp_path / "quick")
    assert read_runs(["."]).runs[0].name == "quick"
    monkeypatch.chdir(tmp_path / "quick" / "rollouts")
    assert read_runs([".."]).runs[0].name == "quick"


def test_a_half_written_last_line_is_a_step_that_is_not_finished(tmp_path):
    run = make_run(tmp_path / "quick", recipe_of(), finished=False)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 5, "reward": 0.')
    assert read_runs([run.path]).runs[0].columns["step"].tolist() == [1, 2, 3, 4]


def test_a_run_without_steps_is_absent_and_failed(tmp_path):
    study(tmp_path)
    make_run(tmp_path / "adams-2", recipe_of(seed=2), rewards=(), finished=False)
    collection = read_runs([tmp_path])
    assert [run.name for run in collection.runs] == ["adams-0", "adams-1", "adamw-0", "adamw-1"]
    (absent,) = collection.absent
    assert (absent.name, absent.variant, absent.seed) == ("adams-2", "adams", 2)
    assert absent.outcome == Outcome("failed", "it made no step")
    assert [run.name for run in collection.planned["adams"]] == ["adams-0", "adams-1", "adams-2"]
    assert collection.left_out == []


def test_alone_a_run_without_steps_is_an_error_and_so_are_two_of_them(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"adams-{seed}", recipe_of(seed=seed), rewards=(), finished=False)
    for paths in ([tmp_path / "adams-0"], [tmp_path]):
        with pytest.raises(RunError, match="adams-0: it made no step"):
            read_runs(paths)


@pytest.mark.parametrize("make", ["nothing", "file", "empty folder"])
def test_what_is_no_run(tmp_path, make):
    path = tmp_path / "quick"
    if make == "file":
        path.write_text("step,reward\n1,0.5\n")
    elif make == "empty folder":
        path.mkdir()
    make_run(tmp_path / "good", recipe_of())
    for paths in ([path], [tmp_path / "good", path]):
        reason = "there is no such file or folder" if make == "nothing" else "there is no run in it"
        with pytest.raises(RunError, match=re.escape(f"RUN={path}: {reason}; name a folder")):
            read_runs(paths)


def test_no_path_at_all():
    with pytest.raises(RunError, match="no run was named"):
        read_runs([])


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (
            "metrics.jsonl",
            b'{"step": 1}\n{"st\n{"step": 3}\n',
            "metrics.jsonl:2: this line is not JSON, and it is not the last one",
        ),
        ("metrics.jsonl", b'{"step": 1, "reward": 1}\n[2]\n', "metrics.jsonl:2: this line is not a JSON object"),
        ("metrics.jsonl", b"3\n", "metrics.jsonl:1: this line is not a JSON object"),
        ("metrics.jsonl", b"\xff\xfe\x00", "metrics.jsonl: not a text file"),
        ("metrics.jsonl", b'{"reward": 0.5}\n', "metrics.jsonl:1: no step, where a whole number above 0 belongs"),
        ("metrics.jsonl", b'{"step": "1", "reward": 0.5}\n', "metrics.jsonl:1: step='1', where a whole number above 0"),
        ("metrics.jsonl", b'{"step": -1, "reward": 0.5}\n', "metrics.jsonl:1: step=-1, where"),
        ("metrics.jsonl", b'{"step": true, "reward": 0.5}\n', "metrics.jsonl:1: step=True, where"),
        ("metrics.jsonl", b'{"step": 2, "reward": 0.5}\n' * 2, "metrics.jsonl:2: step=2, where a whole number above 2"),
        (
            "metrics.jsonl",
            b'{"step": 1, "reward": 1}\n{"reward": 1}\n',
            "metrics.jsonl:2: no step, where a",
        ),
        ("metrics.jsonl", b'{"step": 1, "loss": 0.5, "note": "x"}\n', "'reward'; its columns are step, loss"),
        ("metrics.jsonl", b'{"step": 1, "reward": true}\n', "no finished step recorded 'reward'"),
        ("recipe.yaml", b"- a list\n", "recipe.yaml: not a recipe"),
        ("recipe.yaml", b"run: {name: x\nmodel: [", "recipe.yaml: not a recipe"),
        ("recipe.yaml", b"", "recipe.yaml: not a recipe"),
        ("environment.json", b"{", "environment.json: not a JSON object"),
        ("summary.json", b"[]", "summary.json: not a JSON object"),
    ],
)
def test_a_damaged_run_is_named_with_what_is_wrong_and_does_not_stop_the_others(tmp_path, file, content, reason):
    damaged = make_run(tmp_path / "damaged", recipe_of(seed=1))
    (damaged.path / file).write_bytes(content)
    with pytest.raises(RunError, match=re.escape(reason)):
        read_runs([damaged.path])
    make_run(tmp_path / "good", recipe_of())
    collection = read_runs([damaged.path, tmp_path / "good"])
    assert [run.name for run in collection.runs] == ["good"]
    (left_out,) = collection.left_out
    assert str(damaged.path) in left_out
    assert reason in left_out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"task": {"name": "arithmetic", "num_train": 64, "digits": 3}},
            "task.digits=3: SECOND has another task or other rewards than FIRST (task.digits=default)",
        ),
        (
            {"task": {"name": "gsm8k"}},
            "task.name=gsm8k: SECOND has another task or other rewards than FIRST (",
        ),
        (
            {"rewards": [{"fn": "math_accuracy", "weight": 0.5}]},
            'rewards=[{"fn": "math_accuracy", "weight": 0.5}]: SECOND has another task or other rewards '
            'than FIRST (rewards=[{"fn": "math_accuracy", "weight": 1.0}]), so their rewards cannot be compared',
        ),
    ],
)
def test_different_tasks_or_rewards_are_refused(tmp_path, other, message):
    paths = [tmp_path / name for name in "abc"]
    make_run(paths[0], recipe_of())
    make_run(paths[1], recipe_of(seed=1) | other)
    make_run(paths[2], recipe_of(seed=2))
    message = message.replace("FIRST", str(paths[0])).replace("SECOND", str(paths[1]))
    with pytest.raises(RunError, match=re.escape(message)):
        read_runs(paths)
    assert len(read_runs([paths[0], paths[2]]).runs) == 2


def test_the_size_of_a_task_may_differ(tmp_path):
    for seed, num_train in ((0, 64), (1, 128)):
        task = {"num_train": num_train, "num_eval": num_train, "max_unreadable_golds": seed}
        if seed:  # a recipe of a version before had no such keys
            task |= {"eval_share": 0.1, "max_overlap": 0.05}
        make_run(tmp_path / f"run{seed}", recipe_of(seed=seed, task=task))
    assert len(read_runs([tmp_path]).runs) == 2


def test_null_is_nan_and_counted_and_what_a_row_lacks_is_not(tmp_path):
    rows = [
        {"step": 1, "reward": 0.5, "loss": 1.0, "kl": None},
        {"step": 2, "reward": math.nan, "loss": math.inf},
        {"step": 3, "reward": 0.75},
        {"step": 4, "reward": 1.0, "loss": None, "eval/accuracy": 0.5, "note": "text", "flag": True, "list": [1]},
    ]
    make_run(tmp_path / "quick", recipe_of(), rewards=(), rows=rows)
    (run,) = read_runs([tmp_path / "quick"]).runs
    assert set(run.columns) == {"step", "reward", "loss", "eval/accuracy", "non_finite"}  # no column without a number
    np.testing.assert_array_equal(run.columns["reward"], [0.5, np.nan, 0.75, 1.0])
    np.testing.assert_array_equal(run.columns["loss"], [1.0, np.nan, np.nan, np.nan])
    # Two values at step 2 are one step; step 3 recorded no loss, which is no loss that was not finite.
    assert run.columns["non_finite"].tolist() == [0, 1, 0, 1]
    assert [values.tolist() for values in run.points("reward")] == [[1, 3, 4], [0.5, 0.75, 1.0]]
    assert [values.tolist() for values in run.points("eval/accuracy", "reward")] == [[1.0], [0.5]]
    assert [values.tolist() for values in run.points("kl")] == [[], []]
    assert [values.tolist() for values in run.points("reward", "seconds")] == [[], []]


SAME = ["initial weights: the same in every variant at each of 2 seeds"]


def test_pairs_that_are_pairs(tmp_path):
    study(tmp_path, weights="w", prompts="abcd")
    assert pairing(read_runs([tmp_path])) == [
        *SAME,
        "prompts: the same in the same order in every variant at each of 2 seeds",
    ]


def test_pairs_that_started_from_other_weights(tmp_path):
    study(tmp_path, ["adams"], weights="w", prompts="abcd")
    make_run(tmp_path / "adamw-0", recipe_of("adamw", 0), weights="w", prompts="abcd")
    make_run(tmp_path / "adamw-1", recipe_of("adamw", 1), weights="v", prompts="abcd")
    weights, prompts = pairing(read_runs([tmp_path]))
    assert weights == "initial weights: DIFFERENT between variants at seed 1; do not pair these runs"
    assert "the same" in prompts


def test_pairs_that_met_other_prompts_from_a_step_on(tmp_path):
    study(tmp_path, ["adams"], seeds=(0, 1, 2), weights="w", prompts="abcd")
    for seed, prompts in enumerate(("abcd", "abXd", "Xbcd")):
        make_run(tmp_path / f"adamw-{seed}", recipe_of("adamw", seed), weights="w", prompts=prompts)
    _, prompts = pairing(read_runs([tmp_path]))
    assert prompts == "prompts: DIFFERENT between variants at seed 1, 2 (seed 1: from step 3 on)"


def test_a_shorter_run_of_the_same_prompts_is_a_pair(tmp_path):
    make_run(tmp_path / "adams", recipe_of("adams"), weights="w", prompts="abcd")
    make_run(tmp_path / "adamw", recipe_of("adamw"), rewards=(0.0, 0.5), weights="w", prompts="abcd", finished=False)
    assert "prompts: the same" in pairing(read_runs([tmp_path]))[1]


def test_pairs_of_which_something_is_not_known(tmp_path):
    study(tmp_path, ["adams"], weights="w", prompts="abcd")
    study(tmp_path, ["adamw"])
    assert pairing(read_runs([tmp_path])) == [
        "initial weights: not recorded by every run, so not checked",
        "prompts: not recorded by every run, so not checked",
    ]


def test_prompts_of_some_steps_only_are_not_known(tmp_path):
    # As of a run that an older version began and this one went on with.
    study(tmp_path, ["adams"], seeds=(0,), weights="w", prompts="abcd")
    make_run(tmp_path / "adamw-0", recipe_of("adamw"), rewards=(0.5,), rows=[{"step": 2, "reward": 1.0}], prompts="a")
    assert "prompts: not recorded" in pairing(read_runs([tmp_path]))[1]


def test_no_pairs_are_nothing_to_say(tmp_path):
    make_run(tmp_path / "adams", recipe_of("adams", 0), weights="w", prompts="abcd")
    make_run(tmp_path / "adamw", recipe_of("adamw", 1), weights="w", prompts="abcd")
    assert pairing(read_runs([tmp_path])) == []
    assert pairing(read_runs([tmp_path / "adams"])) == []


def test_recipe_differences(tmp_path):
    make_run(tmp_path / "adams", recipe_of("adams", betas=[0.9, 0.95], fused=None))
    make_run(tmp_path / "adamw", recipe_of("adamw", seed=1, lr=1e-4))
    assert recipe_differences(read_runs([tmp_path]).runs) == {
        "optimizer.betas": {"adamw": "default", "adams": "[0.9, 0.95]"},
        "optimizer.lr": {"adamw": "0.0001", "adams": "1e-05"},
        "optimizer.name": {"adamw": "adamw", "adams": "adams"},
    }
    assert recipe_differences(read_runs([tmp_path / "adams"]).runs) == {}


def test_a_norm_that_is_never_reported_is_not_lost(tmp_path):
    rows = [{"step": step, "reward": 0.5, "loss": 0.1, "grad_norm": None} for step in (1, 2, 3)]
    make_run(tmp_path / "fp32", recipe_of(), [], rows=rows)
    assert read_runs([tmp_path / "fp32"]).runs[0].columns["non_finite"].tolist() == [0, 0, 0]
    rows[1]["loss"] = None
    rows[2]["grad_norm"] = 1.0
    make_run(tmp_path / "broken", recipe_of(), [], rows=rows)
    assert read_runs([tmp_path / "broken"]).runs[0].columns["non_finite"].tolist() == [1, 1, 0]


def test_files_without_seeds_are_one_variant_where_they_lie_together(tmp_path):
    for variant in ("mine", "theirs"):
        (tmp_path / variant).mkdir()
        for name in ("a", "b"):
            (tmp_path / variant / f"{name}.csv").write_text("step,reward\n1,0.5\n")
    (tmp_path / "mine" / "notes.txt").write_text("no run")
    # Folders of files will do as well as the files.
    for paths in (sorted(tmp_path.glob("*/*.csv")), [tmp_path / "mine", tmp_path / "theirs"]):
        assert {name: len(runs) for name, runs in read_runs(paths).variants.items()} == {"mine": 2, "theirs": 2}
    assert list(read_runs([tmp_path / "mine"]).variants) == ["a", "b"]
