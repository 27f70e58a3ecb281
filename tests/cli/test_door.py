"""The door that errors leave by: one line, a status, and for a bug a file with the whole traceback."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rl_posttrain.cli.door import through_the_door
from rl_posttrain.errors import RecipeError


@pytest.fixture
def leave(capsys, monkeypatch, tmp_path):
    """What a command that raises an error prints, and its status."""
    monkeypatch.setenv("RL_POSTTRAIN_CACHE", str(tmp_path / "cache"))

    def leave(error: BaseException) -> tuple[str, int]:
        def command() -> None:
            raise error

        with pytest.raises(SystemExit) as end:
            through_the_door(command)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1, "not one line"
        return printed.err.removeprefix("rl-posttrain: ").rstrip("\n"), end.value.code

    return leave


def test_a_mistake_is_its_message(leave):
    assert leave(RecipeError("a=1: no; set 2")) == ("a=1: no; set 2", 2)
    assert leave(RecipeError("a=1\n2: no; set 2")) == (r"a=1\n2: no; set 2", 2)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "runs/x: the disk is full; free some space there"),
        (errno.EDQUOT, "runs/x: your quota of the disk is used up; free some space there"),
        (errno.EACCES, "runs/x: it may not be read or written; change its permissions, or name another place"),
        (errno.EROFS, "runs/x: it cannot be written to; name another place"),
        (errno.ENAMETOOLONG, "runs/x: the name is too long for a file; name a shorter one"),
        (errno.EISDIR, f"runs/x: {os.strerror(errno.EISDIR)}; remove the cause, and try again"),
    ],
)
def test_what_the_system_refuses_is_a_line_and_no_bug(leave, tmp_path, number, told):
    assert leave(OSError(number, os.strerror(number), "runs/x")) == (told, 2)
    assert not (tmp_path / "cache").exists()


def test_a_real_refusal(leave):
    try:
        Path("/dev/full").write_text("x" * 100_000)
    except OSError as error:
        full = error
    assert leave(full) == ("writing or reading a file: the disk is full; free some space there", 2)


@pytest.mark.parametrize("error", [ZeroDivisionError("one by none"), OSError("of some library"), RecursionError()])
def test_a_bug_is_a_line_and_its_traceback_is_in_a_file(leave, tmp_path, error):
    line, status = leave(error)
    assert status == 1
    found = re.fullmatch(r"(.*): this is a bug of ours; please report it with the log at (.*)", line)
    assert found[1].startswith(type(error).__name__)
    log = Path(found[2])
    assert log.parent == tmp_path / "cache/logs"
    assert "Traceback (most recent call last)" in log.read_text()
    assert "raise error" in log.read_text()


def test_where_the_log_cannot_be_in_the_cache_it_is_in_the_temporary_folder(leave, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line, _ = leave(ValueError("x"))
    assert Path(line.rpartition(" at ")[2]).parent == tmp_path


def test_a_long_text_is_cut_in_the_middle(leave):
    line, status = leave(RecipeError(f"a={'x' * 5000}: no; set 2"))
    assert len(line) < 1010
    assert (line[:3], line[-12:], status) == ("a=x", ": no; set 2"[-12:].rjust(12, "x"), 2)


def test_ctrl_c_is_no_bug(leave):
    assert leave(typer.Abort()) == ("interrupted", 130)


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit(), GeneratorExit()])
def test_a_command_that_is_ended_from_within_is_a_bug(leave, error):
    line, status = leave(error)
    assert status == 1
    assert line.startswith(type(error).__name__)
    assert "this is a bug of ours" in line


@pytest.mark.parametrize(
    "printed", ["print('x' * 100, flush=True)", "Console().print('x' * 100)"], ids=["print", "rich"]
)
def test_a_closed_output_is_a_line_and_no_bug(printed):
    code = (
        "from rich.console import Console\nfrom rl_posttrain.cli.door import through_the_door\n"
        f"def run():\n    for _ in range(1000):\n        {printed}\nthrough_the_door(run)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    said = "rl-posttrain: its output was closed before its end, as by `| head`, so it stopped\n"
    assert (done.returncode, done.stderr) == (141, said)


def test_another_pipe_that_breaks_is_not_the_output(leave):
    assert leave(BrokenPipeError(errno.EPIPE, "Broken pipe"))[1] == 2
