"""launch/torchrun.sh: two machines for real: two launchers on the loopback address, each with a number of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import (
    clean_environment,
    run_command,
    run_ranks,
    slowness,
    wait_until,
    wait_until_shared_memory_is_as,
)
from hits import without_costs
from networks import ADDRESSES, LINK, cut, two_networks

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "torchrun.sh"
# Two processes on machine 0 and one on machine 1.
PROCESSES = (2, 1)
FSDP2 = "distributed={engine: fsdp2, zero_stage: null}"
# With what a busy machine needs beside the 35 seconds of silence and the 15 of patience.
LIMIT_S = 60
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


def start(
    recipe: Path, folder: Path, *overrides: str, address: str = "127.0.0.1", inside: tuple[str, ...] = ()
) -> list[subprocess.Popen]:
    """The same command on each machine.

    Args:
        inside: network namespaces, one for each machine.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, processes in enumerate(PROCESSES):
        told = {"NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
        told |= {"NPROC_PER_NODE": str(processes), "OMP_NUM_THREADS": "1"}
        if inside:
            told |= {"GLOO_SOCKET_IFNAME": LINK}
        with (folder / f"machine-{rank}").open("w") as out:
            command = ["ip", "netns", "exec", inside[rank]] if inside else []
            command += ["bash", SCRIPT, recipe, *OPTIONS, *overrides, "--auto-resume"]
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
@pytest.mark.parametrize(
    ("killed", "engine"),
    [(0, "distributed.zero_stage=2"), (1, "distributed.zero_stage=2"), (0, FSDP2), (1, FSDP2)],
    ids=["0-zero2", "1-zero2", "0-fsdp2", "1-fsdp2"],
)
def test_one_machine_of_two_dies_the_job_starts_again_and_the_run_is_the_same(tiny_recipe, tmp_path, killed, engine):
    shared = set(os.listdir("/dev/shm"))
    options = (f"run.output_dir={tmp_path}", "checkpoint.final_model=true", "algorithm.num_steps=6", engine)
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


@pytest.mark.long
def test_torchrun_starts_the_processes_again_where_it_may_and_the_run_is_the_same(tiny_recipe, tmp_path):
    options = (*OPTIONS, f"run.output_dir={tmp_path}", "checkpoint.final_model=true", "algorithm.num_steps=6")
    options = (*options, "algorithm.prompts_per_step=4")
    whole = train(tiny_recipe, "whole", *options, processes=2, folder=tmp_path)
    told = {"NPROC_PER_NODE": "2", "PET_MAX_RESTARTS": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "said").open("w") as out:
        command = ["bash", SCRIPT, tiny_recipe, "run.name=again", *options, "--auto-resume"]
        launcher = subprocess.Popen(command, stdout=out, stderr=out, env=clean_environment(**told))
    run = RunDirectory(tmp_path / "again")
    wait_until(lambda: launcher.poll() is not None or len(run.metrics()) >= 2)
    workers = [pid for pid in family(launcher.pid)[1:] if is_trainer(pid)]
    os.kill(workers[1], signal.SIGKILL)
    wait_until(lambda: launcher.poll() is not None)
    said = (tmp_path / "said").read_text()
    assert launcher.returncode == 0, said
    assert "finished 6 steps" in said
    assert run.summary()["steps"] == 6
    assert without_costs(run.metrics()) == without_costs(whole.metrics())
    model = "checkpoints/final/model.safetensors"
    assert (run.path / model).read_bytes() == (whole.path / model).read_bytes()


def train(recipe: Path, name: str, *options: str, processes: int, folder: Path) -> RunDirectory:
    done = run_command("train", recipe, f"run.name={name}", *options, processes=processes)
    assert done.returncode == 0, done.stderr
    return RunDirectory.open(folder / name)


def is_trainer(pid: int) -> bool:
    return b"rl_posttrain\0train" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def networks():
    with two_networks() as names:
        yield names


@pytest.mark.long
def test_where_the_network_between_two_machines_is_lost_both_end_within_a_minute(tiny_recipe, tmp_path, networks):
    options = (f"run.output_dir={tmp_path}", "algorithm.num_steps=1000", "run.name=cut")
    launchers = start(tiny_recipe, tmp_path / "said", *options, address=ADDRESSES[0], inside=networks)
    run = RunDirectory(tmp_path / "cut")
    wait_until(lambda: len(run.metrics()) >= 2 or any(launcher.poll() is not None for launcher in launchers))
    everyone = [pid for launcher in launchers for pid in family(launcher.pid)]
    cut(networks[1])
    lost = time.monotonic()
    wait_until(lambda: all(launcher.poll() is not None for launcher in launchers))
    assert time.monotonic() - lost < LIMIT_S * slowness()
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
    said = [(tmp_path / f"said/machine-{rank}").read_text() for rank in (0, 1)]
    assert f"process 0 of 3: process 2 on {socket.gethostname()} has ended, so this one ends, too" in said[0]
    assert f"process 2 of 3: process 0 on {ADDRESSES[0]} has ended, so this one ends, too" in said[1]
    assert checkpoint_step(run.last_checkpoint()) >= 1
