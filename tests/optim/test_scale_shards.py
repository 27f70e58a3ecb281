"""SCALE where matrices are spread over processes: the norms are those of whole rows and columns."""

import json
from pathlib import Path

import pytest
from conftest import run_processes

ROUNDING = 2e-6
"""Of weights up to 1 that twenty steps have moved by up to 0.2."""


@pytest.fixture(scope="module")
def differences(tmp_path_factory) -> dict[str, float]:
    file = tmp_path_factory.mktemp("scale") / "differences.json"
    run_processes(Path(__file__).with_name("scale_runs.py"), file, processes=2)
    return json.loads(file.read_text())


@pytest.mark.parametrize("how", ["ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP2"])
def test_two_processes_end_in_the_weights_of_one(how, differences):
    assert differences[how] < ROUNDING
