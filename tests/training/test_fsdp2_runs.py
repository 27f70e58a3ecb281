"""Whole runs under FSDP2: killed and gone on with, on two processes and on one; with a reference model, with vLLM."""

import shutil
import signal

import pytest
from conftest import run_command, run_ranks
from hits import HIT, runs_folder, state_files, without_costs

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

FSDP2 = "distributed={engine: fsdp2, zero_stage: null}"
OPTIONS = (
    FSDP2, "rollout.engine=transformers", "algorithm.num_steps=4", "checkpoint.every_steps=1", "checkpoint.keep=4",
    "checkpoint.keep_best.metric=reward", "checkpoint.final_model=true", "algorithm.kl_coef=0.05",
)  # fmt: skip
MODEL = "checkpoints/final/model.safetensors"


def opened(recipe, name) -> RunDirectory:
    return RunDirectory.open(runs_folder(recipe) / name)


def test_a_killed_run_goes_on_as_the_same_run_and_on_one_process_too(tiny_recipe):
    whole = run_command("train", tiny_recipe, "run.name=fsdp2-whole", *OPTIONS, processes=2)
    assert whole.returncode == 0, whole.stderr
    whole = opened(tiny_recipe, "fsdp2-whole")
    rows = whole.metrics()
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[3]["kl"] > 1e-6
    score = ("rl_posttrain.training.rollouts", "score", "3", str(int(signal.SIGKILL)))
    arguments = ("train", tiny_recipe, "run.name=fsdp2-killed", *OPTIONS)
    ends = run_ranks("-c", HIT, *score, *arguments, processes=2, HIT_RANK="1")
    assert ends[1][0] == -signal.SIGKILL, ends
    killed = opened(tiny_recipe, "fsdp2-killed")
    assert checkpoint_step(killed.last_checkpoint()) == 2
    assert state_files(killed.last_checkpoint()) == state_files(whole.checkpoints_path / "checkpoint-2")
    fewer = RunDirectory(shutil.copytree(killed.path, killed.path.with_name("fsdp2-fewer")))
    for run, processes in ((killed, 2), (fewer, 1)):
        resumed = run_command("train", tiny_recipe, f"run.name={run.name}", *OPTIONS, "--resume", processes=processes)
        assert resumed.returncode == 0, resumed.stderr
        if processes == 2:
            assert without_costs(run.metrics()) == without_costs(rows)
            assert (run.path / MODEL).read_bytes() == (whole.path / MODEL).read_bytes()
        else:
            assert "it was started on 2 processes, not 1: sums are rounded otherwise from here on" in resumed.stdout
            assert run.metrics()[2]["loss"] == pytest.approx(rows[2]["loss"], abs=1e-4)
            assert [r["completion"] for r in run.rollouts(3)] == [r["completion"] for r in whole.rollouts(3)]


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("distributed.offload=parameters",),
        ("algorithm.name=ppo", "algorithm.loss=dapo"),
        ("model.gradient_checkpointing=true", "optimizer={name: scale, lr: 1.0e-3, vector_lr: 1.0e-4}"),
    ],
    ids=["adams", "offload", "ppo", "scale-checkpointing"],
)
def test_two_processes_train_with_vllm(tiny_recipe, more, request):
    """The engine has the policy's weights, to the bit in its dtype, or the run would fail."""
    name = request.node.callspec.id
    done = run_command("train", tiny_recipe, f"run.name=fsdp2-{name}", FSDP2, *more, processes=2)
    assert done.returncode == 0, done.stderr
    rows = opened(tiny_recipe, f"fsdp2-{name}").metrics()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 and row["update_norm"] > 0 for row in rows)
    assert max(row["sampling_logprob_difference"] for row in rows) < 0.1
