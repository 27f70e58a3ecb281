"""Runs of several processes: all stop after the same step, and where one dies all end soon, its error first."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import (
    clean_environment,
    command,
    run_command,
    run_python,
    run_ranks,
    slowness,
    wait_until,
    wait_until_shared_memory_is_as,
)
from hits import HIT, runs_folder, state_files, without_costs

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

QUICK = ("rollout.engine=transformers", "algorithm.num_steps=4", "checkpoint.keep=4", "checkpoint.final_model=true")
ENGINES = {"zero2": "distributed.zero_stage=2", "plain": "distributed.engine=none"}
LIMIT_S = 60.0
SCORE = ("rl_posttrain.training.rollouts", "score")


def hit(number: int, nth: int, place: tuple[str, str], *arguments: str | Path) -> tuple[str | Path, ...]:
    return ("-c", HIT, *place, str(nth), str(int(number)), "train", *arguments)


@pytest.mark.parametrize("engine", ["zero2", pytest.param("plain", marks=pytest.mark.long)], ids=["zero2", "plain"])
def test_a_signal_to_one_process_stops_both_after_the_same_step(tiny_recipe, engine):
    options = (*QUICK, ENGINES[engine])
    done = run_command(
        "train", tiny_recipe, f"run.name=whole-{engine}", *options, "checkpoint.every_steps=1", processes=2
    )
    assert done.returncode == 0, done.stderr
    whole = RunDirectory.open(runs_folder(tiny_recipe) / f"whole-{engine}")
    arguments = (tiny_recipe, f"run.name=hit-{engine}", *options)
    ends = run_ranks(*hit(signal.SIGTERM, 3, SCORE, *arguments), processes=2, HIT_RANK="1")
    assert [status for status, _, _ in ends] == [143, 143], ends
    run = RunDirectory.open(runs_folder(tiny_recipe) / f"hit-{engine}")
    told = f"stopped by SIGTERM after step 2 of 4; {run.path}/checkpoints/checkpoint-2 is kept; go on with: torchrun "
    assert ends[0][2].startswith(f"rl-posttrain: {told}--standalone --nproc_per_node=2 -m rl_posttrain train ")
    assert [checkpoint_step(folder) for folder in run.checkpoints()] == [2]
    assert state_files(run.last_checkpoint()) == state_files(whole.checkpoints_path / "checkpoint-2")
    resumed = run_command("train", *arguments, "--resume", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert without_costs(run.metrics()) == without_costs(whole.metrics())
    model = "checkpoints/final/model.safetensors"
    assert (run.path / model).read_bytes() == (whole.path / model).read_bytes()


@pytest.mark.parametrize(
    ("number", "nth", "place", "engine", "status", "said"),
    [
        (signal.SIGKILL, 2, SCORE, "transformers", -signal.SIGKILL, ""),
        (0, 2, SCORE, "transformers", 1,
         "rl-posttrain: RuntimeError: hit: this is a bug of ours; please report it with the log at "),
        pytest.param(signal.SIGKILL, 2, ("torch.distributed", "all_reduce"), "transformers", -signal.SIGKILL, "",
                     marks=pytest.mark.long),
        # In the midst of the second step's samples.
        pytest.param(signal.SIGKILL, 12, ("vllm.v1.engine.llm_engine", "LLMEngine.step"), "vllm", -signal.SIGKILL, "",
                     marks=pytest.mark.long),
    ],
    ids=["killed", "failed", "killed-in-a-collective", "killed-while-vllm-samples"],
)  # fmt: skip
def test_where_one_process_dies_the_other_ends_soon_and_says_why(
    tiny_recipe, tmp_path, number, nth, place, engine, status, said
):
    shared = set(os.listdir("/dev/shm"))
    options = (*QUICK, f"rollout.engine={engine}", ENGINES["zero2"])
    arguments = (tiny_recipe, "run.name=dies", f"run.output_dir={tmp_path}", *options)
    started = time.monotonic()
    ends = run_ranks(*hit(number, nth, place, *arguments), processes=2, HIT_RANK="1")
    assert time.monotonic() - started < LIMIT_S * slowness()
    assert (ends[1][0], ends[1][2].startswith(said)) == (status, True), ends
    assert ends[0][0] == 3, ends
    kept = re.fullmatch(
        rf"rl-posttrain: process 0 of 2: process 1 on {socket.gethostname()} has ended, so this one ends, too; see "
        r"what that one said; what this one saw is in the log at (\S+\.log)\n",
        ends[0][2],
    )
    assert kept, ends[0][2]
    assert "gloo" in Path(kept[1]).read_text()
    wait_until_shared_memory_is_as(shared)


def test_an_engine_that_fails_in_its_core_ends_the_run_in_one_line(tiny_recipe, tmp_path):
    arguments = (tiny_recipe, f"run.output_dir={tmp_path}", "distributed.engine=none", "checkpoint.every_steps=1")
    core = ("vllm.v1.engine.core", "EngineCore.step")
    done = run_python(*map(str, hit(0, 12, core, *arguments)))
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "rl-posttrain: rollout.engine=vllm: the engine failed while it sampled (RuntimeError: hit); run with "
        "--verbose, lower rollout.gpu_memory_share, or set rollout.engine=transformers\n"
    )
    assert checkpoint_step(RunDirectory.open(tmp_path / "tiny").last_checkpoint()) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("to", "number", "kept"),
    [
        ("launcher", signal.SIGTERM, True),
        ("launcher", signal.SIGINT, True),
        ("launcher", signal.SIGKILL, True),
        ("last", signal.SIGUSR1, True),
        ("last", signal.SIGKILL, False),
    ],
)
def test_under_torchrun_all_end_and_leave_nothing(tiny_recipe, tmp_path, to, number, kept):
    shared = set(os.listdir("/dev/shm"))
    options = ("algorithm.num_steps=1000", "rollout.engine=transformers", f"run.output_dir={tmp_path}", *ISOLATED)
    with (tmp_path / "out").open("w") as out:
        launcher = subprocess.Popen(
            command("train", tiny_recipe, *options, processes=2), stdout=out, stderr=out, env=clean_environment()
        )
    run = RunDirectory(tmp_path / "tiny")
    wait_until(lambda: launcher.poll() is not None or len(run.metrics()) >= 2)
    family = descendants(launcher.pid)
    ranks = [pid for pid in family[1:] if b"rl_posttrain\0train" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(ranks) == 2
    ports = {port for pid in family for port in ports_of(pid)}
    os.kill(launcher.pid if to == "launcher" else ranks[-1], number)
    started = time.monotonic()
    wait_until(lambda: launcher.poll() is not None and not any(Path(f"/proc/{pid}").exists() for pid in family))
    assert time.monotonic() - started < LIMIT_S * slowness()
    said = (tmp_path / "out").read_text()
    wait_until_shared_memory_is_as(shared)
    # Something else may have one of them meanwhile, for a time.
    wait_until(lambda: all(map(is_free, ports)))
    if kept:
        step = run.last_row()["step"]
        assert f"{run.path}/checkpoints/checkpoint-{step} is kept; go on with: torchrun --standalone" in said
        assert checkpoint_step(run.last_checkpoint()) == step
    else:
        assert f"process 0 of 2: process 1 on {socket.gethostname()} has ended" in said
        assert "Signal 9 (SIGKILL)" in said.partition("Root Cause")[2]


ISOLATED = ("rewards.0.isolated=true",)


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in descendants(int(child)))]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def ports_of(pid: int) -> set[int]:
    """Ports that a process listens at."""
    sockets = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    ports = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, _, state, inode = (line.split()[place] for place in (1, 2, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports
