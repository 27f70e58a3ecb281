"""Running a user's code, such as a reward, so that it can neither end the process nor change the run in silence.

Within `contained` whatever would end the process raises `NotAllowed` instead. What the code changes of the process is
put back afterwards: working directory, standard streams, signal handlers, timers, logging, random numbers and torch's
modes. C code is out of reach: a crash, or C's own `exit`, still ends the process.
"""

import contextlib
import functools
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rl_posttrain.errors import RlPosttrainError, class_and_message


class NotAllowed(Exception):
    """The user's code did what would end the run. The message says what, as ``called os._exit(0)``."""


class _Trapped(BaseException):
    """Raised in place of ending the process. It is no `Exception`, which the user's code may catch."""


def reason_of(error: BaseException) -> str:
    """``called os._exit(0), which would end the process``, or ``ValueError: the message``; on one line."""
    return str(error).removeprefix("raised ") if isinstance(error, NotAllowed) else class_and_message(error)


def what_it_did(error: BaseException) -> str:
    """``called os._exit(0), which would end the process``, or ``raised ValueError: the message``; on one line."""
    return str(error) if isinstance(error, NotAllowed) else f"raised {class_and_message(error)}"


def call_users(
    function: Callable,
    *arguments: Any,
    where: str,
    fix: str,
    kind: type[RlPosttrainError],
    seed: int | None = None,
    **named: Any,
) -> Any:
    """Call a user's function, contained. What it raises becomes an error of `kind`: ``where: what it did; fix``.

    Our own errors pass: a task of a user may raise a RecipeError that says more.
    """
    try:
        with contained(seed):
            return function(*arguments, **named)
    except RlPosttrainError:
        raise
    except Exception as error:
        raise kind(f"{where}: {what_it_did(error)}; {fix}") from error


@contextlib.contextmanager
def contained(seed: int | None = None) -> Iterator[None]:
    """Within runs code of the user's.

    Args:
        seed: of random, numpy and torch within; None leaves them as they stand. Afterwards they stand as before.

    Raises:
        NotAllowed: the code would have ended the process, or closed a standard stream. Its other exceptions pass, and
            so does the Ctrl-C of a user.
    """
    process = os.getpid()
    with _signals_kept() as interrupts, _process_kept(), _random_kept(seed), _torch_kept(), _ends_trapped():
        try:
            yield
        except Exception:
            _end_fork(process, 1)
            raise
        except BaseException as error:
            _end_fork(process, error.code if isinstance(error, SystemExit) else 1)
            if interrupts or (type(error).__module__.startswith("rl_posttrain.") and not isinstance(error, _Trapped)):
                raise
            said = str(error) if isinstance(error, _Trapped) else f"raised {type(error).__name__}({_code(error)})"
            raise NotAllowed(f"{said}, which would end the process") from error
        _end_fork(process, 0)


def _code(error: BaseException) -> str:
    return ", ".join(map(repr, error.args))[:200]


def _end_fork(process: int, code: Any) -> None:
    """End a child that the user's code forked and let run on: it would train beside its parent."""
    if os.getpid() != process:
        _REAL["_exit"](code if isinstance(code, int) else int(code is not None))


def _hits_us(target: Any) -> bool:
    """Whether a signal to `target`, as os.kill has it, reaches this process."""
    return target in (os.getpid(), 0, -1, -os.getpgrp())


# What ends this process, with the condition on its arguments. Forked children may end as they like.
_ENDS: dict[tuple[Any, str], Callable[..., bool]] = {
    (os, "_exit"): lambda *_: True,
    (os, "abort"): lambda *_: True,
    (os, "execv"): lambda *_: True,
    (os, "execve"): lambda *_: True,
    (os, "kill"): lambda target=None, number=0, *_: bool(number) and _hits_us(target),
    (os, "killpg"): lambda group=None, number=0, *_: bool(number) and group in (0, os.getpgrp()),
    (signal, "raise_signal"): lambda *_: True,
}
_REAL: dict[str, Callable] = {name: getattr(module, name) for module, name in _ENDS}
_lock, _depth = threading.Lock(), 0


@contextlib.contextmanager
def _ends_trapped() -> Iterator[None]:
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            for (module, name), ends in _ENDS.items():
                setattr(module, name, _trap(f"{module.__name__}.{name}", _REAL[name], ends, os.getpid()))
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                for module, name in _ENDS:
                    setattr(module, name, _REAL[name])


def _trap(name: str, real: Callable, ends: Callable[..., bool], process: int) -> Callable:
    @functools.wraps(real)
    def trapped(*arguments: Any, **named: Any):
        # Our own code may end the process: a second Ctrl-C does, in a handler.
        is_ours = sys._getframe(1).f_globals.get("__name__", "").startswith("rl_posttrain.")
        if is_ours or os.getpid() != process or not ends(*arguments):
            return real(*arguments, **named)
        raise _Trapped(f"called {name}({', '.join(map(str, arguments))[:200]})")

    return trapped


# Signals whose handlers are put back after the user's code.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT")
    if hasattr(signal, name)
]


@contextlib.contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """Handlers and timers are put back. Gives a list that is not empty once the user interrupted this process."""
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield interrupts
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    on_interrupt = handlers[signal.SIGINT]
    has_timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0  # a worker's limit, which ends it
    within = dict(handlers)

    def note_interrupt(number, frame):
        interrupts.append(number)
        return on_interrupt(number, frame)

    def on_alarm(number, frame) -> NoReturn:
        raise _Trapped("set an alarm that it does not handle")

    if callable(on_interrupt):
        within[signal.SIGINT] = note_interrupt
    if handlers[signal.SIGALRM] is signal.SIG_DFL and not has_timer:
        within[signal.SIGALRM] = on_alarm
    for number, handler in within.items():
        if handler is not handlers[number]:
            signal.signal(number, handler)
    try:
        yield interrupts
    finally:
        if not has_timer:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Working directory, standard streams and logging are put back."""
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    were_closed = {name for name, stream in streams.items() if getattr(stream, "closed", True)}
    disabled, folder = logging.root.manager.disable, _working_directory()
    try:
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        logging.root.manager.disable = disabled
        if folder is not None and _working_directory() != folder:
            os.chdir(folder)
    for name, stream in streams.items():
        if getattr(stream, "closed", True) and name not in were_closed:
            raise NotAllowed(f"closed sys.{name}, which the run needs")


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


@contextlib.contextmanager
def _random_kept(seed: int | None) -> Iterator[None]:
    """The run's random numbers stay what they would be without the user's code."""
    numpy, torch = _loaded("numpy", "random"), _loaded("torch", "default_generator")
    put_back: list[tuple[Callable, Any]] = [(random.setstate, random.getstate())]
    if numpy is not None:
        put_back.append((numpy.random.set_state, numpy.random.get_state()))
    if torch is not None:
        put_back.append((torch.set_rng_state, torch.get_rng_state()))
        if torch.cuda.is_initialized():
            put_back.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if seed is not None:
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed % 2**32)
        if torch is not None:
            torch.default_generator.manual_seed(seed)
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        for put, state in put_back:
            put(state)


@contextlib.contextmanager
def _torch_kept() -> Iterator[None]:
    """torch's modes are put back: gradients, default type and device, threads."""
    torch = _loaded("torch", "get_default_device")
    if torch is None:
        yield
        return
    gradients, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    device = torch.get_default_device()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)


def _loaded(name: str, last: str) -> Any:
    """A module, if it is imported to its end: then it has the attribute `last`."""
    module = sys.modules.get(name)
    return module if hasattr(module, last) else None
