"""`curves --follow` and `report --watch` over runs that other processes write."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from conftest import HANG_S, clean_environment, command
from rich.console import Console
from run_writer import RunWriter

from rl_posttrain.study.following import Follower
from rl_posttrain.views.following import watched


class Screen:
    """A command in a terminal of its own."""

    def __init__(self, *arguments):
        self._terminal, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        environment = clean_environment(TERM="xterm-256color")
        self.process = subprocess.Popen(
            command(*arguments), stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)
        self.text, self._seen = "", 0

    def read(self) -> bool:
        """Read what is there; False at the end."""
        if select.select([self._terminal], [], [], 0.1)[0]:
            try:
                got = os.read(self._terminal, 2**16)
            except OSError:
                return False
            self.text += got.decode(errors="replace")
            return bool(got)
        return True

    def wait_for(self, words: str) -> None:
        """Read until the words stand there, after what was waited for before."""
        started = time.monotonic()
        while (place := self.plain.find(words, self._seen)) < 0:
            assert self.read(), self.text[-3000:]
            assert time.monotonic() - started < HANG_S
        self._seen = place + len(words)

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)

    def end(self) -> int:
        while self.read():
            pass
        return self.process.wait()


def test_a_terminal_shows_runs_as_they_go_on_and_new_ones_until_all_have_ended(tmp_path):
    with RunWriter(tmp_path / "a") as first:
        first.add(2)
        screen = Screen("curves", "--follow", tmp_path, "--every-run")
        screen.wait_for("1 running")
        screen.wait_for("step 2/10")
        first.add()
        screen.wait_for("step 3/10")
        with RunWriter(tmp_path / "b", seed=1) as second:
            second.add(4)
            screen.wait_for("2 running")
            first.add(7)
            first.finish()
            screen.wait_for("1 running, 1 finished")
            second.kill()
        assert screen.end() == 0
    assert "b: failed: cut short after 4 of 10 steps" in screen.plain
    assert screen.text.rfind("\x1b[?25h") > screen.text.rfind("\x1b[?25l")  # the cursor is back


def test_ctrl_c_ends_it_with_the_status_of_a_signal(tmp_path):
    with RunWriter(tmp_path / "a") as writer:
        writer.add(2)
        screen = Screen("curves", "--follow", tmp_path / "a")
        screen.wait_for("1 running")
        os.kill(screen.process.pid, signal.SIGINT)
        assert screen.end() == 130
        assert "Traceback" not in screen.plain
        assert screen.text.rfind("\x1b[?25h") > screen.text.rfind("\x1b[?25l")


def test_a_pipe_has_a_line_when_a_run_appears_and_ends_and_then_the_curves(tmp_path, run_main):
    with RunWriter(tmp_path / "a") as writer:
        writer.add(2)

        def end() -> None:
            time.sleep(1)
            writer.add(8)
            writer.finish()

        ending = threading.Thread(target=end)
        ending.start()
        status, out, err = run_main("curves", "--follow", tmp_path / "a")
        ending.join()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["a running   step 2/10   reward 0.150", "a finished   step 10/10   reward 0.800"]
    assert lines[2].startswith("reward")
    assert "\x1b" not in out


def test_what_cannot_be_followed_is_one_line(tmp_path, run_main):
    status, _, err = run_main("curves", "--follow", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    with RunWriter(tmp_path / "a") as writer:
        writer.add()
        status, _, err = run_main("curves", "--follow", tmp_path, "--key", "rewrd")
    assert (status, err.count("\n")) == (2, 1)
    assert "--key=rewrd: no run has recorded it, and no metric has this name; did you mean 'reward'?" in err


def test_a_page_is_written_again_when_something_changed_alone(tmp_path):
    written = []
    with RunWriter(tmp_path / "a") as writer:
        writer.add()
        parts = iter([lambda: None, lambda: None, lambda: writer.add(9), writer.finish])

        class Acting(Follower):
            def look(self):
                look = super().look()
                next(parts, lambda: None)()
                return look

        def write(collection):
            written.append(len(collection.runs[0].columns["step"]))
            return tmp_path / "index.html"

        last = watched(Acting([tmp_path]), write, Console(quiet=True), every_s=0.0)
    assert written == [1, 10]
    assert last.runs[0].finished


@pytest.mark.long
def test_report_watch_for_real(tmp_path, run_main):
    with RunWriter(tmp_path / "a") as writer:
        writer.add(3)
        page = tmp_path / "out" / "index.html"

        def end() -> None:
            while not page.exists():
                time.sleep(0.1)
            assert "Runs go on. This page was written at" in page.read_text()
            writer.add(7)
            writer.finish()

        ending = threading.Thread(target=end)
        ending.start()
        status, out, _ = run_main("report", "--watch", tmp_path / "a", "--out", page.parent)
        ending.join()
    assert status == 0
    assert "1 running" in out.splitlines()[0]
    assert "Runs go on" not in page.read_text()
