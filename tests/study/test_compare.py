"""Comparisons: what is planned, and real runs that are stopped, killed and resumed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from conftest import clean_environment, command, fork_command, run_command, wait_until
from rich.console import Console
from synthetic import finish

from rl_posttrain.errors import RunError
from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.series import summarize
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.notices import short_last_tenth
from rl_posttrain.study.plan import PlannedRun, plan_runs, read_plan, split_list
from rl_posttrain.study.runner import Runner
from rl_posttrain.views.comparison import ComparisonDisplay
from rl_posttrain.views.tables import state_of

QUICKSTART = load_recipe("quickstart")
PLAIN = ("rollout.engine=transformers", "distributed.engine=none", "algorithm.num_steps=4", "checkpoint.every_steps=1")


def plan(optimizers, seeds=(0,), settings=({},), recipe=QUICKSTART, folder=Path("cmp")) -> list[PlannedRun]:
    return plan_runs(recipe, split_list(optimizers), seeds, settings, folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("adams,adamw", ["adams", "adamw"]),
        ("adams, adamw(betas=[0.9,0.95], lr=1e-5) ,sgd", ["adams", "adamw(betas=[0.9,0.95], lr=1e-5)", "sgd"]),
        ("[1,2],{a: [3,4]},5", ["[1,2]", "{a: [3,4]}", "5"]),
        ("", []),
        (",,", []),
    ],
)
def test_lists_are_split_outside_of_brackets(text, parts):
    assert split_list(text) == parts


def test_every_variant_of_a_seed_comes_before_the_next_seed():
    runs = plan("adams,adamw", seeds=(3, 1))
    assert [(run.variant, run.seed, run.path.name) for run in runs] == [
        ("adams", 3, "adams-seed3"),
        ("adamw", 3, "adamw-seed3"),
        ("adams", 1, "adams-seed1"),
        ("adamw", 1, "adamw-seed1"),
    ]
    assert {run.recipe.run.seed for run in runs} == {3, 1}
    assert {run.path.parent for run in runs} == {Path("cmp")}


def test_what_is_adams_own_does_not_go_to_another_optimizer():
    adams, adamw, fair = (run.recipe.optimizer for run in plan("adams,adamw,adamw(betas=[0.9,0.95], lr=2.0e-5)"))
    assert adams.options == {"betas": [0.9, 0.95]}
    assert adamw.options == {}
    assert fair.options == {"betas": [0.9, 0.95]}
    assert (adams.lr, adamw.lr, fair.lr) == (1e-5, 1e-5, 2e-5)
    assert adamw.max_grad_norm == QUICKSTART.optimizer.max_grad_norm


def test_all_but_optimizer_and_run_is_the_recipe():
    for run in plan("adams,sgd(lr=0.01)", seeds=(5,)):
        ours, theirs = run.recipe.model_dump(), QUICKSTART.model_dump()
        for section in ("optimizer", "run"):
            del ours[section], theirs[section]
        assert ours == theirs


def test_settings_are_crossed_with_optimizers():
    _, _, settings = read_plan(
        QUICKSTART, optimizers=None, seeds=None, vary=["optimizer.lr=1.0e-5,2.0e-5", "algorithm.loss=dapo,grpo"]
    )
    runs = plan("adams,adamw", settings=settings)
    assert len(runs) == 8
    assert {(run.recipe.optimizer.name, run.recipe.optimizer.lr, run.recipe.algorithm.loss) for run in runs} == {
        (name, lr, loss) for name in ("adams", "adamw") for lr in (1e-5, 2e-5) for loss in ("dapo", "grpo")
    }
    assert runs[0].path.name == "adams-lr=1e-5-loss=dapo-seed0"


def test_keys_of_a_critic_are_varied_where_the_recipe_has_none():
    vary = ["algorithm.name=ppo", "critic.gamma=0.5,1.0"]
    _, _, settings = read_plan(QUICKSTART, optimizers=None, seeds=None, vary=vary)
    runs = plan("adams", settings=settings)
    assert [(run.variant, run.recipe.critic.gamma) for run in runs] == [
        ("adams-algorithm=ppo-gamma=0.5", 0.5),
        ("adams-algorithm=ppo-gamma=1.0", 1.0),
    ]


def test_a_variant_has_one_name_in_folders_and_in_what_is_read_back(tmp_path):
    _, _, settings = read_plan(QUICKSTART, optimizers=None, seeds=None, vary=["algorithm.loss=dapo,grpo"])
    runs = plan("adams,adamw(betas=[0.9,0.95], lr=2.0e-5)", seeds=(0, 1), settings=settings, folder=tmp_path)
    names = {
        "adams-loss=dapo",
        "adams-loss=grpo",
        "adamw-betas=0.9,0.95-lr=2e-5-loss=dapo",
        "adamw-betas=0.9,0.95-lr=2e-5-loss=grpo",
    }
    for run in runs:
        RunDirectory.create(run.path, recipe_yaml=run.recipe.to_yaml()).append_metrics({"step": 1, "reward": 0.5})
    assert {run.variant for run in runs} == names
    assert {run.path.name for run in runs} == {f"{name}-seed{seed}" for name in names for seed in (0, 1)}
    assert {name: len(found) for name, found in read_runs([tmp_path]).variants.items()} == dict.fromkeys(names, 2)
    for name in names:
        assert re.fullmatch(r"[\w.,=-]+", name), "a shell reads no character of it as anything but itself"


def test_a_variant_keeps_its_name_when_others_are_added(tmp_path):
    before = {run.path for run in plan("adams,adamw", folder=tmp_path)}
    after = {run.path for run in plan("adams,adamw,adamw(lr=2.0e-5)", folder=tmp_path)}
    assert before < after


def test_lists_can_be_varied():
    _, _, settings = read_plan(QUICKSTART, optimizers=None, seeds=None, vary=["optimizer.betas=[0.9,0.95],[0.95,0.98]"])
    assert [run.recipe.optimizer.options["betas"] for run in plan("adams", settings=settings)] == [
        [0.9, 0.95],
        [0.95, 0.98],
    ]


def test_the_recipe_says_what_the_command_line_does_not():
    recipe = load_recipe("studies/batch")
    optimizers, seeds, settings = read_plan(recipe, optimizers=None, seeds="7", vary=[])
    assert (optimizers, seeds) == (["adams", "adamw"], [7])
    samples = set()
    for run in plan_runs(recipe, optimizers, seeds, settings, Path("cmp")):
        algorithm = run.recipe.algorithm
        samples.add(algorithm.num_steps * algorithm.prompts_per_step * algorithm.group_size)
        assert run.recipe.compare is None, "a run's own recipe knows nothing of the comparison"
        assert "compare" not in yaml.safe_load(run.recipe.to_yaml())
    assert samples == {1920}, "small and large batches see equally many samples"


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name.startswith("studies/")])
def test_studies_can_be_planned(name):
    recipe = load_recipe(name)
    runs = plan_runs(recipe, *read_plan(recipe, optimizers=None, seeds=None, vary=[]), Path("cmp"))
    variants = {run.variant for run in runs}
    assert len({run.path for run in runs}) == len(runs) == len(variants) * len(recipe.compare.seeds)
    assert len(variants) >= 2
    assert len(recipe.compare.seeds) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--optimizers", "adms"), "optimizer.name=adms: no built-in of that name; did you mean 'adams'?"),
        (
            ("--optimizers", "adams,adams"),
            "--optimizers=adams: it has the same recipe as adams; list each variant once",
        ),
        (("--optimizers", "adams,adams(lr=1.0e-5)"), "--optimizers=adams(lr=1.0e-5): it has the same recipe as adams"),
        (("--optimizers", "adams(betas"), "--optimizers=adams(betas: an optimizer is written name or name(key=value"),
        (("--optimizers", "adams(bets=[1,2])"), "optimizer.bets=[1, 2]: AdamS takes no such argument; did you mean"),
        (("--optimizers", "adams(lr=-1)"), "optimizer.lr=-1: it should be greater than 0"),
        (("--optimizers", "adams(lr)"), "optimizer.lr: an override is written section.key=value"),
        (("--seeds", "0,one"), "--seeds=0,one: seeds are whole numbers, separated by commas"),
        (("--seeds", ","), "--seeds=,: seeds are whole numbers, separated by commas"),
        (("--seeds", "0,\u00b2"), "--seeds=0,\u00b2: seeds are whole numbers, separated by commas"),
        (("--optimizers", ","), "--optimizers=,: it has no name"),
        (("--vary", "task.digits=1,2"), "--vary=task.digits: it changes what is rewarded"),
        (("--vary", "rewards.0.weight=1,2"), "--vary=rewards.0.weight: it changes what is rewarded"),
        (("--vary", "run.seed=1,2"), "--vary=run.seed: it does not change what the run learns"),
        (("--vary", "eval.every_steps=1,2"), "--vary=eval.every_steps: it does not change what the run learns"),
        (("--baseline", "adamv"), "--baseline=adamv: no variant of that name; did you mean 'adamw'?"),
        (("--seeds", "1,1"), "--seeds=1,1: 1 is listed twice"),
        (("--vary", "optimizer.lr"), "--vary=optimizer.lr: write it as key=a,b,c"),
        (("--vary", "optimizer.lr="), "--vary=optimizer.lr=: write it as key=a,b,c"),
        (("--vary", "algorithm.los=dapo"), "algorithm.los=dapo: unknown key; did you mean 'loss'?"),
        (("--vary", "algorithm.micro_batch_size=5"), "algorithm.micro_batch_size=5: 8 prompts x 8 completions"),
        (("--measure", "last"), "--measure=last: no such measure"),
        (("--margin", "0"), "--margin=0.0: differences below the margin do not matter"),
        (("compare.seds=[1]",), "compare.seds=[1]: unknown key; did you mean 'seeds'?"),
        (("no-such=1",), "no-such=1: unknown key"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(run_main, tmp_path, arguments, message):
    status, _, stderr = run_main("compare", "quickstart", *arguments, "--out", tmp_path / "cmp")
    assert status == 2
    assert stderr.startswith(f"rl-posttrain: {message}")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "cmp").exists()


def test_runs_of_another_recipe_are_not_mixed_in(tmp_path):
    (run,) = plan("adams", folder=tmp_path)
    finished = RunDirectory.create(run.path, recipe_yaml=run.recipe.to_yaml())
    finished.append_metrics({"step": 30, "reward": 1.0})
    finished.write_summary({})
    Runner([run])
    Runner(plan("adams", folder=Path(os.path.relpath(tmp_path))))  # the same place by another name
    longer = load_recipe("quickstart", ["algorithm.num_steps=40"])
    with pytest.raises(
        RunError, match=r"algorithm.num_steps=40 \(was 30\): .*adams-seed0 was trained with another recipe"
    ):
        Runner(plan("adams", recipe=longer, folder=tmp_path))


def test_gpus_and_cores_are_dealt_out(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runs = plan("adams,adamw", folder=tmp_path)
    enough = Runner(runs, jobs=2, num_processes=2, devices=["0", "1", "2", "5"])
    assert [enough._variables(slot) for slot in (0, 1)] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,5"},
    ]
    shared = Runner(plan("adams,adamw,sgd", folder=tmp_path), jobs=3, devices=["0", "1"])
    assert [shared._variables(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1, 2)] == ["0", "1", "0"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert Runner(runs, jobs=2)._variables(1) == {"OMP_NUM_THREADS": "3"}
    assert Runner(runs, jobs=8)._variables(1) == {"OMP_NUM_THREADS": "3"}, "there are two runs, whatever was asked for"
    assert Runner(runs, jobs=1, devices=["0", "1"])._variables(0) == {}


def test_a_run_that_another_process_trains_is_left_alone(tmp_path):
    (run,) = plan("adams", folder=tmp_path)
    directory = RunDirectory.create(run.path, recipe_yaml=run.recipe.to_yaml())
    directory.append_metrics({"step": 1, "reward": 1.0})
    runner = Runner([run])
    with directory.locked():
        runner.run(lambda runner: None)
    assert runner.failed == {
        "adams-seed0": f"run.name=adams-seed0: another process is training {run.path}; wait for it, or stop it "
        f"(status 2, {tmp_path / 'logs' / 'adams-seed0.log'})"
    }
    assert steps(directory) == 1


def test_a_run_that_was_finished_meanwhile_is_not_made_again(tmp_path):
    (run,) = plan("adams", folder=tmp_path)
    runner = Runner([run])
    directory = RunDirectory.create(run.path, recipe_yaml=run.recipe.to_yaml())
    directory.append_metrics({"step": 30, "reward": 1.0})
    directory.write_summary({})
    runner.run(lambda runner: None)
    assert not runner.failed
    assert steps(directory) == 30


def test_a_run_that_a_guard_stopped_is_failed_and_not_trained_again(tmp_path):
    runs = plan("adams,adamw", folder=tmp_path)
    directory = RunDirectory.create(runs[0].path, recipe_yaml=runs[0].recipe.to_yaml())
    directory.append_metrics({"step": 1, "reward": 0.5})
    directory.write_stopped({"step": 2, "guard": "loss", "policy": "stop", "saw": "the loss is not finite"})
    runner = Runner(runs)
    assert runner.waiting == [runs[1]]
    assert runner.failed == {
        runs[0].path.name: "guards.loss=stop: at step 2 the loss is not finite (remove "
        f"{runs[0].path} to train it again)"
    }
    (history,) = read_runs([runs[0].path]).runs
    assert state_of(history) == "failed: stopped by guards.loss after 1 of 30 steps"
    directory.write_stopped(None)
    assert Runner(runs).waiting == runs


def test_the_time_left_counts_steps(tmp_path, monkeypatch):
    runs = plan("adams,adamw", folder=tmp_path)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    file = io.StringIO()
    display = ComparisonDisplay(runs, console=Console(file=file, width=120))
    runner = Runner(runs)
    with display:
        display.show(runner)
        run = RunDirectory.create(runs[0].path, recipe_yaml=runs[0].recipe.to_yaml())
        for step in range(1, 11):
            run.append_metrics({"step": step, "reward": 0.5})
        clock[0] += 50  # 10 of 60 steps in 50 s: 50 steps are left, 5 s each
        assert display.seconds_left(runner) == pytest.approx(250)
        shutil.rmtree(run.path)  # it starts again: what it had made counts for nothing, and what it makes now does
        assert display.seconds_left(runner) is None
        run = RunDirectory.create(runs[0].path, recipe_yaml=runs[0].recipe.to_yaml())
        run.append_metrics({"step": 1, "reward": 0.5})
        assert display.seconds_left(runner) == pytest.approx(50 * 59)


def test_a_comparison_says_how_long_it_takes_and_its_steps(tmp_path):
    runs = plan("adams,adamw", seeds=(0, 1), folder=tmp_path)
    for run in runs[:2]:  # 30 steps in 60 s, and in 120 s
        finish(run, 0.5)
    row = RunDirectory(runs[1].path)
    row.append_metrics({"step": 30, "reward": 0.5, "seconds": 120.0})
    file = io.StringIO()
    display = ComparisonDisplay(runs, jobs=2, title="tuning optimizer.lr", console=Console(file=file, width=200))
    runner = Runner(runs)
    with display:
        directory = RunDirectory.create(runs[2].path, recipe_yaml=runs[2].recipe.to_yaml())
        with subprocess.Popen(["sleep", "60"]) as process:
            runner.running[runner.waiting.pop(0)] = process
            for step in range(1, 7):
                directory.append_metrics({"step": step, "reward": 0.25})
                display.show(runner)
            process.kill()
    lines = file.getvalue().splitlines()
    assert lines[0] == "tuning optimizer.lr: 4 runs of adams, adamw, 30 steps each; already finished: 2"
    # 60 steps are left, at 2 s and 4 s a step in the mean 3 s; two runs at the same time.
    assert lines[1] == "about 1m30s left, by 2 finished runs"
    steps = [line.partition("   ")[0] for line in lines if line.startswith("adams-seed1 step")]
    assert steps == ["adams-seed1 step 3/30", "adams-seed1 step 6/30"]


def test_without_finished_runs_the_time_is_said_after_the_first_steps(tmp_path):
    runs = plan("adams", folder=tmp_path)
    file = io.StringIO()
    with ComparisonDisplay(runs, console=Console(file=file, width=120)) as display:
        runner = Runner(runs)
        display.show(runner)
        RunDirectory.create(runs[0].path, recipe_yaml=runs[0].recipe.to_yaml()).append_metrics({"step": 1, "reward": 1})
        display.show(runner)
        display.show(runner)
    said = file.getvalue()
    assert "no run is finished yet: how long they take is said after the first steps" in said
    assert len(re.findall(r"^about \S+ left, by the first steps$", said, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("steps", "said"),
    [(10, "final is the mean of one step, the last tenth of 10: "), (12, "final is the mean of two steps"), (21, "")],
)
def test_a_last_tenth_of_one_step_is_said(steps, said):
    assert short_last_tenth(steps).startswith(said)
    assert bool(short_last_tenth(steps)) == bool(said)


PICKY = """
import torch
class Picky(torch.optim.SGD):
    def step(self, *args, **kwargs):
        raise RuntimeError("no step today")
