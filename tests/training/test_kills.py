"""Runs that are killed at random moments, again and again, end as the run that nobody touched, bit for bit.

`make test` kills 20 times. 100 times, under each engine, with a seed:

    .venv/bin/pytest tests/training/test_kills.py -m long --kills 100 --kill-seed 1
"""

import json
import random
import signal
from pathlib import Path

import pytest
import torch
from conftest import run_python
from hits import without_costs
from killed import POINTS

from rl_posttrain.runs.directory import RunDirectory

KILLED = Path(__file__).with_name("killed.py")
# Checkpoints after each step and an older one beside it, so that every kind of file is written and removed again.
OPTIONS = (
    "rollout.engine=transformers", "rollout.max_new_tokens=6", "algorithm.prompts_per_step=2",
    "algorithm.num_steps=5", "checkpoint.every_steps=1", "checkpoint.keep=2", "checkpoint.final_model=true",
    "checkpoint.keep_best.metric=reward",
)  # fmt: skip
ENGINES = {"plain": "distributed.engine=none", "zero2": "distributed.zero_stage=2", "zero3": "distributed.zero_stage=3"}


def launch(aim: dict, recipe: Path, name: str, engine: str):
    resume = ["--resume"] if (recipe.parent / "runs" / name).exists() else []
    return run_python(
        KILLED, json.dumps(aim), "train", recipe, f"run.name={name}", *OPTIONS, ENGINES[engine], *resume,
        processes=1 if engine == "plain" else 2,
    )  # fmt: skip


def content(run: RunDirectory) -> dict:
    """All that a run has to show, less what it cost."""
    files = sorted(path for path in run.checkpoints_path.rglob("*") if path.suffix in (".safetensors", ".pt"))
    return {
        "metrics": without_costs(run.metrics()),
        "rollouts": [run.rollouts(row["step"]) for row in run.metrics()],
        "best": run.best(),
        "checkpoints": [folder.name for folder in run.checkpoint_folders()],
        "files": {str(path.relative_to(run.path)): values(path) for path in files},
    }


def values(path: Path) -> bytes | list:
    """A file's bytes; of what torch saved, every tensor and number in it, since its pickle also names the run."""
    if path.suffix != ".pt":
        return path.read_bytes()
    found: list = []

    def walk(value: object, place: str) -> None:
        if isinstance(value, torch.Tensor):
            tensor = value.detach().contiguous().flatten()
            found.append((place, str(tensor.dtype), tensor.view(torch.uint8).numpy().tobytes()))
        elif type(value) in (int, float):  # no flags: torch adds `differentiable` to a group that it has loaded
            found.append((place, value))
        elif isinstance(value, dict):
            for name in sorted(value, key=str):
                walk(value[name], f"{place}/{name}")
        elif isinstance(value, (list, tuple)):
            for number, one in enumerate(value):
                walk(one, f"{place}/{number}")

    walk(torch.load(path, map_location="cpu", weights_only=False), "")
    assert found, path
    return found


def kill_again_and_again(recipe: Path, folder: Path, engine: str, num_kills: int, seed: int) -> list[str]:
    """Kill runs until there were `num_kills`, and compare each finished one; where they were killed."""
    draw = random.Random(f"{engine}/{seed}")
    measured = folder / f"{engine}.json"
    reference = launch({"measure": str(measured)}, recipe, f"{engine}-{seed}-untouched", engine)
    assert reference.returncode == 0, reference.stderr
    runs = recipe.parent / "runs"
    expected = content(RunDirectory.open(runs / f"{engine}-{seed}-untouched"))
    assert len(expected["metrics"]) == 5
    assert expected["files"]
    calls = json.loads(measured.read_text())
    assert calls.keys() == POINTS.keys(), "a point is never reached"
    killed, number, failures_in_a_row = [], 0, 0
    while len(killed) < num_kills:
        name = f"{engine}-{seed}-{number}"
        point = draw.choice(sorted(POINTS))
        times, mean = calls[point]
        rank = draw.choice("01") if engine != "plain" and POINTS[point][1] == "everyone" else "0"
        # One of its first calls: a launch makes only some of the steps.
        aim = {"point": point, "calls": draw.randrange(min(times, 3)), "rank": rank}
        aim["seconds"] = draw.choice((0, draw.uniform(0, 1.2) * mean))
        done = launch(aim, recipe, name, engine)
        if done.returncode == 0:
            assert content(RunDirectory.open(runs / name)) == expected, (name, killed)
            number += 1
        else:
            assert done.returncode == -signal.SIGKILL, (aim, done.returncode, done.stderr)
            killed.append(point)
        failures_in_a_row = 0 if done.returncode == 0 else failures_in_a_row + 1
        assert failures_in_a_row < 60, "the run makes no progress"
    done = launch({}, recipe, f"{engine}-{seed}-{number}", engine)
    assert done.returncode == 0, done.stderr
    assert content(RunDirectory.open(runs / f"{engine}-{seed}-{number}")) == expected
    print(
        f"{engine}: {len(killed)} kills, {number + 1} runs",
        {point: killed.count(point) for point in sorted(set(killed))},
    )
    return killed


def test_a_run_that_is_killed_20_times_ends_bitwise_as_one_that_is_not(tiny_recipe, tmp_path, pytestconfig):
    killed = kill_again_and_again(tiny_recipe, tmp_path, "plain", 20, pytestconfig.getoption("kill_seed"))
    assert len(set(killed)) > 5


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_as_many_kills_as_asked_for_under_each_engine(tiny_recipe, tmp_path, engine, pytestconfig):
    num_kills, seed = pytestconfig.getoption("kills"), pytestconfig.getoption("kill_seed")
    killed = kill_again_and_again(tiny_recipe, tmp_path, engine, num_kills, seed + 1000)
    assert len(killed) == num_kills
