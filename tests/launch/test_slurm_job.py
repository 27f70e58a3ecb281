"""launch/slurm.sbatch on a real Slurm of two machines, both this one; a script stands in the place of a trainer."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import clean_environment, wait_until

ROOT = Path(__file__).resolve().parents[2]
DAEMONS = ("munged", "slurmctld", "slurmd")
# A step a second, each a line in a file; a signal ends it after 2 seconds, as one that writes a checkpoint.
TRAINER = """#!/bin/bash
[ "${@: -2:1}" != run.name=wrong ] || exit 1
file=$SLURM_SUBMIT_DIR/steps-$NODE_RANK
trap 'stop=yes' TERM USR1
while [ "$(cat "$file" 2>/dev/null | wc -l)" -lt 25 ]; do
    sleep 1 & wait $!
    [ -z "$stop" ] || { sleep 2; exit 1; }
    echo "${SLURM_RESTART_COUNT:-0}" >> "$file"
done
"""
CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=15
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=low Nodes=n0,n1 Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=n0,n1 PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture
def slurm(tmp_path):
    """A function that runs one of Slurm's commands, in a folder with launch/ in it; what it prints."""
    missing = [name for name in DAEMONS if shutil.which(name, path="/usr/sbin:" + os.environ["PATH"]) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"it needs root and a Slurm to start; {', '.join(missing) or 'root'} is not there")
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    tmp_path.chmod(0o755)
    for name in ("state", "spool-n0", "spool-n1", "launch", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "slurm.conf").write_text(CONF.format(host=socket.gethostname(), folder=tmp_path, ports=ports))
    (tmp_path / "key").write_bytes(os.urandom(128))
    (tmp_path / "key").chmod(0o400)
    for name in ("torchrun.sh", "slurm.sbatch"):
        shutil.copy(ROOT / "launch" / name, tmp_path / "launch")
    (tmp_path / "bin" / "python").write_text(TRAINER)
    (tmp_path / "bin" / "python").chmod(0o755)
    environment = clean_environment(
        SLURM_CONF=str(tmp_path / "slurm.conf"), MASTER_ADDR="127.0.0.1", NPROC_PER_NODE="1",
        PATH=f"{tmp_path}/bin:/usr/sbin:{os.environ['PATH']}",
    )  # fmt: skip
    munged = ["munged", "--foreground", "--force", f"--key-file={tmp_path}/key", f"--socket={tmp_path}/munge.sock"]
    munged += [f"--{name}-file={tmp_path}/munged.{name}" for name in ("pid", "log", "seed")]
    commands = [munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n0"], ["slurmd", "-D", "-N", "n1"]]
    started = []

    def run(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout

    try:
        for command in commands:
            with (tmp_path / f"daemon-{len(started)}").open("w") as out:
                started.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
            time.sleep(1)
        wait_until(lambda: run("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"])
        yield run
        run("scancel", "-u", "root")
    finally:
        for daemon in started[::-1]:
            daemon.terminate()
            daemon.wait()


def send(slurm, *words: str) -> str:
    """A job of two machines; its number."""
    options = ("-N2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30", "-o", "said", "launch/slurm.sbatch")
    return slurm("sbatch", "--parsable", *options, "recipe.yaml", *words).strip()


def state(slurm, job: str) -> tuple[str, str]:
    """The state of a job, and how often it was queued again."""
    said = dict(word.partition("=")[::2] for word in slurm("scontrol", "show", "job", job).split() if "=" in word)
    return said["JobState"], said["Restarts"]


@pytest.mark.long
def test_a_job_that_is_preempted_goes_on_by_itself_and_one_that_fails_does_not(slurm, tmp_path):
    """It ends within the grace that it has, so that Slurm itself would call it failed and not queue it again."""
    job = send(slurm, "run.name=long")
    steps = [tmp_path / f"steps-{rank}" for rank in (0, 1)]
    wait_until(lambda: all(file.exists() and len(file.read_text().split()) >= 4 for file in steps))
    slurm("sbatch", "-p", "high", "-N2", "--exclusive", "--time=1", "-o", "/dev/null", "--wrap", "sleep 3")
    wait_until(lambda: state(slurm, job)[0] in ("COMPLETED", "FAILED", "CANCELLED"))
    assert state(slurm, job) == ("COMPLETED", "1"), (tmp_path / "said").read_text()
    for file in steps:
        assert set(file.read_text().split()) == {"0", "1"}
        assert len(file.read_text().split()) == 25

    job = send(slurm, "run.name=wrong")
    wait_until(lambda: state(slurm, job)[0] in ("COMPLETED", "FAILED", "CANCELLED"))
    assert state(slurm, job) == ("FAILED", "0")