"""


def is_running(path: Path) -> bool:
    """Whether a process of this machine has `path` in its command line."""
    return any(str(path).encode() in _command_line(folder) for folder in Path("/proc").glob("[0-9]*"))


def _command_line(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def steps(run: RunDirectory) -> int:
    row = run.last_row()
    return row["step"] if row else 0


@pytest.mark.slow
def test_a_comparison_survives_ctrl_c_a_kill_and_a_failure_and_ends_in_a_report(tiny_recipe, tmp_path):
    out = tmp_path / "cmp"
    arguments = ("compare", tiny_recipe, *PLAIN, "--optimizers", "adams,adamw", "--seeds", "4", "--out", out)
    first, second = RunDirectory(out / "adams-seed4"), RunDirectory(out / "adamw-seed4")

    # Ctrl-C once the first run has a checkpoint: status 130, a message, and no process is left.
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    wait_until(lambda: first.last_checkpoint() is not None or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    assert steps(first) < 4, "the first run finished before it could be stopped"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "stopped: 0 of 2 runs are finished; the same command trains the others" in stdout
    assert not is_running(out / "recipes")
    rows_before = first.metrics()

    # The same command starts it again. When it is killed, its run ends too.
    fork = fork_command(*arguments)
    wait_until(lambda: is_running(out / "recipes" / "adams-seed4.yaml"))
    fork.kill()
    fork.wait()
    wait_until(lambda: not is_running(out / "recipes"))

    # Resumed, together with a variant that fails: that one is named, and the others finish.
    (tmp_path / "picky.py").write_text(PICKY)
    done = run_command(*arguments, "--jobs", "2", "--optimizers", f"adams,adamw,{tmp_path}/picky.py:Picky")
    assert done.returncode == 1, done.stderr
    assert "3 runs of adams, adamw, " in done.stdout
    assert "adams-seed4 finished" in done.stdout
    assert "adamw-seed4 finished" in done.stdout
    assert "Picky-seed4 FAILED" in done.stdout
    assert "no step today" in done.stderr
    for run in (first, second):
        rows = run.metrics()
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert run.summary() == json.loads(json.dumps(summarize(columns_of(rows)))) | {"stopped_early": None}
        assert run.last_checkpoint() is None, "a finished run is never resumed"
    resumed = first.metrics()
    for before, after in zip(rows_before, resumed, strict=False):
        assert before["reward"] == after["reward"], "the steps before the interruption are the same"

    # Both met the same conditions, and one seed is no verdict.
    assert "initial weights: the same in every variant at each of 1 seeds" in done.stdout
    assert "prompts: the same in the same order in every variant at each of 1 seeds" in done.stdout
    assert "adams: no verdict: it or adamw has 1 run, and at least 3 are needed" in done.stdout
    assert first.rollouts(1) == second.rollouts(1), "before the first update no optimizer has done anything"
    assert first.rollouts(4) != second.rollouts(4)
    for name in ("index.html", "rewards.png", "training.png", "cost.png"):
        assert (out / "report" / name).stat().st_size > 10_000

    # A last call has nothing to run, and says as JSON what it found.
    written = first.metrics_path.stat().st_mtime_ns
    done = run_command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "; already finished: 2" in done.stderr
    assert "started" not in done.stderr
    found = json.loads(done.stdout)
    assert found["baseline"] == "adamw"
    assert {run["run"] for run in found["runs"]} == {"adams-seed4", "adamw-seed4"}
    assert first.metrics_path.stat().st_mtime_ns == written


def test_the_live_view_shows_what_runs_and_what_failed(tmp_path):
    runs = plan("adams,adamw", folder=tmp_path)
    run = RunDirectory.create(runs[0].path, recipe_yaml=runs[0].recipe.to_yaml())
    run.append_metrics({"step": 12, "reward": 0.25})
    runner = Runner(runs)
    runner.waiting.clear()
    runner.failed["adamw-seed0"] = "no step today\x1b[31m (status 1)"
    file = io.StringIO()
    with subprocess.Popen(["sleep", "60"]) as process:
        runner.running[runs[0]] = process
        with ComparisonDisplay(runs, console=Console(file=file, width=100, force_terminal=True)) as display:
            display.show(runner)
        process.kill()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "0/2 runs done, 1 running, 1 failed, left -" in shown
    assert re.search(r"adams-seed0 +━+╸?━* +step 12/30 +reward 0\.25", shown)
    assert r"adamw-seed0 failed: no step today\x1b[31m (status 1)" in shown
