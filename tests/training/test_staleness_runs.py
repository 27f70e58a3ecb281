"""Runs that draw ahead under every engine, with signals, rollbacks and resampling; each goes on as the same run."""

import shutil
import signal

import pytest
from conftest import run_command, run_python, run_ranks
from hits import HIT, runs_folder, without_costs
from test_staleness import (
    OPTIONS,
    check_resumed,
    check_same,
    check_schedule,
    copy_until,
    difference,
    drawn_for,
)
from test_training import train

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

pytestmark = pytest.mark.long

SAMPLES = ("rl_posttrain.rollout.vllm", "VLLMEngine.generate")
UPDATES = ("rl_posttrain.training.loop", "PolicyTrainer._compute_loss")
FSDP2 = "distributed={engine: fsdp2, zero_stage: null}"


@pytest.fixture(scope="module")
def ahead(tiny_recipe) -> RunDirectory:
    return train(tiny_recipe, "ahead-runs", *OPTIONS)


def staleness(run: RunDirectory) -> list[float]:
    return [row["staleness"] for row in run.metrics()]


@pytest.mark.parametrize(
    ("more", "processes"),
    [
        (("distributed.engine=none",), 2),
        (("distributed={engine: deepspeed, zero_stage: 3}",), 2),
        ((FSDP2,), 2),
        (("algorithm.name=ppo", "algorithm.num_mini_batches=2", "algorithm.num_epochs=2"), 1),
    ],
    ids=["plain", "zero3", "fsdp2", "ppo-four-updates"],
)
def test_each_engine_draws_ahead_and_goes_on_bit_for_bit(tiny_recipe, more, processes, request):
    run = train(tiny_recipe, f"ahead-{request.node.callspec.id}", *OPTIONS, *more, processes=processes)
    assert staleness(run) == [0, 1, 1, 1, 1, 1]
    check_schedule(run, 1)
    check_resumed(run, tiny_recipe, *more, processes=processes)


