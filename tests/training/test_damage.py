"""Checkpoints and rows that were damaged before a resume: the run starts from what is whole, or says why not."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_command

from rl_posttrain.errors import RunError
from rl_posttrain.evaluation.subjects import find_subject
from rl_posttrain.models.export import export_model
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.manifest import find_damage
from rl_posttrain.training.inputs import Inputs
from rl_posttrain.training.resume import Start, find_start, open_run

# Four steps with checkpoints after two and four. Plain PyTorch writes optimizer.pt; DeepSpeed shards by process.
COMMON = ("algorithm.num_steps=4", "checkpoint.every_steps=2", "checkpoint.keep=2", "rollout.engine=transformers")
ENGINES = {"plain": ("distributed.engine=none",), "zero2": ("distributed.zero_stage=2",)}
NUM_FLIPS = 500


@pytest.fixture(scope="module", params=ENGINES)
def trained(tiny_recipe, request) -> RunDirectory:
    name = f"damage-{request.param}"
    options = (*COMMON, *ENGINES[request.param])
    done = run_command("train", tiny_recipe, f"run.name={name}", *options, processes=1 + (request.param == "zero2"))
    assert done.returncode == 0, done.stderr
    return RunDirectory.open(tiny_recipe.parent / "runs" / name)


@pytest.fixture
def unfinished(trained, tmp_path) -> RunDirectory:
    """A copy to damage, as a process leaves it that is killed after its last checkpoint."""
    run = RunDirectory(shutil.copytree(trained.path, tmp_path / trained.name))
    (run.path / "summary.json").unlink()
    return run


def start_of(run: RunDirectory) -> Start:
    return find_start(load_recipe(run.path / "recipe.yaml"), run)


def checkpoint(run: RunDirectory, step: int) -> Path:
    return run.checkpoints_path / f"checkpoint-{step}"


def flip(file: Path, source: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    file.write_bytes(content)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_each_of_500_random_flips_is_found(trained, tmp_path):
    folder = shutil.copytree(checkpoint(trained, 4), tmp_path / "checkpoint-4")
    source, num_flips = random.Random(0), 0
    assert find_damage(folder) is None
    whole = [file for file in files(folder) if file.stat().st_size]
    for file in [*whole, *source.choices(whole, k=NUM_FLIPS)]:
        content = file.read_bytes()
        flip(file, source)
        assert find_damage(folder), file
        file.write_bytes(content)
        num_flips += 1
    assert num_flips > NUM_FLIPS
    assert find_damage(folder) is None


def test_whatever_happens_to_a_file_of_the_newest_the_next_older_one_is_taken(unfinished):
    assert start_of(unfinished).checkpoint == checkpoint(unfinished, 4)
    damages: list[Callable[[Path], object]] = [
        lambda file: flip(file, random.Random(0)),
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        lambda file: file.unlink(),
    ]
    for file in files(checkpoint(unfinished, 4)):
        content = file.read_bytes()
        for damage in damages:
            damage(file)
            start = start_of(unfinished)
            assert (start.step, [row["step"] for row in start.rows]) == (2, [1, 2]), file
            assert start.notes[0].startswith("passed over checkpoint-4: ")
            assert len(start.notes) == 1
            assert "\n" not in start.notes[0]
            file.write_bytes(content)
    (checkpoint(unfinished, 4) / "adapter_model.bin").write_text("of another program")
    assert start_of(unfinished).notes == ["passed over checkpoint-4: adapter_model.bin is not one of its files"]


def test_a_checkpoint_under_another_steps_name_is_passed_over(unfinished):
    shutil.copytree(checkpoint(unfinished, 2), checkpoint(unfinished, 9))
    start = start_of(unfinished)
    assert start.checkpoint == checkpoint(unfinished, 4)
    assert start.notes == ["passed over checkpoint-9: it is the checkpoint of step 2 under another name"]


def test_where_none_is_whole_one_line_names_each(unfinished, run_main):
    flip(checkpoint(unfinished, 4) / "model.safetensors", random.Random(0))
    (checkpoint(unfinished, 2) / "trainer_state.json").unlink()
    (unfinished.path / "environment.json").write_text("{}")  # it counts processes
    before = files(unfinished.path)
    status, _, stderr = run_main(
        "train", unfinished.path / "recipe.yaml", f"run.output_dir={unfinished.path.parent}", "--resume"
    )
    assert (status, stderr.count("\n")) == (2, 1)
    assert "checkpoint-4: model.safetensors has other bytes than were written" in stderr
    assert "checkpoint-2: trainer_state.json is missing" in stderr
    assert files(unfinished.path) == before


def test_export_and_eval_refuse_what_is_damaged(unfinished, tmp_path):
    folder = checkpoint(unfinished, 4)
    shutil.rmtree(unfinished.final_model_path, ignore_errors=True)
    assert export_model(unfinished, tmp_path / "whole").step == 4
    assert find_subject(str(unfinished.path)).step == 4
    flip(folder / "model.safetensors", random.Random(0))
    said = r"checkpoint-4: model\.safetensors has other bytes than were written; the checkpoint is damaged"
    unfinished.write_best({"step": 4, "metric": "reward", "mode": "max", "value": 1.0})
    for options in ({}, {"step": 4}, {"best": True}, {"step": 4, "dtype": "float32"}):
        with pytest.raises(RunError, match=said):
            export_model(unfinished, tmp_path / "damaged", **options)
        assert not (tmp_path / "damaged").exists()
    for text in (unfinished.path, folder):
        with pytest.raises(RunError, match=said):
            find_subject(str(text))
    assert export_model(unfinished, tmp_path / "older", step=2).step == 2
    (folder / "complete").unlink()
    with pytest.raises(RunError, match="it has no file complete"):
        find_subject(str(folder))


def test_rows_that_are_cut_changed_or_gone_come_from_the_checkpoint(unfinished):
    content = unfinished.metrics_path.read_bytes()
    lines = content.splitlines(keepends=True)
    cases = {
        1: [b"", content.replace(b'"step": 1', b'"step": 7'), b"\xff" + content, b"[]\n" + content],
        2: [
            lines[0],
            lines[0] + lines[1][:40],
            lines[0] + lines[2] + lines[3],
            lines[0] + b"{}\n" + b"".join(lines[1:]),
        ],
        4: [b"".join(lines[:3]), content[:-20]],
    }
    for row, contents in cases.items():
        for changed in contents:
            unfinished.metrics_path.write_bytes(changed)
            start = start_of(unfinished)
            assert [one["step"] for one in start.rows] == [1, 2, 3, 4]
            assert start.notes == [
                f"metrics.jsonl lacks row {row} as it was written: rows 1 to 4 are taken from checkpoint-4"
            ]
    unfinished.metrics_path.unlink()
    assert [one["step"] for one in start_of(unfinished).rows] == [1, 2, 3, 4]
    # What came after the checkpoint is made again, whatever it is.
    unfinished.metrics_path.write_bytes(content + b"\xff{not a row\n{}")
    assert start_of(unfinished) == Start(checkpoint(unfinished, 4), start_of(unfinished).rows, [])


def test_a_checkpoint_from_before_manifests_resumes_and_says_that_it_cannot_be_checked(unfinished):
    for step in (2, 4):
        (checkpoint(unfinished, step) / "complete").write_bytes(b"")
        (checkpoint(unfinished, step) / "metrics.jsonl").unlink()
    start = start_of(unfinished)
    assert (start.step, len(start.rows)) == (4, 4)
    assert start.notes == ["checkpoint-4 was written before checkpoints had checksums: damage in it would not be seen"]
    lines = unfinished.metrics_path.read_bytes().splitlines(keepends=True)
    for changed in (b"", lines[0], lines[0] + lines[2] + lines[3], lines[0] + b"{}\n" + b"".join(lines[1:])):
        unfinished.metrics_path.write_bytes(changed)
        said = r"metrics\.jsonl(:2: no step|: it has not one row for each of the 4 steps before check)"
        with pytest.raises(RunError, match=said):
            start_of(unfinished)


def test_a_finished_run_that_lost_rows_is_not_shown_as_finished(trained, unfinished):
    shutil.copy(trained.path / "summary.json", unfinished.path)
    recipe = load_recipe(unfinished.path / "recipe.yaml", [f"run.output_dir={unfinished.path.parent}"])
    (unfinished.path / "recipe.yaml").write_text(recipe.to_yaml())
    (unfinished.path / "environment.json").write_text("{}")  # it counts processes
    assert open_run(recipe, True, Inputs({}, {})).metrics() == trained.metrics()
    lines = unfinished.metrics_path.read_text().splitlines(keepends=True)
    for left in (lines[:3], lines[1:], []):
        unfinished.metrics_path.write_text("".join(left))
        with pytest.raises(RunError, match=r"metrics\.jsonl: it has not every row of the 4 steps of this finished run"):
            open_run(recipe, True, Inputs({}, {}))


def test_a_run_whose_newest_checkpoint_and_rows_are_damaged_is_the_same_run_at_its_end(tiny_recipe, trained):
    """A run that goes on from a checkpoint whose optimizer or schedule is missing ends elsewhere."""
    weights = (trained.final_model_path / "model.safetensors"), checkpoint(trained, 4) / "model.safetensors"
    ended = [file.read_bytes() for file in weights if file.exists()]
    rows = [{key: row[key] for key in row if "time" not in key and "seconds" not in key} for row in trained.metrics()]
    (trained.path / "summary.json").unlink()
    state = next(file for file in files(checkpoint(trained, 4)) if "optim" in file.name)
    state.unlink()
    trained.metrics_path.write_bytes(trained.metrics_path.read_bytes().splitlines(keepends=True)[0])
    engine = trained.name.removeprefix("damage-")
    done = run_command(
        "train", tiny_recipe, f"run.name={trained.name}", *COMMON, *ENGINES[engine], "--resume",
        processes=1 + (engine == "zero2"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"passed over checkpoint-4: {state.relative_to(checkpoint(trained, 4))} is missing" in done.stdout
    assert "metrics.jsonl lacks row 2 as it was written: rows 1 to 2 are taken from checkpoint-2" in done.stdout
    assert [file.read_bytes() for file in weights if file.exists()] == ended
    again = [{key: row[key] for key in row if "time" not in key and "seconds" not in key} for row in trained.metrics()]
    for ours, theirs in zip(again, rows, strict=True):
        ours.pop("peak_memory_bytes", None), theirs.pop("peak_memory_bytes", None)
        assert ours == theirs
    assert find_damage(checkpoint(trained, 4)) is None
