"""Signals at every moment of a run: what is kept is what a run without a signal would have, and the way on is told."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import fork_command, run_command, run_python, wait_until

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

PLAIN = ("distributed.engine=none", "rollout.engine=transformers", "algorithm.num_steps=4", "checkpoint.keep=4")
# Sends this process a signal when a function is called for the nth time, and goes on with the function.
HIT = """
import os, signal, sys
module, names, nth, number = sys.argv[1], sys.argv[2].split("."), int(sys.argv[3]), int(sys.argv[4])
sys.argv = ["rl-posttrain", *sys.argv[5:]]
import importlib
owner = importlib.import_module(module)
for name in names[:-1]:
    owner = getattr(owner, name)
original, calls = getattr(owner, names[-1]), []
def hit(*arguments, **options):
    calls.append(None)
    if len(calls) == nth and os.environ.get("HIT_RANK", "0") == os.environ.get("RANK", "0"):
        os.kill(os.getpid(), number)
    return original(*arguments, **options)
setattr(owner, names[-1], hit)
from rl_posttrain.cli.main import main
main()
"""
TRAINING = "rl_posttrain.training."
SAMPLING = ("rl_posttrain.rollout.transformers", "TransformersEngine._ends")


def runs_folder(recipe: Path) -> Path:
    return recipe.parent / "runs"


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


def without_costs(rows: list[dict]) -> list[dict]:
    costs = ("seconds", "time/", "peak_memory_bytes")
    return [{key: row[key] for key in row if not key.startswith(costs)} for row in rows]


def state_files(checkpoint: Path) -> dict[str, bytes]:
    """What training goes on from: weights, optimizer, schedule, random state."""
    found = {str(file.relative_to(checkpoint)): file for file in checkpoint.rglob("*") if file.is_file()}
    # The rest holds seconds, and how often this run was told to write checkpoints.
    left_out = ("complete", "metrics.jsonl", "rows.jsonl", "trainer_state.json", "training_args.bin")
    return {name: file.read_bytes() for name, file in found.items() if Path(name).name not in left_out}


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
