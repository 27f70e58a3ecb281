"""AdamS, PowerStep and SCALE where parameters are spread over processes: two end in the weights of one."""

import json
from pathlib import Path

import pytest
from conftest import run_processes
from shard_runs import ADAMS_WAYS

ROUNDING = 2e-6
"""Of weights up to 1 that twenty steps have moved by up to 0.2."""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    file = tmp_path_factory.mktemp("shards") / "found.json"
    run_processes(Path(__file__).with_name("shard_runs.py"), file, processes=2)
    return json.loads(file.read_text())


@pytest.mark.parametrize("how", ["ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP2", "FSDP2, resumed", "FSDP2, resumed, flat"])
def test_scale_takes_the_norms_of_whole_rows_and_columns(how, found):
    assert found["scale"][how] < ROUNDING


@pytest.mark.parametrize("how", ["FSDP2", "shard"])
def test_scale_rounds_parts_by_chance(how, found):
    assert found["rounding"][how]


@pytest.mark.parametrize("way", ADAMS_WAYS)
def test_adams_updates_the_parts_of_fsdp2(way, found):
    assert found["adams"][way]["weights"] < 2e-5  # three steps of 0.1 each
    assert found["adams"][way]["buffers"] < 1e-6


@pytest.mark.parametrize("way", ADAMS_WAYS)
def test_adams_holds_half_of_adamws_buffers_on_each_process(way, found):
    held = found["adams"][way]["bytes"]
    assert 2 * held == found["adams"]["adamw"]["bytes"]
    assert 0 < held < found["adams"]["whole"]["bytes"]


@pytest.mark.parametrize("foreach", [False, True])
def test_powerstep_updates_the_parts_of_fsdp2(foreach, found):
    assert found["powerstep"][f"foreach={foreach}"] < 2e-5  # three steps of about 0.1 each
