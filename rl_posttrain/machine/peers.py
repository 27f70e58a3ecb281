"""Whether the other processes of a run live, on whatever machine they are.

A launcher sees the processes of its own machine alone, and a collective notices a dead process only once it waits for
it: gloo at once, NCCL after minutes. So each process holds a connection to the first one. The kernel closes the
connections of a process that dies, and asks after a machine that is silent.
"""

import contextlib
import functools
import importlib
import itertools
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn

from rl_posttrain.errors import EngineError, Interrupted, one_line
from rl_posttrain.machine.process import is_main_process, world_size
from rl_posttrain.machine.rendezvous import prepare_rendezvous

OTHER_PROCESS_ENDED = 3  # the exit status
# A silent machine is given up after 10 + 5 * 5 seconds. With _PATIENCE_S all have ended within a minute.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 5, "TCP_USER_TIMEOUT": 35_000}
# Until then a process may end by itself, as a collective tells it to, with more to say.
_PATIENCE_S = 15.0
# Processes import torch before they come here: minutes, from a slow disk.
_JOIN_S = 600.0
_HELLO_S = 5.0
# A collective may fail a moment before this process is told who has ended.
_TOLD_S = 1.0
_GOODBYE = "goodbye"

_numbers = itertools.count()
_ended = ""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside, this process ends soon after another one of the run, with status 3 and a line that names that one.

    All processes enter it equally often, before there is a process group. Those that leave it without an error, or by
    the same signal, do not count as ended.

    Raises:
        EngineError: the first process cannot be reached.
    """
    if world_size() == 1:
        yield
        return
    watch = _Watch()
    try:
        yield
        watch.say_goodbye()
    except Interrupted:
        watch.say_goodbye()
        raise
    except BaseException:
        watch.told.wait(_TOLD_S)
        raise
    finally:
        watch.close()


def who_ended() -> str:
    """What is known of the process that has ended before this one."""
    return _ended or "another process of this run has ended"


class _Watch:
    """The connections of this process, and the thread that reads them.

    The first process hears all others, and tells the others which one has ended.
    """

    def __init__(self) -> None:
        self.told, self._closed = threading.Event(), threading.Event()
        self._others: dict[int, tuple[socket.socket, str]] = {}  # by rank; with the name of its machine
        self._listener: socket.socket | None = None
        if is_main_process():
            self._listen()
        else:
            self._connect()
        # A forked child would keep the connections open after this process has died.
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def say_goodbye(self) -> None:
        self._send_all(_GOODBYE)

    def _send_all(self, said: str) -> None:
        for connection, _ in list(self._others.values()):
            with contextlib.suppress(OSError):
                connection.sendall(f"{said}\n".encode())

    def close(self) -> None:
        self._closed.set()
        self._forget()

    def _forget(self) -> None:
        for connection in [self._listener, *(connection for connection, _ in self._others.values())]:
            if connection is not None:
                connection.close()

    def _listen(self) -> None:
        self._listener = socket.socket()
        try:
            self._listener.bind((socket.gethostbyname(_address()), 0))
        except OSError:  # an address of a router or a service in front of this machine
            self._listener.bind(("", 0))
        self._listener.listen(world_size())
        self._token = secrets.token_hex(16)
        _store().set(_key(), f"{self._listener.getsockname()[1]} {self._token}")

    def _connect(self) -> None:
        address = _address()
        try:
            port, token = _store().get(_key()).decode().split()
            connection = socket.create_connection((address, int(port)), timeout=_JOIN_S)
            connection.settimeout(None)
            _keep_alive(connection)
            connection.sendall(f"{token} {os.environ['RANK']} {socket.gethostname()}\n".encode())
        except (OSError, RuntimeError) as error:
            raise EngineError(
                f"MASTER_ADDR={address}: process {os.environ['RANK']}, on {socket.gethostname()}, cannot reach the "
                f"first process of the run there ({one_line(error, limit=200)}); see what that one said, and whether "
                "the machines reach each other at all ports"
            ) from error
        self._others[0] = connection, address

    def _watch(self) -> None:
        global _ended
        try:
            _ended = self._wait()
        except (OSError, ValueError):  # closed by this process itself
            return
        self.told.set()
        if is_main_process():
            self._send_all(_ended)
        if not self._closed.wait(_PATIENCE_S):
            _end()

    def _wait(self) -> str:
        """Wait until a process has ended that has not said goodbye: which one, in words.

        Raises:
            ValueError: this process has closed its connections.
        """
        poll, ranks, come_until = select.poll(), {}, time.monotonic() + _JOIN_S
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        for rank, (connection, _) in self._others.items():
            poll.register(connection, select.POLLIN)
            ranks[connection.fileno()] = rank
        come = {0, *self._others}
        while not self._closed.is_set():
            if self._listener is not None and len(come) < world_size() and time.monotonic() > come_until:
                missing = next(rank for rank in range(world_size()) if rank not in come)
                return f"process {missing} has not come within {_JOIN_S:.0f} s"
            for number, _ in poll.poll(1000):
                if self._closed.is_set():
                    break
                if number not in ranks:
                    if (rank := self._accept()) is not None:
                        come.add(rank)
                        connection = self._others[rank][0]
                        poll.register(connection, select.POLLIN)
                        ranks[connection.fileno()] = rank
                    continue
                rank = ranks[number]
                connection, place = self._others[rank]
                said = _line(connection)
                if said == f"{_GOODBYE}\n":
                    poll.unregister(number)
                    del ranks[number], self._others[rank]
                    connection.close()
                elif said.endswith("\n"):
                    return said.strip()
                else:
                    return f"process {rank} on {place} has ended"
        raise ValueError("closed")

    def _accept(self) -> int | None:
        """The rank of the process that connects; None for whoever does not know the token."""
        connection, _ = self._listener.accept()
        connection.settimeout(_HELLO_S)
        words = _line(connection).split()
        if len(words) != 3 or not secrets.compare_digest(words[0], self._token):
            connection.close()
            return None
        connection.settimeout(None)
        _keep_alive(connection)
        self._others[int(words[1])] = connection, words[2]
        return int(words[1])


def _address() -> str:
    """Where the first process is reached."""
    is_here = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    return "127.0.0.1" if is_here else os.environ["MASTER_ADDR"]


def _line(connection: socket.socket) -> str:
    """A line, to its end; less than one where the connection is closed or broken."""
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < 1000 and not said.endswith(b"\n") and (byte := connection.recv(1)):
            said += byte
    return said.decode(errors="replace")


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # Linux has them all
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@functools.cache
def _store() -> Any:
    """The store that the process group will use, too: torchrun's, else the first process's, which must stay open."""
    prepare_rendezvous()
    rendezvous = importlib.import_module("torch.distributed.rendezvous")  # torch.distributed has a function of its name
    port, rank = int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
    return rendezvous._create_c10d_store(
        os.environ["MASTER_ADDR"], port, rank, world_size(), timedelta(seconds=_JOIN_S), True
    )


def _key() -> str:
    """Of this entry into `watched`."""
    return f"rl_posttrain/peers/{next(_numbers)}"


def _end() -> NoReturn:
    rank = os.environ["RANK"]
    sys.stderr.write(
        f"rl-posttrain: process {rank} of {world_size()}: {_ended}, so this one ends, too; see what that one said\n"
    )
    sys.stderr.flush()
    os._exit(OTHER_PROCESS_ENDED)
