"""The run directory: nothing is lost or half written whatever happens to the process."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import END_BYTES, to_json, write_atomically

RECIPE = "run: {name: quick}\n"


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "quick", recipe_yaml=RECIPE)


APPEND_FOREVER = """
import itertools, sys
from pathlib import Path
from rl_posttrain.runs.directory import RunDirectory
run = RunDirectory.open(sys.argv[1])
for step in itertools.count(1):
    run.append_metrics({"step": step, "reward": step / 7, "text": "x" * 20_000})
    print(step, flush=True)
"""


def test_rows_that_were_appended_survive_kill_9(run):
    process = subprocess.Popen([sys.executable, "-c", APPEND_FOREVER, run.path], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    last = int((process.stdout.read().split() or [last])[-1])
    process.wait()
    rows = run.metrics()
    # A step whose number was printed had returned from append_metrics; one more may have been written whole.
    assert [row["step"] for row in rows] in ([*range(1, last + 1)], [*range(1, last + 2)])
    assert all(row["reward"] == row["step"] / 7 for row in rows)


def test_a_half_written_last_line_is_left_out(run):
    for step in (1, 2):
        run.append_metrics({"step": step})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 3, "rew')
    assert [row["step"] for row in run.metrics()] == [1, 2]


def test_appending_after_a_half_line_needs_a_rewind_and_gets_one(run):
    run.append_metrics({"step": 1})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "rew')
    run.rewind(1, run.metrics())
    run.append_metrics({"step": 2})
    assert [row["step"] for row in run.metrics()] == [1, 2]


def test_a_damaged_line_in_the_middle_is_named_and_not_skipped(run):
    run.metrics_path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: this line is not JSON"):
        run.metrics()


def test_the_last_row_is_the_newest_finished_step(run):
    assert run.last_row() is None
    for step in (1, 2):
        run.append_metrics({"step": step, "nested": {"text": "{}\n}{"}})
        assert run.last_row() == {"step": step, "nested": {"text": "{}\n}{"}}
    with run.metrics_path.open("a") as file:
        file.write('{"step": 3, "rew')
    assert run.last_row()["step"] == 2
    # A whole object without its line break may still be cut: of 0.53 it might be the 0.5.
    run.metrics_path.write_text('{"step": 1}\n{"step": 2}')
    assert run.last_row() == {"step": 1}


@pytest.mark.parametrize("text", ["", "\n", '{"step": 1', '{"step": 1}'])
def test_there_is_no_last_row_before_the_first_is_whole(run, text):
    run.metrics_path.write_text(text)
    assert run.last_row() is None


@pytest.mark.parametrize("num_bytes", [10, 1000, 40_000, 70_000, 200_000])
def test_the_last_row_of_a_long_file(run, num_bytes):
    # The end that is read may begin inside a row, or inside the only row it meets.
    for step in range(1, 6):
        run.append_metrics({"step": step, "nested": [{"text": "x" * num_bytes}, {"{": 1}]})
    assert run.last_row() == run.metrics()[-1]
    with run.metrics_path.open("a") as file:
        file.write('{"step": 6, "nested": [{"text": "' + "x" * num_bytes)
    assert run.last_row()["step"] == 5


def test_the_end_of_a_long_row_is_no_row_though_it_begins_with_a_brace(run):
    row = {"step": 1, "nested": {"text": ""}}
    row["nested"]["text"] = "x" * (END_BYTES - len('{"text": ""}}\n'))  # so that the end that is read begins there
    run.append_metrics(row)
    assert run.last_row() == row


def test_the_last_row_is_read_from_the_end(run):
    row = json.dumps({"step": 1, "text": "x" * 100}) + "\n"
    with run.metrics_path.open("w") as file:
        file.write("damaged\n" + row * 100_000)
    assert run.last_row()["step"] == 1  # though the file as a whole cannot be read


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_readable_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "summary.json", "{}")
        assert os.umask(umask) == umask  # and it is as it was
    finally:
        os.umask(before)
    assert (tmp_path / "summary.json").stat().st_mode & 0o777 == mode


WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from rl_posttrain.runs.files import write_atomically
for number in itertools.count():
    write_atomically(Path(sys.argv[1]), str(number % 10) * 300_000)
    print(number, flush=True)
"""


