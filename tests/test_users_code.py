"""A user's code can neither end the process nor change the run in silence."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_posttrain import users_code
from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import load_object
from rl_posttrain.users_code import NotAllowed, call_users, contained, what_it_did


def raise_(error: BaseException):
    raise error


def alarm():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(5)


ENDS = {
    "raised SystemExit(0)": lambda: sys.exit(0),
    "raised SystemExit()": lambda: raise_(SystemExit()),
    "raised SystemExit('text')": lambda: sys.exit("text"),
    "raised KeyboardInterrupt()": lambda: raise_(KeyboardInterrupt()),
    "raised GeneratorExit()": lambda: raise_(GeneratorExit()),
    "called os._exit(0)": lambda: os._exit(0),
    "called os.abort()": lambda: os.abort(),
    "called os.kill({process}, 9)": lambda: os.kill(os.getpid(), 9),
    f"called os.kill(0, {int(signal.SIGTERM)})": lambda: os.kill(0, int(signal.SIGTERM)),
    "called os.kill(-1, 15)": lambda: os.kill(-1, 15),
    "called os.killpg({group}, 9)": lambda: os.killpg(os.getpgrp(), 9),
    "called signal.raise_signal(9)": lambda: signal.raise_signal(9),
    "called os.execv(b'/bin/true', ['true'])": lambda: os.execvp("true", ["true"]),
    "set an alarm that it does not handle": alarm,
}


@pytest.mark.parametrize("said", ENDS)
def test_whatever_would_end_the_process_is_an_error_that_names_it(said, monkeypatch):
    monkeypatch.setenv("PATH", "/bin")

    def catches_what_it_meets():
        with contextlib.suppress(Exception):
            ENDS[said]()

    with pytest.raises(NotAllowed) as caught, contained():
        catches_what_it_meets()
    did = said.format(process=os.getpid(), group=os.getpgrp())
    assert what_it_did(caught.value) == f"{did}, which would end the process"


def test_an_error_passes_and_a_ctrl_c_of_the_user_too():
    with pytest.raises(ZeroDivisionError), contained():
        _ = 1 / 0

    def interrupted():
        users_code._REAL["kill"](os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt), contained():
        interrupted()
    with pytest.raises(RecipeError, match=r"^task.name=x: raised ZeroDivisionError: division by zero; correct it$"):
        call_users(lambda: 1 / 0, where="task.name=x", fix="correct it", kind=RecipeError)


def test_what_the_code_changes_of_the_process_is_put_back(tmp_path):
    def state():
        handlers = [signal.getsignal(number) for number in users_code._SIGNALS]
        modes = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), torch.get_default_device()
        exits = os._exit, os.kill, os.abort
        streams = sys.stdin, sys.stdout, sys.stderr
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
        return os.getcwd(), logging.root.manager.disable, handlers, modes, exits, streams, drawn

    def seed_all(seed):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    seed_all(3)
    before = state()
    seed_all(3)
    with contained():
        os.chdir(tmp_path)
        sys.stdin = sys.stdout = sys.stderr = None
        logging.disable(logging.CRITICAL)
        for number in users_code._SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(torch.get_num_threads() + 1)
        seed_all(9)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert state() == before
    assert {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM} <= set(
        users_code._SIGNALS
    )  # of machine.signals


def test_what_it_draws_follows_from_the_seed():
    def draw(seed):
        with contained(seed):
            return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw(2**55)
    random.random(), np.random.rand(), torch.rand(1)
    assert draw(2**55) == first
    assert not set(draw(1)) & set(first)


def test_a_closed_stream_is_named():
    mine = sys.stdout
    try:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        with pytest.raises(NotAllowed, match=r"^closed sys\.stdout, which the run needs$"), contained():
            sys.stdout.close()
    finally:
        sys.stdout = mine


FORKS = """
import os, sys
from rl_posttrain.users_code import contained
with contained():
    child = os.fork()
    if child == 0 and sys.argv[1] == "exit":
        sys.exit(3)
    if child == 0 and sys.argv[1] == "_exit":
        os._exit(3)
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print("once", flush=True)
"""


@pytest.mark.parametrize(("how", "status"), [("return", 0), ("exit", 3), ("_exit", 3)])
def test_a_child_that_the_code_forks_does_not_run_on(how, status):
    done = subprocess.run([sys.executable, "-c", FORKS, how], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(status), "once"]


@pytest.mark.parametrize(
    "line", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise KeyboardInterrupt", "quit()"]
)
def test_a_file_that_would_end_the_process_when_it_is_imported_is_named(tmp_path: Path, line):
    path = tmp_path / "mine.py"
    path.write_text(f"{line}\ndef reward(completions): return [0.0]\n")
    with pytest.raises(RecipeError, match=r"which would end the process$") as caught:
        load_object(f"{path}:reward", table={}, key="rewards.0.fn")
    assert str(caught.value).startswith(f"rewards.0.fn={path}:reward: running {path} failed: ")
