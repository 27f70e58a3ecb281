"""The worker process: runs one function on what its parent sends, until the parent is gone.

Started by `workers.WorkerPool` as a command, and so neither a fork of a process that holds a GPU nor a second run of
the user's script. Requests are pickles, as they come from the trainer's own process; what goes back is JSON, so that
nothing a worker was made to say can run in the trainer.
"""

import contextlib
import importlib
import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from rl_posttrain.errors import class_and_message

# Beyond the deadline at which the parent kills: only an orphan lives to see it.
_ORPHAN_GRACE_S = 2.0


def main() -> None:
    location, memory_bytes = sys.argv[1], int(sys.argv[2])
    # What the function prints goes to the standard error; the replies have the standard output for themselves.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # No handler, also not one inherited: the kernel then ends the process in the middle of anything, C code included.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Memory that is written to, and not address space: libraries map far more than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    module, _, name = location.rpartition(":")
    function = getattr(importlib.import_module(module), name)
    _reply(replies, {"ready": True})
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        serve(function, requests, replies, memory_bytes)


def serve(function: Callable, requests: BinaryIO, replies: BinaryIO, memory_bytes: int) -> None:
    """Answer requests until there are no more: 8 bytes of length, then a pickle of the time limit and the arguments."""
    while length := requests.read(8):
        timeout_s, request = pickle.loads(requests.read(int.from_bytes(length, "big")))
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
        reply = _call(function, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Caches that have grown this large are given back with their process.
        reply["retires"] = _resident_bytes() > memory_bytes // 2
        _reply(replies, reply)


def _call(function: Callable, request: bytes) -> dict[str, Any]:
    try:
        value = function(*pickle.loads(request))
        json.dumps(value)
    except Exception as error:
        return {"error": class_and_message(error)}
    return {"value": value}


def _resident_bytes() -> int:
    """Of this process now. Not its peak: Linux counts into that what the parent held when it started this process."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # macOS, which tells the peak in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reply(replies: BinaryIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
