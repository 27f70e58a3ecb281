"""`optim run`: somebody's program as it is, with another optimizer in every trainer of its processes."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rl_posttrain.errors import RecipeError, RlPosttrainError, refusal
from rl_posttrain.optim import injected
from rl_posttrain.optim.swapped import NAME, NOTES, OPTIONS, are_complete, begin_notes, judge, read_notes, say, tell

# What a process may be asked by; the program is asked in its place.
_PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


def run_program(words: Sequence[str], name: str, options: Mapping[str, Any]) -> int:
    """Run a program with the optimizer `name` in every `Trainer`, and print which optimizer ran in which trainer.

    Args:
        words: what a shell would be given: a program and its arguments; or a script's path, or the words of a python
            command from its first option on (``-m`` and a module, ``-u train.py``), which this Python runs.
        name, options: as `use_optimizer` takes them; checked already.

    Returns:
        The program's exit status; of a signal 128 and its number, as shells count it.

    Raises:
        RecipeError: there is no such program.
        RlPosttrainError: a trainer could not be swapped, or the program ended well and no trainer ran the optimizer.
    """
    command = find_program(words)
    path = [str(Path(injected.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        NAME: _from_anywhere(name),
        OPTIONS: json.dumps(dict(options)),
        "PYTHONPATH": os.pathsep.join(path),
    }
    with _folder_of_notes() as folder:
        status = _wait_for(command, {**os.environ, **variables, **({NOTES: str(folder)} if folder else {})})
        if folder is None:  # each process that nobody reads tells by itself
            return status
        try:
            complete, (notes, refusals) = are_complete(folder), read_notes(folder)
        except OSError as error:
            say(f"which optimizer ran where is not known: {refusal(error)}; the program ended with status {status}")
            return status
    for line in tell(name, notes):
        say(line)
    error = judge(name, notes, refusals, ended_well=status == 0 and complete)
    if error:
        raise RlPosttrainError(error)
    return status


@contextmanager
def _folder_of_notes() -> Iterator[Path | None]:
    """A folder for notes, or None where there is no room for one, which is said: the program runs all the same."""
    with ExitStack() as stack:
        try:
            # A process in the background may still write there at the end.
            made = tempfile.TemporaryDirectory(prefix="rl-posttrain-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            begin_notes(folder)
        except OSError as error:
            say(f"no line at the end says which optimizer ran: {refusal(error)}")
            folder = None
        yield folder


def find_program(words: Sequence[str]) -> list[str]:
    """The command line to start, from what a user writes.

    Raises:
        RecipeError: there is no such script, module or program.
    """
    first = words[0]
    if first == "-m":
        if len(words) < 2 or not _has_module(words[1].partition(".")[0]):
            raise RecipeError(f"{' '.join(words[:2])}: no such module; name one that python -m runs")
        return [sys.executable, *words]
    if first.startswith("-"):  # an option of python
        return [sys.executable, *words]
    if first.endswith(".py"):
        if not Path(first).is_file():
            raise RecipeError(f"{first}: no such file; give the script's path")
        return [sys.executable, *words]
    # An environment that is not activated has its programs beside Python.
    found = shutil.which(first) or shutil.which(first, path=os.path.dirname(sys.executable))
    if found is None:
        raise RecipeError(f"{first}: no such program; give one on PATH, a script.py, or -m and a module")
    return [found, *words[1:]]


def _from_anywhere(name: str) -> str:
    """The same optimizer in whatever folder a process is: a file's path made whole."""
    file, colon, attribute = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{attribute}" if colon and file.endswith(".py") else name


def _has_module(package: str) -> bool:
    sys.path.insert(0, os.getcwd())  # as python -m has it
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
    finally:
        del sys.path[0]


def _wait_for(command: list[str], environment: dict[str, str]) -> int:
    """Run the command to its end. Signals go to it; ignored ones (nohup) stay ignored."""
    child: subprocess.Popen | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        # A terminal has sent it to both: the program is in its foreground, too.
        if number in _FROM_KEYBOARD and _is_in_foreground():
            return
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    with _handled_by(pass_on):
        child = subprocess.Popen(command, env=environment)
        for number in early:
            child.send_signal(number)
        status = child.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """This process neither ends by a signal nor hears of it otherwise."""
    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    wakeup = signal.set_wakeup_fd(-1)
    for number, earlier in before.items():
        if earlier is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        signal.set_wakeup_fd(wakeup)


def _is_in_foreground() -> bool:
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # no terminal
        return False
