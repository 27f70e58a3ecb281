"""Optimizers in runs of a recipe under DeepSpeed: the class that runs, what it is handed, and its groups."""

import json
from pathlib import Path

import pytest
from conftest import run_processes
from recipe_runs import EACH, GROUPED, SHARDED

from rl_posttrain.optim import OPTIMIZERS


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def found(tiny_recipe, tmp_path_factory) -> dict[str, dict]:
    """All runs in one process."""
    folder = tmp_path_factory.mktemp("optimizers")
    run_processes(Path(__file__).with_name("recipe_runs.py"), tiny_recipe, folder, processes=1)
    return json.loads((folder / "found.json").read_text())


@each(EACH)
def test_each_runs_under_deepspeed_on_fp32_masters(case, found):
    (row,), (step,) = found[case.name]["rows"], found[case.name]["steps"]
    assert step["class"] == OPTIMIZERS[case.optimizer].rpartition(":")[2]
    assert step["dtypes"] == ["torch.float32"]
    assert row["grad_norm"] > 0


@each(SHARDED)
def test_scale_learns_what_its_shards_hold(case, found):
    """SCALE itself refuses flat shards that it knows nothing of."""
    assert len(found[case.name]["rows"]) == 2
    assert [step["class"] for step in found[case.name]["steps"]] == ["SCALE", "SCALE"]


@each(GROUPED)
def test_groups_by_role_reach_the_optimizer(case, found):
    """Also where the parameters are split before there is an optimizer (ZeRO-3), and with the shortest schedule."""
    # What is logged is the matrices' rate of this step; after it the groups have that of the next.
    assert [row["lr"] for row in found[case.name]["rows"]] == [1e-3, 5e-4]
    assert [step["rates"] for step in found[case.name]["steps"]] == [
        [[5e-5, 0.1], [5e-4, 0.0], [5e-4, 0.1]],
        [[0.0, 0.0], [0.0, 0.1], [0.0, 0.1]],
    ]