@pytest.mark.parametrize(
    ("number", "place", "nth"),
    [
        # First the engine compiles, then comes the evaluation before the first step, then the draws of steps 1 to 4,
        # and then the evaluation after step 3.
        (signal.SIGTERM, SAMPLES, 6),
        (signal.SIGKILL, SAMPLES, 6),
        (signal.SIGTERM, SAMPLES, 7),
        (signal.SIGKILL, UPDATES, 11),
        (signal.SIGTERM, UPDATES, 11),
        (signal.SIGKILL, ("rl_posttrain.training.ahead", "DrawsAhead.save"), 3),
        (signal.SIGTERM, ("rl_posttrain.training.loop", "finish_checkpoint"), 3),
    ],
    ids=["draws-term", "draws-kill", "evaluates-term", "updates-kill", "updates-term", "saves-kill", "saves-term"],
)
def test_a_signal_at_any_moment_changes_nothing(tiny_recipe, ahead, number, place, nth, request):
    """Draws that were in flight, or done and not used, are made again or taken from the checkpoint."""
    name = f"ahead-hit-{request.node.callspec.id}"
    arguments = ("train", tiny_recipe, f"run.name={name}", *OPTIONS)
    done = run_python("-c", HIT, *place, str(nth), str(int(number)), *arguments)
    assert done.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL), done.stdout + done.stderr
    run = RunDirectory.open(runs_folder(tiny_recipe) / name)
    assert checkpoint_step(run.last_checkpoint()) in (2, 3)
    resumed = run_command(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    check_same(run, ahead)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_of_two_sharded_processes_is_hit_while_it_draws(tiny_recipe, number):
    options = (*OPTIONS, FSDP2)
    whole = train(tiny_recipe, f"ahead-two-whole-{number.name}", *options, processes=2)
    arguments = ("train", tiny_recipe, f"run.name=ahead-two-{number.name}", *options)
    ends = run_ranks("-c", HIT, *SAMPLES, "6", str(int(number)), *arguments, processes=2, HIT_RANK="1")
    expected = [143, 143] if number == signal.SIGTERM else [3, -signal.SIGKILL]
    assert [status for status, _, _ in ends] == expected, ends
    run = RunDirectory.open(runs_folder(tiny_recipe) / f"ahead-two-{number.name}")
    resumed = run_command(*arguments, "--resume", processes=2)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    check_same(run, whole)


def test_a_run_that_goes_back_throws_away_what_was_drawn_from_the_weights_it_left(tiny_recipe):
    """By warm-up the update grows with each step: its norm passes the limit in the fourth, and in those after it."""
    guard = (
        "optimizer.warmup_steps=4",
        "guards.weights={policy: rollback, max_change: 0.002}",
        "guards.max_rollbacks=9",
    )
    run = train(tiny_recipe, "ahead-back", *OPTIONS, *guard)
    rows = run.metrics()
    back = [row["step"] for row in rows if row.get("rolled_back_to") is not None]
    assert 4 in back
    assert back[-1] < 7
    for row in rows:
        assert row["staleness"] == (0 if row["step"] == 1 or row["step"] - 1 in back else 1)
    # Nothing is kept of step 5, whose draw was in flight: it is drawn again from the weights that the run went back to.
    assert drawn_for(run, 4) == {}
    assert rows[4]["sampling_logprob_difference"] < 0.005
    check_resumed(run, tiny_recipe, *guard, kept=4)


RIGHT = """
def odd(completions, **columns):
    return [float(sum(map(ord, text)) % 3 == 0) for text in completions]
"""


def test_resampled_groups_come_from_the_newest_weights(tiny_recipe, tmp_path):
    (tmp_path / "odd.py").write_text(RIGHT)
    more = (
        "algorithm.zero_variance_groups=resample", "algorithm.max_resample_rounds=2", "task.num_train=32",
        f"rewards=[{{fn: '{tmp_path}/odd.py:odd', judges: answer, range: [0, 1]}}]",
    )  # fmt: skip
    run = train(tiny_recipe, "ahead-resample", *OPTIONS, *more)
    rows = run.metrics()
    assert any(0 < row["resampled_share"] < 1 for row in rows[1:])
    assert staleness(run) == [0, *(pytest.approx(1 - row["resampled_share"]) for row in rows[1:])]
    check_resumed(run, tiny_recipe, *more)


def test_a_resumed_run_draws_otherwise_only_where_it_is_allowed(tiny_recipe, ahead):
    def resumed(change, *words):
        copy = copy_until(ahead, 3, f"ahead-{change}")
        options = (*OPTIONS, "rollout.importance_correction=tis", f"run.name={copy.name}", change, "--resume", *words)
        return run_command("train", tiny_recipe, *options), copy

    after = {
        "rollout.max_staleness=2": [0, 1, 1, 1, 1, 2],
        "rollout.max_staleness=0": [0, 1, 1, None, None, None],
        # What was drawn ahead has the other temperature, and is made again.
        "rollout.temperature=0.7": [0, 1, 1, 0, 1, 1],
    }
    for change, expected in after.items():
        done, copy = resumed(change)
        assert done.returncode == 2
        assert change in done.stderr
        assert f"--allow-change {change.partition('=')[0]}" in done.stderr
        shutil.rmtree(copy.path)
        done, copy = resumed(change, "--allow-change", "rollout")
        assert done.returncode == 0, done.stderr
        assert [row.get("staleness") for row in copy.metrics()] == expected


def test_draws_that_are_older_than_a_lower_limit_are_made_again(tiny_recipe):
    two = train(tiny_recipe, "ahead-lowered", *OPTIONS, "rollout.max_staleness=2")
    copy = copy_until(two, 3, "ahead-lowered-to-1")
    allow = ("--resume", "--allow-change", "rollout")
    done = run_command("train", tiny_recipe, *OPTIONS, f"run.name={copy.name}", *allow)
    assert done.returncode == 0, done.stderr
    assert staleness(copy) == [0, 1, 2, 0, 1, 1]


def test_a_finished_run_goes_on_to_more_steps_only_where_it_is_allowed(tiny_recipe, ahead):
    options = (*OPTIONS, "run.name=ahead-more")
    run = train(tiny_recipe, "ahead-more", *OPTIONS, "algorithm.num_steps=3")
    # Nothing is drawn past the end.
    assert drawn_for(run, 3) == {}
    refused = run_command("train", tiny_recipe, *options, "--resume")
    assert refused.returncode == 2
    assert "--allow-change algorithm.num_steps" in refused.stderr
    done = run_command("train", tiny_recipe, *options, "--resume", "--allow-change", "algorithm.num_steps")
    assert done.returncode == 0, done.stderr
    assert staleness(run) == [0, 1, 1, 0, 1, 1]
    assert without_costs(run.metrics()[:2]) == without_costs(ahead.metrics()[:2])
    assert difference(run, 3, drawn_for(run, 4)["5"]["completions"]) < 0.005
