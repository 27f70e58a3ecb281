"""The trainer's side of the fork server and its workers (serving.py)."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from rl_posttrain.errors import RewardError
from rl_posttrain.rewards.serving import FORK, HEADER, NUMBER

START_LIMIT_S = 180.0
# The server only forks and kills: an answer that takes longer than this will not come.
_ANSWER_LIMIT_S = 30.0
_LEAST_WAIT_S = 1.0
_MAX_FAILED_STARTS = 2


class ForkServer:
    """The process that has imported a function and forks workers for it. Several threads may ask it at a time.

    Args:
        function: ``package.module:name``.
        memory_bytes: memory limit of a worker.
        made_with: if given, `function` is called with it and returns the function of the calls.
        start_limit_s: for its first answer, in seconds.
    """

    def __init__(
        self,
        function: str,
        memory_bytes: int,
        made_with: str | None = None,
        start_limit_s: float = START_LIMIT_S,
    ):
        self.function, self._memory_bytes = function, memory_bytes
        self._made_with, self._start_limit_s = made_with, start_limit_s
        self._where = f"{function}: " if made_with is None else ""  # the caller adds the reward's name
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._has_answered = False

    def start(self) -> None:
        """Start it if it is not there. It imports in the background; nobody waits for it here."""
        with self._lock:
            self._start()

    def fork(self) -> tuple[int, socket.socket]:
        """A new worker: its process id, and the connection to it.

        Raises:
            RewardError: the server ends while it starts, or is not ready in time.
        """
        with self._lock:
            for _ in range(_MAX_FAILED_STARTS):
                self._start()
                ours, theirs = socket.socketpair()
                with theirs:
                    pid = self._ask(FORK, theirs.fileno())
                if pid is not None:
                    return pid, ours
                ours.close()
        raise RewardError(f"{self._where}a reward's worker ended while it started; see its error above")

    def end(self, pid: int) -> int | None:
        """End a worker and all that it started.

        Returns:
            How it ended, which may have been earlier, as `os.waitstatus_to_exitcode` says it; None if the server is
            gone, and with it the worker.
        """
        with self._lock:
            return None if self._process is None else self._ask(pid)

    @property
    def process_id(self) -> int | None:
        """Id of the server's process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End the server and its workers."""
        with self._lock:
            if self._process is None:
                return
            self._control.close()  # then it ends its workers and itself, unless it is still importing
            if self._has_answered:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_ANSWER_LIMIT_S)
            self._kill()

    def forget(self) -> None:
        """In a fork of this process: close what would keep the server alive after this process's parent."""
        if self._control is not None:
            self._control.close()

    def _start(self) -> None:
        if self._process is not None:
            return
        self._control, theirs = socket.socketpair()
        # The parent's module path without the working directory: a random.py there must not hide Python's own.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        command = [sys.executable, "-P", "-c", "from rl_posttrain.rewards.serving import main; main()"]
        made_with = [] if self._made_with is None else [self._made_with]
        with theirs:
            self._process = subprocess.Popen(
                [*command, self.function, str(self._memory_bytes), str(theirs.fileno()), *made_with],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches the trainer alone
            )
        self._has_answered, self._deadline = False, time.monotonic() + self._start_limit_s

    def _ask(self, request: int, *connections: int) -> int | None:
        """The server's answer; None if it has ended, which is noted."""
        left_s = self._deadline - time.monotonic()  # it may have been started long before it is asked
        self._control.settimeout(_ANSWER_LIMIT_S if self._has_answered else max(left_s, _LEAST_WAIT_S))
        try:
            socket.send_fds(self._control, [NUMBER.pack(request)], connections)
            answer = self._control.recv(NUMBER.size)
        except TimeoutError:
            self._kill()
            if not self._has_answered:
                raise RewardError(f"{self._where}importing took longer than {self._start_limit_s:g} s") from None
            raise RewardError(
                f"{self._where}its fork server gave no answer in {_ANSWER_LIMIT_S:.0f} s; is the machine out of memory?"
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:
            self._kill()
            return None
        (number,) = NUMBER.unpack(answer)
        if not self._has_answered and number < 0:  # it could not import; the length of its message
            with self._control.makefile("rb") as reader:
                message = reader.read(-number).decode()
            self._kill()
            raise RewardError(f"{self._where}importing failed: {message}")
        self._has_answered = True
        return number

    def _kill(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._process = None


class Worker:
    """One worker process at a time, and its replacements."""

    def __init__(self, server: ForkServer):
        self._server = server
        self.pid: int | None = None
        self.connection: socket.socket | None = None
        self._heard = b""

    def start(self) -> None:
        """Start the process, if there is none.

        Raises:
            RewardError: as `ForkServer.fork`.
        """
        if self.pid is None:
            self.pid, self.connection = self._server.fork()

    def end(self) -> int | None:
        """End the process, if there is one. Returns how it ended, as `ForkServer.end`."""
        status = None if self.pid is None else self._server.end(self.pid)
        self.forget()
        return status

    def send(self, request: bytes, limit_s: float, *, is_cpu_time: bool) -> None:
        """Send pickled arguments and the time limit of the call in seconds. OSError where the process has ended."""
        self.connection.sendall(HEADER.pack(len(request), limit_s, is_cpu_time) + request)

    def receive(self) -> dict[str, Any] | None:
        """The next reply; None as long as it is incomplete; ``{"ended": True}`` when the worker has ended."""
        try:
            read = self.connection.recv(65536)
        except ConnectionResetError:
            read = b""
        if not read:
            return {"ended": True}
        self._heard += read
        if not self._heard.endswith(b"\n"):
            return None
        reply, self._heard = json.loads(self._heard), b""
        return reply

    def forget(self) -> None:
        """Close the connection and leave the process to itself."""
        if self.connection is not None:
            self.connection.close()
        self.pid, self.connection, self._heard = None, None, b""
