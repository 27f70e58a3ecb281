"""Signals at every moment of a run: what is kept is what a run without a signal would have, and the way on is told."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import fork_command, run_command, run_python, wait_until
from hits import HIT, runs_folder, state_files, without_costs

from rl_posttrain.errors import RunError
from rl_posttrain.recipe.load import load_recipe, names_its_run
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.training.newest import newest_unfinished

PLAIN = ("distributed.engine=none", "rollout.engine=transformers", "algorithm.num_steps=4", "checkpoint.keep=4")
TRAINING = "rl_posttrain.training."


def hit_by(number: int, nth: int, place: tuple[str, str], recipe: Path, name: str, *overrides: str):
    module, function = place
    return run_python(
        "-c", HIT, module, function, str(nth), str(int(number)), "train", str(recipe), f"run.name={name}", *overrides
    )


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.splitlines()[-1].removeprefix("rl-posttrain: ")


def go_on(line: str) -> subprocess.CompletedProcess:
    """Run the command that a stopped run told, as it was told."""
    told = shlex.split(line.partition("; go on with: ")[2])
    assert told[:2] == ["rl-posttrain", "train"], line
    done = run_command(*told[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def whole(tiny_recipe) -> RunDirectory:
    """A run that nobody stopped, with a checkpoint of every step."""
    arguments = ("run.name=whole", *PLAIN, "checkpoint.every_steps=1", "checkpoint.final_model=true")
    done = run_command("train", tiny_recipe, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory.open(runs_folder(tiny_recipe) / "whole")


@pytest.mark.parametrize(
    ("number", "nth", "place", "kept", "status"),
    [
        (signal.SIGTERM, 3, ("rl_posttrain.rollout.transformers", "TransformersEngine.generate"), 2, 143),
        (signal.SIGHUP, 3, (f"{TRAINING}rollouts", "score"), 2, 129),
        (signal.SIGUSR1, 3, (f"{TRAINING}loop", "PolicyTrainer.log"), 3, 138),
        (signal.SIGINT, 9, (f"{TRAINING}loop", "PolicyTrainer._compute_loss"), 3, 130),
    ],
    ids=["sampling", "reward", "end-of-step", "update"],
)
def test_a_signal_at_any_moment_keeps_what_the_whole_run_has(
    tiny_recipe, whole, number, nth, place, kept, status, request
):
    name = f"hit-{number.name}"
    options = (*PLAIN, "checkpoint.every_steps=0", "checkpoint.final_model=true")
    done = hit_by(number, nth, place, tiny_recipe, name, *options)
    assert done.returncode == status, done.stdout + done.stderr
    run = RunDirectory.open(runs_folder(tiny_recipe) / name)
    assert [checkpoint_step(folder) for folder in run.checkpoints()] == [kept]
    assert state_files(run.last_checkpoint()) == state_files(whole.checkpoints_path / f"checkpoint-{kept}")
    assert without_costs(run.metrics()) == without_costs(whole.metrics()[:kept])
    line = last_line(done)
    assert line.startswith(f"stopped by {number.name} after step {kept} of 4; {run.path}/checkpoints/checkpoint-{kept}")
    assert f"{number.name}: the step is finished or dropped" in done.stderr
    if request.node.callspec.id in ("sampling", "update"):
        go_on(line)
        assert without_costs(run.metrics()) == without_costs(whole.metrics())
        for file in ("model.safetensors", "config.json"):
            assert (run.final_model_path / file).read_bytes() == (whole.final_model_path / file).read_bytes()


def test_a_signal_while_vllm_samples_or_a_checkpoint_is_written(tiny_recipe):
    options = ("distributed.engine=none", "algorithm.num_steps=4")
    vllm = ("vllm.v1.engine.llm_engine", "LLMEngine.step")
    done = hit_by(signal.SIGTERM, 12, vllm, tiny_recipe, "in-vllm", *options)
    assert done.returncode == 143, done.stdout + done.stderr
    run = RunDirectory.open(runs_folder(tiny_recipe) / "in-vllm")
    assert len(run.metrics()) == 1, "the second step is dropped in the midst of its samples"
    assert checkpoint_step(run.last_checkpoint()) == 1
    writing = (f"{TRAINING}loop", "finish_checkpoint")
    done = hit_by(signal.SIGTERM, 1, writing, tiny_recipe, "in-writing", *PLAIN, "checkpoint.every_steps=2")
    assert done.returncode == 143, done.stdout + done.stderr
    run = RunDirectory.open(runs_folder(tiny_recipe) / "in-writing")
    assert [checkpoint_step(folder) for folder in run.checkpoints()] == [2]
    assert not run.writing_path.exists()
    assert len(run.metrics()) == 2


@pytest.mark.parametrize(
    ("nth", "place"),
    [(1, (f"{TRAINING}train", "build_trainer")), (1, (f"{TRAINING}rollouts", "score"))],
    ids=["loading", "first-step"],
)
def test_before_the_first_step_nothing_is_left(tiny_recipe, nth, place):
    done = hit_by(signal.SIGINT, nth, place, tiny_recipe, "empty", *PLAIN)
    assert done.returncode == 130, done.stdout + done.stderr
    assert last_line(done) == (
        "stopped by SIGINT before the first step was done; nothing is kept; start it again with the same command"
    )
    assert not (runs_folder(tiny_recipe) / "empty").exists()


def test_without_a_checkpoint_at_a_signal_the_run_says_what_is_lost(tiny_recipe, whole):
    options = (*PLAIN, "checkpoint.on_signal=false", "checkpoint.final_model=true")
    hit = (signal.SIGTERM, 3, (f"{TRAINING}rollouts", "score"), tiny_recipe)
    line = last_line(hit_by(*hit, "rare", *options, "checkpoint.every_steps=1"))
    assert "checkpoints/checkpoint-2 is kept; go on with" in line
    line = last_line(hit_by(*hit, "none", *options))
    assert (
        "no checkpoint is kept (checkpoint.every_steps=0, checkpoint.on_signal=false), so a resumed run starts" in line
    )
    done = go_on(line)
    assert "it starts at step 0; the 2 steps that it had will be made again" in done.stdout
    run = RunDirectory.open(runs_folder(tiny_recipe) / "none")
    assert without_costs(run.metrics()) == without_costs(whole.metrics())


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(tiny_recipe, whole):
    kill = (signal.SIGKILL, 3, (f"{TRAINING}rollouts", "score"), tiny_recipe, "killed-early")
    options = (*PLAIN, "checkpoint.every_steps=3")
    assert hit_by(*kill, *options).returncode == -signal.SIGKILL
    again = run_command("train", tiny_recipe, "run.name=killed-early", *options)
    assert "is an unfinished run; continue it with --resume" in again.stderr
    done = run_command("train", tiny_recipe, "run.name=killed-early", *options, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "killed-early has no checkpoint, it ended before the first one: it starts at step 0; the 2 steps that it had "
        "will be made again" in done.stdout
    )
    run = RunDirectory.open(runs_folder(tiny_recipe) / "killed-early")
    assert without_costs(run.metrics()) == without_costs(whole.metrics())


DEAF_REWARD = """
import time
def deaf(completions, **kwargs):
    open({started!r}, "w").close()
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
"""


def test_a_second_signal_ends_the_process_at_once_whatever_holds_it(tiny_recipe, tmp_path):
    started = tmp_path / "started"
    (tmp_path / "deaf.py").write_text(DEAF_REWARD.format(started=str(started)))
    process = fork_command(
        "train", tiny_recipe, "run.name=twice", *PLAIN, f"rewards=[{{fn: '{tmp_path}/deaf.py:deaf'}}]"
    )
    wait_until(started.exists)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the reward goes on"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert not (runs_folder(tiny_recipe) / "twice").exists()


def test_no_regular_checkpoints_are_told_at_the_start_in_check_and_at_the_end(tiny_recipe, run_main):
    told = (
        "checkpoint.every_steps=0: a checkpoint is written at a signal alone; a run that is killed without one starts"
    )
    assert load_recipe(tiny_recipe).checkpoint.warning.startswith(told)
    assert load_recipe(tiny_recipe, ["checkpoint.every_steps=1"]).checkpoint.warning is None
    _, stdout, _ = run_main("check", tiny_recipe, "--json")
    assert told in stdout
    done = run_command("train", tiny_recipe, "run.name=told", *PLAIN, "algorithm.num_steps=1")
    assert told in done.stdout
    assert "none at regular steps (checkpoint.every_steps=0)" in done.stdout


def test_ignored_signals_stay_ignored(tiny_recipe):
    """As under nohup: a terminal that is closed does not end the run."""
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HIT
    done = run_python(
        "-c", script, f"{TRAINING}rollouts", "score", "1", str(int(signal.SIGHUP)),
        "train", tiny_recipe, "run.name=nohup", *PLAIN, "algorithm.num_steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert RunDirectory.open(runs_folder(tiny_recipe) / "nohup").summary() is not None


def test_eval_keeps_whole_batches_and_the_same_command_goes_on(tiny_model, tmp_path):
    command = ("eval", str(tiny_model), "--task", "arithmetic", "--num-questions", "70", "--engine", "transformers",
               "--max-new-tokens", "4", "--out", str(tmp_path / "out"), "--json")  # fmt: skip
    hit = ("rl_posttrain.evaluation.evaluate", "score", "2", str(int(signal.SIGTERM)))
    done = run_python("-c", HIT, *hit, *command)
    assert done.returncode == 143, done.stderr
    assert last_line(done) == (
        "stopped by SIGTERM; the samples of whole batches are kept, and the same command goes on"
    )
    kept = (tmp_path / "out" / "samples.jsonl").read_text()
    assert len(kept.splitlines()) == 64
    assert run_command(*command).returncode == 0
    whole = (tmp_path / "out" / "samples.jsonl").read_text()
    assert whole.startswith(kept)
    assert len(whole.splitlines()) > 70  # a batch is drawn whole


def run_of(
    folder: Path, recipe: Path, name: str, *overrides: str, started: int, finished: bool = False
) -> RunDirectory:
    """A run directory as an interrupted process leaves it, started so many seconds after another."""
    text = load_recipe(recipe, [f"run.output_dir={folder}", f"run.name={name}", *overrides]).to_yaml()
    run = RunDirectory.create(folder / name, recipe_yaml=text)
    os.utime(run.path / "recipe.yaml", (started, started))
    if finished:
        run.append_metrics({"step": 1})
        run.write_summary({"steps": 1})
    return run


def test_resume_without_a_name_takes_the_newest_unfinished_run_of_this_recipe(tiny_recipe, tmp_path):
    def resumed(*overrides: str, allowed: tuple[str, ...] = ()) -> str:
        recipe = load_recipe(tiny_recipe, [f"run.output_dir={tmp_path}", *overrides])
        return newest_unfinished(recipe, allowed).run.name

    with pytest.raises(RunError, match=r"no unfinished run of this recipe; leave --resume out to start one"):
        resumed()
    run_of(tmp_path, tiny_recipe, "hot", "rollout.temperature=0.5", started=50)
    with pytest.raises(RunError, match=r"no unfinished run of this recipe; name one of hot with run.name"):
        resumed()
    run_of(tmp_path, tiny_recipe, "older", started=10)
    run_of(tmp_path, tiny_recipe, "newer", "checkpoint.every_steps=7", started=30)
    run_of(tmp_path, tiny_recipe, "over", started=40, finished=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "recipe.yaml").write_text("][")
    assert resumed() == "newer"
    assert resumed("rollout.temperature=0.5") == "hot"
    assert resumed(allowed=("rollout",)) == "hot"
    # Only finished runs: the one that has the recipe's name.
    for name in ("older", "newer"):
        RunDirectory(tmp_path / name).write_summary({"steps": 1})
    run_of(tmp_path, tiny_recipe, "tiny", started=1, finished=True)
    assert resumed() == "tiny"


def test_who_names_a_run(tiny_recipe, tmp_path):
    assert not names_its_run(tiny_recipe)
    assert names_its_run(tiny_recipe, ["run.name=a"])
    (tmp_path / "own.yaml").write_text(f"extends: {tiny_recipe}\nrun: {{name: own}}\n")
    assert names_its_run(tmp_path / "own.yaml")


def test_one_command_starts_a_run_goes_on_with_it_and_leaves_it_when_it_is_finished(tiny_recipe, whole, tmp_path):
    command = (tiny_recipe, f"run.output_dir={tmp_path}", *PLAIN, "--auto-resume", "checkpoint.final_model=true")
    module, function = f"{TRAINING}rollouts", "score"
    stopped = run_python("-c", HIT, module, function, "3", str(int(signal.SIGUSR1)), "train", *map(str, command))
    assert stopped.returncode == 138, stopped.stderr
    run = RunDirectory.open(tmp_path / "tiny")
    assert len(run.metrics()) == 2
    done = run_command("train", *command)
    assert done.returncode == 0, done.stderr
    assert without_costs(run.metrics()) == without_costs(whole.metrics())
    again = run_command("train", *command)
    assert again.returncode == 0
    assert f"{run.path} is finished: 4 steps; nothing is left to do" in again.stdout
    # Without --auto-resume and a name, too.
    named = run_command("train", *(word for word in command if word != "--auto-resume"), "--resume")
    assert named.stdout.startswith(f"resuming {run.path}\n{run.path} is finished")
