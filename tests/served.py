"""What tests of `rollout.engine: vllm_server` share: real servers, started by the script, with a token. A plugin."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import clean_environment, slowness, wait_until
from groups_of_processes import kill_group

from rl_posttrain.machine.process import free_port
from rl_posttrain.machine.tools import SERVER_TOKEN

SCRIPT = Path(__file__).parents[1] / "launch" / "vllm_server.sh"
TOKEN = "a-secret-of-the-tests"


class Served:
    """A server of the tests, in a process group of its own."""

    def __init__(self, model: Path, log: Path, port: int, **variables: str):
        self.address, self.port, self.log = f"http://127.0.0.1:{port}", port, log
        environment = clean_environment(
            PYTHON=sys.executable, MODEL=str(model), PORT=str(port), MAX_TOKENS="128", OMP_NUM_THREADS="1",
            VLLM_CPU_KVCACHE_SPACE="1", **{SERVER_TOKEN: TOKEN} | variables,
        )  # fmt: skip
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPT)], env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> "Served":
        """Until it answers."""
        wait_until(lambda: self.process.poll() is not None or self._answers())
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self

    def _answers(self) -> bool:
        time.sleep(0.1)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as asked:
            asked.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b" 200 " in asked.recv(100)
        return False

    def signal(self, number: int) -> None:
        """To all of its processes."""
        if number == signal.SIGKILL:
            kill_group(self.process.pid)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def is_gone(self) -> bool:
        """Whether none of its processes is left."""
        self.process.poll()  # the system keeps a process that nobody has asked for its end
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self, number: int) -> None:
        """Send a signal, and wait for the end of all."""
        self.signal(number)
        self.process.wait(60 * slowness())
        wait_until(self.is_gone)


@pytest.fixture(scope="module")
def servers(tiny_model, tmp_path_factory):
    """Two, for all tests of a file."""
    logs = tmp_path_factory.mktemp("servers")
    started = [Served(tiny_model, logs / f"{number}.log", free_port()) for number in range(2)]
    try:
        yield [server.wait() for server in started]
    finally:
        for server in started:
            server.signal(signal.SIGCONT)
            server.signal(signal.SIGTERM)
        for server in started:
            server.end(signal.SIGTERM)


@pytest.fixture
def starts(tiny_model, tmp_path):
    """Starts a server on a port, as often as a test likes; all end with the test."""
    started = []

    def start(port: int, **variables: str) -> Served:
        started.append(Served(tiny_model, tmp_path / f"{len(started)}.log", port, **variables))
        return started[-1].wait()

    yield start
    for server in started:
        server.signal(signal.SIGCONT)
        server.end(signal.SIGKILL)


@pytest.fixture
def token(monkeypatch):
    """The servers' token, in this process's environment."""
    monkeypatch.setenv(SERVER_TOKEN, TOKEN)
