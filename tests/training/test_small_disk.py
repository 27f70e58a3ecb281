"""A disk that is full, at every moment of a run: one line, and the run goes on once there is room."""

import errno
import json
from pathlib import Path

import pytest
import torch
from conftest import run_python
from hits import without_costs
from safetensors.torch import save_file
from small_disk import NO_MOUNTS

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import disk_errors

SMALL_DISK = Path(__file__).with_name("small_disk.py")
OPTIONS = (
    "rollout.engine=transformers", "distributed.engine=none", "rollout.max_new_tokens=4", "checkpoint.every_steps=1",
    "checkpoint.keep=2", "checkpoint.final_model=true", "logging.trackers=[tensorboard]",
)  # fmt: skip
# The tiny model's run takes 2.6 MB: from a disk that has no room for the recipe to one on which the run fits.
EVERY_SIZE = [*range(2**12, 2**17, 2**14), *range(2**17, 3 * 2**20, 2**16), *range(3 * 2**20, 2**23 + 1, 2**20)]
SOME_SIZES = [2**12, 5 * 2**12, 5 * 2**17, 2**21]


def check_sizes(sizes: list[int], recipe: Path, folder: Path) -> list[int]:
    """The statuses on small disks; that every run went on to its end is checked here."""
    (folder / "disk").mkdir()
    out = folder / "out"
    out.mkdir()
    done = run_python(SMALL_DISK, folder / "disk", out / "results.json", json.dumps([*sizes, 2**27]), recipe, *OPTIONS)
    if done.stderr.strip() == NO_MOUNTS:
        pytest.skip(NO_MOUNTS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "results.json").read_text())
    (status, printed), _ = found.pop(str(2**27))
    assert status == 0, printed
    expected = RunDirectory.open(out / "runs" / f"on-{2**27}")
    for size, ((status, printed), (resumed_status, resumed)) in found.items():
        assert "Traceback" not in printed + resumed, (size, printed, resumed)
        assert resumed_status == 0, (size, printed, resumed)
        if status:
            (said,) = (line for line in printed.splitlines() if line.startswith("rl-posttrain: "))
            assert (status, said.count("the disk is full")) == (2, 1), (size, said)
        run = RunDirectory.open(out / "runs" / f"on-{size}")
        assert without_costs(run.metrics()) == without_costs(expected.metrics())
        weights = [one.final_model_path / "model.safetensors" for one in (run, expected)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    return [status for (status, _), _ in found.values()]


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_once_there_is_room(tiny_recipe, tmp_path):
    assert check_sizes(SOME_SIZES, tiny_recipe, tmp_path) == [2] * len(SOME_SIZES)


@pytest.mark.long
def test_no_size_of_a_disk_leaves_a_run_that_cannot_go_on(tiny_recipe, tmp_path):
    statuses = check_sizes(EVERY_SIZE, tiny_recipe, tmp_path)
    assert statuses == sorted(statuses, reverse=True), "more room, and yet no success"
    assert set(statuses) == {0, 2}


def test_what_writes_with_errors_of_its_own_raises_those_of_the_system(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(OSError, match="No such file") as caught, disk_errors(tmp_path):
        save_file({"a": torch.zeros(4)}, missing / "a.safetensors")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path))
    with pytest.raises(OSError, match=r"No space left|Input") as caught, disk_errors(Path("/dev")):
        torch.save(torch.zeros(2**20), "/dev/full")
    assert caught.value.errno in (errno.ENOSPC, errno.EIO)
    with pytest.raises(KeyError), disk_errors(tmp_path):
        raise KeyError("no matter of the disk")
    with pytest.raises(RuntimeError, match="another"), disk_errors(tmp_path):
        raise RuntimeError("another error")
