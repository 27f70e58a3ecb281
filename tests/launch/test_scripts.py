"""launch/: what runs of its scripts without a cluster. tests/training/test_two_machines.py trains by torchrun.sh."""

import subprocess
from pathlib import Path

import pytest
from conftest import clean_environment

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "torchrun.sh"


@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*.s*")), ids=lambda path: path.name)
def test_a_shell_reads_it_whole(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["NODE_RANK", "MASTER_ADDR"])
def test_what_a_machine_must_be_told_is_asked_for(missing):
    told = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    del told[missing]
    environment = {name: value for name, value in clean_environment().items() if name != missing} | told
    done = subprocess.run(["bash", SCRIPT, "quickstart"], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert f"{missing}: {missing}= is missing; set " in done.stderr