def test_a_file_is_old_or_new_and_never_half(tmp_path):
    path = tmp_path / "summary.json"
    for delay_s in (0.0, 0.003, 0.006):
        process = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, path], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(delay_s)  # so that the kill falls on another point of a write each time
        process.send_signal(signal.SIGKILL)
        process.communicate()
        text = path.read_text()
        assert len(text) == 300_000
        assert len(set(text)) == 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, None)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["recipe.yaml"], "is a run already; set another run.name"),
        (["recipe.yaml", "summary.json"], "is a run already"),
        (["notes.txt"], "exists and is not a run"),
    ],
)
def test_create_overwrites_nothing(tmp_path, files, reason):
    folder = tmp_path / "quick"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("old")
    with pytest.raises(RunError, match=rf"run\.name=quick: .*{reason}"):
        RunDirectory.create(folder, recipe_yaml=RECIPE)
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(files, "old")


def test_create_takes_an_empty_folder_and_refuses_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    assert RunDirectory.create(tmp_path / "empty", recipe_yaml=RECIPE).recipe() == {"run": {"name": "quick"}}
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not a run"):
        RunDirectory.create(tmp_path / "file", recipe_yaml=RECIPE)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run\.output_dir=.*file.*: cannot write .*Not a directory; set another folder"):
        RunDirectory.create(tmp_path / "file" / "runs" / "quick", recipe_yaml=RECIPE)


def test_a_run_in_the_working_directory_has_its_name(run, monkeypatch):
    monkeypatch.chdir(run.path)
    assert RunDirectory.open(".").name == "quick"


@pytest.mark.parametrize("content", [b"", b"[1]", b"run: [", b"\xff\xfe"])
def test_a_recipe_that_is_none_is_named(run, content):
    (run.path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"quick/recipe\.yaml: not a recipe"):
        run.recipe()


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": ', b"\xff\xfe"])
def test_damaged_files_of_a_run_are_named(run, content):
    for name, read in (("environment.json", run.environment), ("summary.json", run.summary)):
        (run.path / name).write_bytes(content)
        with pytest.raises(RunError, match=rf"quick/{name}: not a JSON object"):
            read()


def test_open_wants_a_run(tmp_path, run):
    assert RunDirectory.open(str(run.path)).name == "quick"
    with pytest.raises(RunError, match=r"no run at .*nowhere"):
        RunDirectory.open(tmp_path / "nowhere")


def test_a_new_run_has_nothing_to_tell_yet(run):
    assert run.metrics() == []
    assert run.summary() is None
    assert run.environment() == {}
    assert run.last_checkpoint() is None
    with pytest.raises(RunError, match="no rollouts of step 1"):
        run.rollouts(1)


def test_numbers_that_are_not_finite_become_null(run):
    run.append_metrics({"step": 1, "reward": math.nan, "kl": math.inf, "nested": {"list": [1.5, -math.inf, None]}})
    text = run.metrics_path.read_text()
    assert text == '{"step": 1, "reward": null, "kl": null, "nested": {"list": [1.5, null, null]}}\n'


