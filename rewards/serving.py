"""The processes behind `workers.WorkerPool`: a fork server, and the workers that it forks.

The fork server is a command of its own: it does not fork the trainer, which may hold a GPU, and unlike multiprocessing
it does not run the user's script again. It imports one function, with the libraries that the function needs, and then
only forks. So a new worker costs milliseconds, shares the libraries' memory, and begins in the same state as any other.

A worker calls the function on the arguments that the trainer sends, until the trainer closes the connection. Requests
are pickles, because they come from the trainer. Replies are JSON: whatever a completion makes a worker say, it cannot
run code in the trainer.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from rl_posttrain.errors import class_and_message

# What the trainer sends to the fork server: FORK with the worker's connection, or the id of a worker to end. The
# answer: the new worker's id; or how the worker ended, as `os.waitstatus_to_exitcode` says it (0: not one of its own).
NUMBER = struct.Struct("!q")
FORK = 0
# What the trainer sends to a worker, before the pickled arguments: their length in bytes, the time limit in seconds,
# and whether that is CPU time.
HEADER = struct.Struct("!Qd?")
# At a time limit the kernel ends a worker by one of these: of real time, of CPU time.
LIMIT_SIGNALS = (signal.SIGALRM, signal.SIGPROF)
_TO_THE_TRAINER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1


def main() -> None:
    location, memory_bytes, control = sys.argv[1], int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    made_with = sys.argv[4:]
    os.dup2(2, 1)  # what the function prints goes to standard error
    # No handlers, not even inherited ones: then the kernel ends a worker wherever it is, also in C code.
    for limit in LIMIT_SIGNALS:
        signal.signal(limit, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LIMIT_SIGNALS)
    _leave_ending_to_the_trainer()
    os.register_at_fork(after_in_child=_hear_signals_again)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A limit on written memory and not on address space: libraries map far more memory than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    module, _, name = location.rpartition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        if made_with:
            function = function(*made_with)
            _check_can_fork()
    except BaseException as error:  # SystemExit, too
        _refuse(control, class_and_message(error))
        return
    gc.collect()
    gc.freeze()  # garbage collections of the workers do not write to, and so copy, the pages that they share
    connection = _fork_on_request(control)
    if connection is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone
        serve(function, connection, memory_bytes)
    os._exit(0)


def _check_can_fork() -> None:
    """Fail where a fork would not have what importing has made."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("importing its file uses the GPU; use it at the first call of the function")


def _refuse(control: socket.socket, message: str) -> None:
    """Answer the first request with an error: minus the length of the message in bytes, then the message."""
    text = message.encode()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if socket.recv_fds(control, NUMBER.size, 1)[0]:
            control.sendall(NUMBER.pack(-len(text)) + text)


def _leave_ending_to_the_trainer() -> None:
    """Let pass what asks a whole job to end: the trainer may finish its step first, and ends its workers itself.

    Slurm and others signal every process of a job. Processes that a reward starts are none of the trainer's: they
    hear signals as always.
    """
    for number in _TO_THE_TRAINER:
        signal.signal(number, lambda *_: None)


def _hear_signals_again() -> None:
    for number in _TO_THE_TRAINER:
        signal.signal(number, signal.SIG_DFL)


def _fork_on_request(control: socket.socket) -> socket.socket | None:
    """Fork and end workers as the trainer asks. Returns in a worker with its connection, and None after the trainer."""
    workers: set[int] = set()
    server, libc = os.getpid(), ctypes.CDLL(None)
    while True:
        request, connections, *_ = socket.recv_fds(control, NUMBER.size, 1)
        if not request:
            for pid in workers:
                _kill(pid)
            return None
        (pid,) = NUMBER.unpack(request)
        if pid == FORK:
            connection = socket.socket(fileno=connections[0])
            pid = os.fork()
            if pid == 0:
                control.close()
                _leave_ending_to_the_trainer()
                os.setpgid(0, 0)
                if sys.platform == "linux":
                    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                    if os.getppid() != server:
                        os._exit(0)
                return connection
            connection.close()
            workers.add(pid)
            answer = pid
        else:
            answer = 0
            if pid in workers:
                workers.remove(pid)
                _kill(pid)
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            control.sendall(NUMBER.pack(answer))


def _kill(pid: int) -> None:
    """End a worker and all that it started. It may have ended already; nobody else collects it."""
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # it has no group yet; macOS refuses for an ended one
        os.killpg(pid, signal.SIGKILL)


def serve(function: Callable, connection: socket.socket, memory_bytes: int) -> None:
    """Answer requests until the connection ends."""
    with connection.makefile("rb") as requests:
        while header := requests.read(HEADER.size):
            num_bytes, limit_s, is_cpu_time = HEADER.unpack(header)
            request = requests.read(num_bytes)
            timer = signal.ITIMER_PROF if is_cpu_time else signal.ITIMER_REAL
            signal.setitimer(timer, limit_s)
            reply = _call(function, request)
            signal.setitimer(timer, 0)
            # A process whose caches have grown this large is replaced, which frees them.
            reply["retires"] = _resident_bytes() > memory_bytes // 2
            connection.sendall(json.dumps(reply).encode() + b"\n")


def _call(function: Callable, request: bytes) -> dict[str, Any]:
    try:
        value = function(*pickle.loads(request))
        json.dumps(value)
    except BaseException as error:  # SystemExit, too: it ends nothing here
        return {"error": class_and_message(error)}
    return {"value": value}


def _resident_bytes() -> int:
    """Resident memory of this process now. Its peak would be wrong: Linux starts that at what the parent held."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # macOS: the peak is all there is, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
