"""Signals that ask a command to end: Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1, by which Slurm warns of the end of a job.

The first one ends what runs now: `Interrupted` is raised in the main thread, at once, or where `Stop.deferred` ends. A
second one ends the process at once. A thread of its own hears the signals: the main thread may be inside of a long call
of C code, where Python cannot raise.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rl_posttrain.errors import Interrupted
from rl_posttrain.machine.process import is_main_process

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# A launcher that gets a signal with its processes passes it on, which makes two of one.
_SAME_SIGNAL_S = 2.0
# Python's own way out may hang: in threads of libraries, or where other processes have ended.
_PATIENCE_S = 15.0
_SHOW_CURSOR = "\x1b[?25h\n"
_PR_SET_PDEATHSIG = 1


class Stop:
    """What this process knows of signals. Without `handled` it hears none.

    Attributes:
        number: the first signal; None before.
        heard: the signals that are handled here.
        pipe: brings their numbers to the thread.
        last_acts: called before a second signal ends the process.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.last_acts: list[Callable[[], None]] = []
        self.heard: tuple[int, ...] = ()
        self.pipe = -1
        self._raises, self._ends, self._said, self._has_answered = True, False, "", False
        self._first_at = 0.0
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    @contextlib.contextmanager
    def deferred(self, said: str) -> Iterator[None]:
        """Inside, a signal is only remembered; what runs inside looks at `number`.

        Args:
            said: printed at the signal.
        """
        self.claim()
        before = self._raises, self._said
        self._raises, self._said = False, said
        try:
            yield
        finally:
            self._raises, self._said = before

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside of `deferred`: what runs inside may be dropped, so a signal raises, also one from before.

        Raises:
            Interrupted: there was a signal.
        """
        self.claim()
        before, self._raises = self._raises, True
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._raises = before

    def check(self) -> None:
        """Outside of `deferred`: raise what was deferred.

        Raises:
            Interrupted: there was a signal.
        """
        with self.interruptible():
            pass

    def claim(self) -> None:
        """Take back what a library may have taken since: the handlers, and the pipe that brings signals."""
        if not self.heard or threading.current_thread() is not threading.main_thread():
            return
        for number in self.heard:
            if signal.getsignal(number) != self.hear:
                signal.signal(number, self.hear)
        signal.set_wakeup_fd(self.pipe, warn_on_full_buffer=False)

    def end(self) -> None:
        """From now on signals are ignored: the process is ending."""
        self._ends, self._raises = True, False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Python's handler, in the main thread."""
        self._remember(number)
        if self._raises:
            self._raises = False
            raise Interrupted(self.number)

    def listen(self, pipe: int) -> None:
        """The thread: reads the numbers of signals as the kernel brings them, until 0."""
        while (number := os.read(pipe, 1)[0]) != 0:
            if number not in self.heard:
                continue
            if number == signal.SIGHUP:
                self._leave_terminals()
            self._remember(number)
            name = signal.Signals(number).name
            if not self._has_answered:
                self._has_answered = True
                if self._said:
                    _say(f"{name}: {self._said}; a second signal exits at once")
                continue
            is_the_same = time.monotonic() - self._first_at < _SAME_SIGNAL_S and "TORCHELASTIC_RUN_ID" in os.environ
            if self._ends or is_the_same:
                continue
            for act in self.last_acts:
                with contextlib.suppress(Exception):
                    act()
            _say(f"{name}: a second signal, so this ends at once")
            if self._terminals:
                os.write(self._terminals[0], _SHOW_CURSOR.encode())
            os._exit(128 + number)

    def _remember(self, number: int) -> None:
        if self.number is None:
            self._first_at, self.number = time.monotonic(), number

    def _leave_terminals(self) -> None:
        """A terminal that is gone must not fail what is still to be done: printing goes nowhere."""
        with open(os.devnull, "w") as nowhere:
            for number in self._terminals:
                os.dup2(nowhere.fileno(), number)


_now: Stop | None = None


@contextlib.contextmanager
def handled() -> Iterator[Stop]:
    """Hear signals inside. Those that the caller ignores (nohup) or handles itself stay as they are.

    Yields:
        What is known of signals; inside of another `handled` the same one. In any but the main thread it hears none.
    """
    global _now
    if _now is not None:
        yield _now
        return
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    ours = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in HEARD if signal.getsignal(number) in ours}
    read, write = os.pipe()
    os.set_blocking(write, False)
    stop = _now = Stop()
    stop.heard, stop.pipe = tuple(before), write
    thread = threading.Thread(target=stop.listen, args=(read,), daemon=True, name="signals")
    thread.start()
    pipe_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    stop.claim()
    _end_with_launcher()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.write(write, b"\0")
        thread.join()
        os.close(read), os.close(write)
        _now = None


def end_soon(status: int) -> None:
    """End the process by force after some seconds, if it has not ended by itself."""

    def end() -> None:
        time.sleep(_PATIENCE_S)
        os._exit(status)

    threading.Thread(target=end, daemon=True, name="end").start()


def _end_with_launcher() -> None:
    """A process of torchrun gets SIGTERM when torchrun is killed. Nobody else would end it."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _say(text: str) -> None:
    if is_main_process():
        with contextlib.suppress(OSError, ValueError):
            # One write, unlike print: the main thread may say its own line at the same moment.
            sys.stderr.write(f"rl-posttrain: {text}\n")
            sys.stderr.flush()
