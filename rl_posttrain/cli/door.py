"""The one door that errors leave by: a line on stderr and an exit status; of a bug, also a file with the traceback."""

import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import typer

from rl_posttrain.errors import Interrupted, RlPosttrainError, class_and_message, refusal
from rl_posttrain.machine.peers import OTHER_PROCESS_ENDED, who_ended
from rl_posttrain.machine.process import is_main_process, world_size
from rl_posttrain.machine.signals import HEARD, Stop, end_soon, handled
from rl_posttrain.machine.tools import cache_folder

# Exit statuses; of a signal it is `Interrupted.status`. docs/resuming.md has the table.
BUG, MISTAKE, INTERRUPTED, OUTPUT_CLOSED = 1, 2, 130, 141
# How a collective fails when another process has ended: classes of torch.distributed, and texts of gloo and NCCL.
_COLLECTIVE_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
_COLLECTIVE_TEXTS = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe", "nccl")
# For the launcher to see which process ended first, and to end this one.
_BEHIND_THE_FIRST_S = 5.0
_LONGEST, _END = 1000, 250
# Its public subclass is the one way to this class that every version of typer has.
_UsageError = typer.BadParameter.__base__


def through_the_door(run: Callable[[], object]) -> NoReturn:
    """Call `run` and end the process: with its status, or with one line on stderr for whatever it raises."""
    threading.excepthook = _of_a_thread
    with handled() as stop:
        _through(run, stop)


def _through(run: Callable[[], object], stop: Stop) -> NoReturn:
    try:
        status = run()
    except Interrupted as stopped:
        stop.end()
        if not is_main_process():
            _leave(stopped.status)
        _end(str(stopped), stopped.status)
    except RlPosttrainError as error:
        if _is_of_another_process(error.__cause__):
            _end_behind_another(error)
        _end(str(error), MISTAKE)
    except _UsageError as error:
        message = error.format_message().rstrip(".?").replace(". Did", ", did")
        _end(f"{message[0].lower()}{message[1:]}; see `{error.ctx.command_path} --help`", MISTAKE)
    except typer.Abort:
        _end("interrupted", INTERRUPTED)
    except BaseException as error:  # a library's SystemExit, too: the command has not come to its end
        if _is_of_another_process(error):
            _end_behind_another(error)
        if _is_of_closed_output(error):
            sys.stdout = None  # at its end Python would write the rest there
            _end("its output was closed before its end, as by `| head`, so it stopped", OUTPUT_CLOSED)
        if isinstance(error, OSError) and error.errno is not None:
            _end(refusal(error), MISTAKE)
        where = _keep_traceback(error)
        _end(f"{class_and_message(error)}: this is a bug of ours; please report it with {where}", BUG)
    sys.exit(status)


def _of_a_thread(failed: threading.ExceptHookArgs) -> None:
    """A line for what a library's thread raises. TensorBoard's raises it again where the main thread writes."""
    error = failed.exc_value
    if isinstance(error, OSError) and error.errno is not None:
        typer.echo(f"a thread could not go on: {refusal(error)}", err=True)
    elif error is not None:
        typer.echo(f"a thread failed: {class_and_message(error)}; see {_keep_traceback(error)}", err=True)


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback whole into a file; what to say of it. Without any place for a file, it goes to stderr."""
    text = "".join(traceback.format_exception(error))
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{sys.argv}\n\n{text}", encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"the log at {folder / name}"
    typer.echo(text, err=True)
    return "the traceback above"


def _folders() -> Iterator[Path]:
    yield cache_folder() / "logs"
    yield Path(tempfile.gettempdir())


def _end(message: str, status: int) -> NoReturn:
    message = "\\n".join(message.splitlines())  # a value of the user's may have several lines
    if len(message) > _LONGEST:  # what to do stands at the end
        message = f"{message[: _LONGEST - _END]} [...] {message[-_END:]}"
    message = message.encode("utf-8", "backslashreplace").decode("utf-8")
    typer.echo(f"rl-posttrain: {message}", err=True)
    _tell_torchrun(message)
    _leave(status)


def _tell_torchrun(message: str) -> None:
    """torchrun ends with a table of what failed: the line stands there, too, below all that others have printed."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": said}), encoding="utf-8")


def _leave(status: int) -> NoReturn:
    if world_size() > 1:
        end_soon(status)
    sys.exit(status)


def _is_of_closed_output(error: BaseException) -> bool:
    """Whether the standard output is a pipe whose other end is closed. A pipe to an engine may break, too."""
    if isinstance(error, SystemExit):  # of rich, which has put another output in the place of the pipe
        return isinstance(error.__context__, BrokenPipeError)
    output = select.poll()
    output.register(1, 0)
    return isinstance(error, BrokenPipeError) and any(events & select.POLLERR for _, events in output.poll(0))


def _is_of_another_process(error: BaseException | None) -> bool:
    """Whether a collective failed because another process of this run has ended."""
    if world_size() == 1:
        return False
    while error is not None:
        said = str(error).lower()
        if type(error).__name__ in _COLLECTIVE_ERRORS:
            return True
        if isinstance(error, RuntimeError) and any(text in said for text in _COLLECTIVE_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_behind_another(error: BaseException) -> NoReturn:
    """Let the launcher see first which process has ended, and wait for its SIGTERM."""
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)
    rank = os.environ.get("RANK", "0")
    typer.echo(
        f"rl-posttrain: process {rank} of {world_size()}: {who_ended()}, so this one ends, too; see what that one "
        f"said; what this one saw is in {_keep_traceback(error)}",
        err=True,
    )
    time.sleep(_BEHIND_THE_FIRST_S)
    _leave(OTHER_PROCESS_ENDED)
