"""Processes that start at once: forks of one process that has imported torch, transformers, TRL, vLLM and DeepSpeed.

These imports take 15 to 20 seconds of a core, more than most tests that need a process of their own. A fork begins with
the imported modules and with nothing else: no engine, no process group, no random state that another test has moved.
`conftest.py` is the only user. Run as a script, this file is the process that forks.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

IMPORTED = (
    "torch._dynamo", "torch.distributed.fsdp", "transformers.models.llama.modeling_llama", "datasets", "deepspeed",
    "peft", "vllm", "vllm.v1.worker.gpu_worker", "trl.trainer.grpo_trainer", "matplotlib.pyplot",
    "rl_posttrain.training.train", "rl_posttrain.training.loop", "rl_posttrain.rollout.vllm", "rl_posttrain.views.live",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1


class Fork:
    """A forked process, with the part of `subprocess.Popen` that tests use.

    Args:
        argv: as after `python`: a script and its arguments, `-c` with code, or `-m` with a module.
        environment: all of it.
        stdout, stderr: open files.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], stdout: IO, stderr: IO):
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_socket())
        request = json.dumps({"argv": list(argv), "environment": dict(environment), "folder": os.getcwd()}).encode()
        length = len(request).to_bytes(8, "big")
        socket.send_fds(self._connection, [length], [stdout.fileno(), stderr.fileno()])
        self._connection.sendall(request)
        self.pid = int(self._answer())

    def wait(self) -> int:
        """The exit status; negative for a signal."""
        if self.returncode is None:
            self.returncode = int(self._answer())
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit status, None while the process runs."""
        if self.returncode is None and not select.select([self._connection], [], [], 0)[0]:
            return None
        return self.wait()

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended since, and its status is on its way
                os.kill(self.pid, signal.SIGKILL)

    def _answer(self) -> bytes:
        """One line, which arrives whole: it is shorter than what a socket ever cuts."""
        answer = self._connection.recv(64)
        assert answer.endswith(b"\n"), "the forking process has ended"
        return answer


@functools.cache
def start() -> tuple[subprocess.Popen, str]:
    """This session's process that forks, which ends with this process, and its socket. It has yet to import."""
    path = str(Path(tempfile.mkdtemp(prefix="forks-"), "socket"))
    # The driver must not be touched before the fork.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    command = [sys.executable, __file__, path]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    atexit.register(server.communicate)
    return server, path


@functools.cache
def _socket() -> str:
    """The socket, once the imports are done."""
    server, path = start()
    assert server.stdout.readline() == "ready\n", "the process that forks could not import what tests need"
    return path


def serve(path: str) -> dict:
    """Fork for every connection until the standard input ends. Returns in a fork alone: what it is to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            heard, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in heard:
                shutil.rmtree(Path(path).parent)
                os._exit(0)
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    return _start(connection)


def _start(connection: socket.socket) -> dict:
    """Fork once more: this process waits to tell the exit status of the other, which runs what was asked for."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, *_ = socket.recv_fds(connection, 8, 2)
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(2**20)
    pid = os.fork()
    if pid:
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    _end_with_parent()
    for ours, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(file, ours)
    return json.loads(request)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(argv: list[str], environment: dict[str, str], folder: str) -> None:
    """What `python` does with its command line, and what torch reads of the environment when it is imported."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", cores_per_process())))
    kind, *rest = argv
    if kind == "-m":
        sys.argv, sys.path[0] = rest, folder
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = argv, str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    from rl_posttrain.machine.process import cores_per_process, prepare_process, use_cpu_if_no_gpu

    prepare_process(verbose=False)
    use_cpu_if_no_gpu()
    import torch

    for name in IMPORTED:
        importlib.import_module(name)
    # What was imported stays: garbage collections of the forks need not look at it.
    gc.freeze()
    request, status = serve(sys.argv[1]), 1
    try:
        run(**request)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.last_value = error  # as Python does where nobody catches it
        sys.excepthook(type(error), error, error.__traceback__)
    # Python's own way out takes all modules apart, for seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
