"""launch/torchrun.sh: two machines for real: two launchers on the loopback address, each with a number of its own."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import clean_environment, run_ranks, wait_until, wait_until_shared_memory_is_as
from hits import without_costs

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "torchrun.sh"
# Two processes on machine 0 and one on machine 1.
PROCESSES = (2, 1)
OPTIONS = ("rollout.engine=transformers", "algorithm.prompts_per_step=3", "checkpoint.every_steps=1")


def test_a_machine_that_does_not_see_the_folder_is_named(tiny_recipe, tmp_path):
    """Each process has the folder at another place, as machines have that share no disk."""
    arguments = ("-m", "rl_posttrain", "train", tiny_recipe, f"run.output_dir={tmp_path}/$RANK", *OPTIONS)
    ends = run_ranks(*arguments, "algorithm.prompts_per_step=4", processes=2)
    said = (
        f"rl-posttrain: run.output_dir={tmp_path}/0: {socket.gethostname()} does not see the folder that the main "
        "process has there; set it to a folder that all machines share\n"
    )
    assert [(status, errors) for status, _, errors in ends] == [(2, said)] * 2


def start(recipe: Path, folder: Path, *overrides: str) -> list[subprocess.Popen]:
    """The same command on each machine."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, processes in enumerate(PROCESSES):
        told = {"NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        told |= {"NPROC_PER_NODE": str(processes), "OMP_NUM_THREADS": "1"}
        with (folder / f"machine-{rank}").open("w") as out:
            command = ["bash", SCRIPT, recipe, *OPTIONS, *overrides, "--auto-resume"]
            environment = clean_environment(**told)
            started.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True))
    return started


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def kill_machine(launcher: subprocess.Popen) -> None:
    for pid in family(launcher.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    launcher.wait()


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_one_machine_of_two_dies_the_job_starts_again_and_the_run_is_the_same(tiny_recipe, tmp_path, killed):
    shared = set(os.listdir("/dev/shm"))
    options = (f"run.output_dir={tmp_path}", "checkpoint.final_model=true", "algorithm.num_steps=6")
    launchers = start(tiny_recipe, tmp_path / "whole-said", "run.name=whole", *options)
    assert [launcher.wait() for launcher in launchers] == [0, 0], (tmp_path / "whole-said/machine-0").read_text()
    whole = RunDirectory.open(tmp_path / "whole")
    assert whole.environment()["num_machines"] == 2
    assert whole.environment()["num_processes"] == 3
    shown = [(tmp_path / f"whole-said/machine-{rank}").read_text() for rank in (0, 1)]
    assert "finished 6 steps" in shown[0]
    assert shown[1] == "machine 1 of 2: it trains for the run that 127.0.0.1 shows\n"

    launchers = start(tiny_recipe, tmp_path / "said", "run.name=hit", *options)
    run = RunDirectory(tmp_path / "hit")
    wait_until(lambda: len(run.metrics()) >= 2)
    others = family(launchers[1 - killed].pid)
    kill_machine(launchers[killed])
    wait_until(lambda: launchers[1 - killed].poll() is not None)
    assert not [pid for pid in others if Path(f"/proc/{pid}").exists()]
    wait_until_shared_memory_is_as(shared)
    said = (tmp_path / f"said/machine-{1 - killed}").read_text()
    assert f"on {socket.gethostname()} has ended, so this one ends, too" in said or "127.0.0.1 has ended" in said
    step = checkpoint_step(run.last_checkpoint())
    assert 1 <= step < 6

    launchers = start(tiny_recipe, tmp_path / "again", "run.name=hit", *options)
    assert [launcher.wait() for launcher in launchers] == [0, 0], (tmp_path / "again/machine-0").read_text()
    assert without_costs(run.metrics()) == without_costs(whole.metrics())
    model = "checkpoints/final/model.safetensors"
    assert (run.path / model).read_bytes() == (whole.path / model).read_bytes()
