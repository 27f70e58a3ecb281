"""The manifest of a checkpoint finds every flipped bit, and every file that is cut, missing or too many."""

import os
import random
import shutil
from pathlib import Path

import pytest

from rl_posttrain.runs import manifest
from rl_posttrain.runs.manifest import find_damage, is_checkable, write_manifest

FILES = {
    "model.safetensors": 300, "optimizer.pt": 200, "scheduler.pt": 20, "metrics.jsonl": 40, "empty.txt": 0,
    "global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": 120,
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Files as plain PyTorch and DeepSpeed write them, of random bytes."""
    folder, source = tmp_path / "checkpoint-4", random.Random(0)
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.randbytes(size))
    write_manifest(folder)
    return folder


def test_a_flip_of_each_byte_is_found_also_in_the_manifest(checkpoint):
    assert find_damage(checkpoint) is None
    assert is_checkable(checkpoint)
    source, num_flips = random.Random(1), 0
    for name in [*FILES, "complete"]:
        file = checkpoint / name
        whole = file.read_bytes()
        for place in range(len(whole)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << source.randrange(8)
            file.write_bytes(flipped)
            damage = find_damage(checkpoint)
            assert damage is not None, f"byte {place} of {name}"
            assert name.rpartition("/")[2] in damage
            num_flips += 1
        file.write_bytes(whole)
    assert num_flips > 1000
    assert find_damage(checkpoint) is None


def test_damage_in_any_piece_of_a_large_file_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_PIECE_BYTES", 1000)
    file = tmp_path / "checkpoint-4" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(random.Random(0).randbytes(10_500))
    write_manifest(file.parent)
    monkeypatch.undo()  # the manifest knows its own pieces
    assert find_damage(file.parent) is None
    for place in (0, 999, 1000, 5500, 10_499):
        with file.open("r+b") as opened:
            opened.seek(place)
            byte = opened.read(1)
            opened.seek(place)
            opened.write(bytes([byte[0] ^ 4]))
            opened.flush()
            assert find_damage(file.parent) == "model.safetensors has other bytes than were written"
            opened.seek(place)
            opened.write(byte)
    assert find_damage(file.parent) is None


@pytest.mark.parametrize("name", [*FILES, "complete"])
def test_a_file_that_is_missing_cut_grown_or_renamed_is_named(checkpoint, name):
    file = checkpoint / name
    whole, said = file.read_bytes(), file.name
    for content in (whole[: len(whole) // 2], whole + b"\0", b""):
        if content != whole:
            file.write_bytes(content)
            assert said in find_damage(checkpoint)
    file.write_bytes(whole)
    file.rename(file.with_name("other.pt"))
    assert "other.pt" in find_damage(checkpoint) or said in find_damage(checkpoint)
    (file.with_name("other.pt")).unlink()
    assert find_damage(checkpoint) in (f"{name} is missing", "it has no file complete, which is written last")


def test_a_file_too_many_is_named_for_what_loads_a_checkpoint_might_take_it(checkpoint):
    extra = checkpoint / "model.safetensors.index.json"
    extra.write_text("{}")
    assert find_damage(checkpoint) == "model.safetensors.index.json is not one of its files"
    extra.unlink()
    shutil.rmtree(checkpoint / "global_step4")
    assert find_damage(checkpoint).startswith("global_step4/bf16_zero_pp_rank_0")


def test_what_users_put_into_a_checkpoint_is_no_damage(checkpoint):
    (checkpoint / ".DS_Store").write_text("a desktop's")
    (checkpoint / "global_step4_universal").mkdir()
    (checkpoint / "global_step4_universal" / "zero.pt").write_text("converted")
    assert find_damage(checkpoint) is None


def test_only_the_files_that_are_needed_count(checkpoint):
    (checkpoint / "optimizer.pt").unlink()
    assert find_damage(checkpoint, lambda name: name == "model.safetensors") is None
    assert find_damage(checkpoint, lambda name: name.endswith(".pt")) == "optimizer.pt is missing"


def test_a_file_that_cannot_be_read_is_damage_and_no_traceback(checkpoint):
    (checkpoint / "optimizer.pt").unlink()
    (checkpoint / "optimizer.pt").mkdir()
    assert find_damage(checkpoint) == "optimizer.pt is missing"
    (checkpoint / "optimizer.pt").rmdir()
    os.symlink("optimizer.pt", checkpoint / "optimizer.pt")
    assert find_damage(checkpoint).startswith("optimizer.pt cannot be read (Too many levels of symbolic links")
    shutil.rmtree(checkpoint)
    assert find_damage(checkpoint) is not None


def test_before_there_were_manifests_nothing_can_be_said(tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    assert find_damage(tmp_path) == "it has no file complete, which is written last"
    (tmp_path / "complete").touch()
    assert find_damage(tmp_path) is None
    assert not is_checkable(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")  # whoever writes rows writes a manifest
    assert find_damage(tmp_path) == "complete is damaged"
