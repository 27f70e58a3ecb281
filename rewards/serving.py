"""The worker process: it calls one function on the arguments that its parent sends, until the parent ends.

`workers.WorkerPool` starts it as a command of its own: not as a fork, because the parent may hold a GPU, and not by
multiprocessing, which would run the user's script again. Requests are pickles, because they come from the trainer.
Replies are JSON: whatever a completion makes a worker say, it cannot run code in the trainer.
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

# The parent kills the worker at the time limit. This many seconds later the worker ends itself, if the parent is gone.
_ORPHAN_GRACE_S = 2.0


def main() -> None:
    location, memory_bytes = sys.argv[1], int(sys.argv[2])
    # Replies use the standard output. So what the function prints goes to standard error.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # No handler, not even an inherited one: then the kernel ends the process wherever it is, also in C code.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A limit on written memory and not on address space: libraries map far more memory than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    module, _, name = location.rpartition(":")
    function = getattr(importlib.import_module(module), name)
    _reply(replies, {"ready": True})
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        serve(function, requests, replies, memory_bytes)


def serve(function: Callable, requests: BinaryIO, replies: BinaryIO, memory_bytes: int) -> None:
    """Answer requests until the stream ends. A request: 8 bytes of length, a pickle of time limit and arguments."""
    while length := requests.read(8):
        timeout_s, request = pickle.loads(requests.read(int.from_bytes(length, "big")))
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
        reply = _call(function, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A process whose caches have grown this large is replaced, which frees them.
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
    """Resident memory of this process now. Its peak would be wrong: Linux starts that at what the parent held."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # macOS: the peak is all there is, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reply(replies: BinaryIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