def test_numbers_of_torch_and_numpy_are_plain_numbers():
    import numpy
    import torch

    values = {"a": torch.tensor(2.5), "b": numpy.float32(0.5), "c": numpy.int64(3), "d": torch.tensor(math.nan)}
    assert json.loads(to_json(values)) == {"a": 2.5, "b": 0.5, "c": 3, "d": None}


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 and \udfff alone",
        "\x00\x07\x1b[2J\r\n\t\x7f",
        "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
        "日本 👍 é",
        '"\\',
    ],
    ids=["surrogates", "controls", "line separators", "wide", "quotes"],
)
def test_any_text_survives_being_written(run, text):
    rows = [{"completion": text, "prompt": [{"role": "user", "content": text}]}, {"completion": "second"}]
    run.write_rollouts(7, rows)
    assert run.rollouts(7) == rows
    assert len(run.rollouts_path.joinpath("step_000007.jsonl").read_bytes().split(b"\n")) == 3  # two rows, a line each
    run.append_metrics({"step": 1, "text": text})
    assert run.metrics() == [{"step": 1, "text": text}]
    run.write_summary({"text": text})
    assert run.summary() == {"text": text}


def make_checkpoint(run, step, *, whole=True):
    folder = run.checkpoints_path / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_text("w")
    if whole:
        (folder / "complete").touch()
    return folder


def test_the_last_checkpoint_is_the_newest_whole_one(run):
    make_checkpoint(run, 9)
    tenth = make_checkpoint(run, 10)
    make_checkpoint(run, 11, whole=False)
    (run.checkpoints_path / "checkpoint-final").mkdir()
    (run.checkpoints_path / "final").mkdir()
    assert run.last_checkpoint() == tenth  # by number: 10 comes after 9, not before it as text does


def test_rollouts_are_those_of_an_earlier_step_where_a_step_has_none_of_its_own(run):
    for step in (1, 2, 3, 4):
        run.append_metrics({"step": step})
    for step in (1, 3):
        run.write_rollouts(step, [{"step": step}])
    assert [run.rollouts(step)[0]["step"] for step in (1, 2, 3, 4)] == [1, 1, 3, 3]
    with pytest.raises(RunError, match="no rollouts of step 5"):
        run.rollouts(5)
    for file in run.rollouts_path.iterdir():
        file.unlink()  # to save space
    with pytest.raises(RunError, match="no rollouts of step 2"):
        run.rollouts(2)


def test_dropping_checkpoints_leaves_the_final_model(run):
    run.drop_checkpoints()  # of none
    for step in (2, 10):
        make_checkpoint(run, step)
    make_checkpoint(run, 11, whole=False)
    (run.writing_path / "checkpoint-12").mkdir(parents=True)
    for name in ("final", "checkpoint-mine"):
        (run.checkpoints_path / name).mkdir()
        (run.checkpoints_path / name / "weights").write_text("w")
    run.drop_checkpoints()
    assert sorted(path.name for path in run.checkpoints_path.iterdir()) == ["checkpoint-mine", "final"]
    assert (run.checkpoints_path / "final" / "weights").read_text() == "w"
    assert run.last_checkpoint() is None


def test_rewind_forgets_what_came_after_the_step(run):
    for step in range(1, 6):
        run.write_rollouts(step, [{"step": step}])
        run.append_metrics({"step": step, "seconds": float(step)})
    for step in (2, 3, 4):
        make_checkpoint(run, step)
    (run.checkpoints_path / "final").mkdir()
    (run.writing_path / "checkpoint-5").mkdir(parents=True)  # killed while it was written
    kept = run.metrics()[:3]
    run.rewind(3, kept)
    assert run.metrics() == kept
    assert sorted(path.name for path in run.rollouts_path.iterdir()) == [
        f"step_00000{step}.jsonl" for step in (1, 2, 3)
    ]
    assert sorted(path.name for path in run.checkpoints_path.iterdir()) == ["checkpoint-2", "checkpoint-3", "final"]
    run.rewind(0, [])
    assert run.metrics() == []


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("environment.json", '{"num_processes": "two"}', RunDirectory.environment),
        ("environment.json", '{"packages": []}', RunDirectory.environment),
        ("summary.json", '{"steps": true}', RunDirectory.summary),
    ],
)
def test_a_record_with_a_value_of_another_type_is_damaged(run, name, content, read):
    (run.path / name).write_text(content)
    with pytest.raises(RunError, match=rf"{name}: \w+=.* is of another type; the file is damaged, delete it"):
        read(run)
