"""How the main process brings weights to its servers: as files, or over the network."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol
from urllib.parse import urlsplit

import torch

from rl_posttrain.errors import EngineError, one_line
from rl_posttrain.rollout.served_run import ServedRun
from rl_posttrain.rollout.server_client import Server, ServerError
from rl_posttrain.rollout.server_guard import is_loopback
from rl_posttrain.rollout.server_loop import Loop, in_thread
from rl_posttrain.rollout.weight_files import folder_of_run, write_files, write_word
from rl_posttrain.rollout.weight_group import Backend, Group, buckets, device_of, listen, own_address

Walk = Iterator[tuple[str, torch.Tensor]]
Load = Callable[[Server, Sequence[str] | None], Coroutine[Any, Any, None]]

_LOOK_AFTER_S = 0.001
# A server whose connection breaks says by its other one what happened, or is gone there, too.
_SAY_S = 1.0
# For what is still under way in a group that is left, and for an answer beyond the server's own limit.
_LEAVE_S = 5.0


def check_transfer(name: str) -> None:
    """Fail on a way that this process cannot go.

    Args:
        name: `rollout.weight_transfer`.

    Raises:
        EngineError: NCCL is asked for, and there is no GPU.
    """
    if name == "nccl" and not torch.cuda.is_available():
        raise EngineError("rollout.weight_transfer=nccl: NCCL joins GPUs, and this process has none; set gloo or files")


class WeightPath(Protocol):
    """What `VLLMServers` needs of either way."""

    async def open(self, server: Server, http: Any, about: Mapping[str, Any]) -> None:
        """Find out whether weights get to a server; a `ServerError` says why they do not.

        Args:
            about: what the server says of itself.
        """

    async def renew(self, server: Server, http: Any) -> None:
        """The same before each sync, of a server that is open."""

    def give(self, servers: Sequence[Server], walk: Walk, version: str, load: Load) -> dict[Server, str]:
        """Bring weights to servers, all at the same time; `walk` is walked to its end.

        Args:
            load: makes a server take files, or with None what its group brings; it ends once the server has them.

        Returns:
            The servers that did not get them, each with the reason.

        Raises:
            EngineError: no server can get them.
        """

    def close(self) -> None:
        """Remove and end what there is."""


class Files:
    """Each server reads the same files.

    Args:
        session: of this process.
    """

    def __init__(self, served: ServedRun, session: str, loop: Loop):
        self._loop, self._dtype, self._session = loop, getattr(torch, served.dtype), session
        self._limit_s = served.timeout_s
        self._context = folder_of_run(served.folder, served.run)
        self._folder = self._context.__enter__()
        self._word = write_word(self._folder, session)

    async def open(self, server: Server, http: Any, about: Mapping[str, Any]) -> None:
        if not (await server.call(http, "can_read", str(self._word), self._session))["same"]:
            raise ServerError(
                f"it does not see {self._folder}, where the weights are put; set rollout.weights_folder to a folder "
                "that this host and the server share, or rollout.weight_transfer=gloo"
            )

    async def renew(self, server: Server, http: Any) -> None:
        pass

    def give(self, servers: Sequence[Server], walk: Walk, version: str, load: Load) -> dict[Server, str]:
        try:
            paths = list(map(str, write_files(self._folder, walk, version, self._dtype)))
            calls = {server: self._loop.start(load(server, paths)) for server in servers}
            return _ended(calls, self._limit_s)
        except OSError as error:
            for _ in walk:  # its parts are gathered from all processes
                pass
            raise EngineError(
                f"rollout.weights_folder={self._folder.parent}: the weights cannot be written there "
                f"({one_line(error, limit=120)}); free some space, or set another folder that the servers see, too"
            ) from None
        finally:
            for path in self._folder.glob("*.safetensors"):
                path.unlink()

    def close(self) -> None:
        self._context.__exit__(None, None, None)


class Groups:
    """A group for each server, so that one that fails breaks no other."""

    def __init__(self, backend: Backend, served: ServedRun, session: str, loop: Loop):
        self._backend, self._served, self._session, self._loop = backend, served, session, loop
        self._device = device_of(backend)
        self._sizes: dict[Server, int] = {}
        self._groups: dict[Server, Group] = {}
        self._leaving: list[threading.Thread] = []

    async def open(self, server: Server, http: Any, about: Mapping[str, Any]) -> None:
        if self._backend == "nccl" and not about["on_gpu"]:
            raise ServerError("it has no GPU, which rollout.weight_transfer=nccl needs; set gloo")
        self._sizes[server] = 1 + about["num_workers"]
        self._leave(server)
        await self.renew(server, http)

    async def renew(self, server: Server, http: Any) -> None:
        if server in self._groups:
            return
        limit_s, size = self._served.timeout_s, self._sizes[server]
        try:
            address = self._served.trainer_address or _address_for(server)
            store, port = listen(address, limit_s)
        except OSError as error:
            raise ServerError(
                f"this command cannot listen for it ({one_line(error, limit=120)}); set rollout.trainer_address to an "
                "address of this host that the server reaches"
            ) from None
        made = in_thread(lambda: Group(self._backend, store, 0, size, address, limit_s + _LEAVE_S, self._device))
        try:
            # Longer than this side waits for a server that hangs: the others wait with it.
            told = self._session, self._backend, address, port, size, 2 * (limit_s + _LEAVE_S)
            problem = (await server.call(http, "join", *told, limit_s=limit_s + _LEAVE_S))["problem"]
            if problem:
                raise ServerError(
                    f"{problem}; set rollout.trainer_address to an address of this host that the server reaches"
                )
            self._groups[server] = await made
        except RuntimeError as error:
            raise ServerError(f"it cannot be connected with for its weights ({_of_torch(error)})") from None
        finally:
            made.cancel()

    def give(self, servers: Sequence[Server], walk: Walk, version: str, load: Load) -> dict[Server, str]:
        calls = {server: self._loop.start(load(server, None)) for server in servers}
        failed: dict[Server, str] = {}
        under_way: dict[Server, list[Any]] = {}
        limit_s, is_over = self._served.timeout_s, False
        try:
            for messages in buckets(walk, version, getattr(torch, self._served.dtype), self._device):
                # The one before travelled while this one was gathered.
                failed |= self._not_arrived(under_way, calls)
                under_way = {
                    server: [self._groups[server].broadcast(message) for message in messages]
                    for server in servers
                    if server not in failed
                }
            failed |= self._not_arrived(under_way, calls)
            failed |= _ended({server: calls[server] for server in under_way if server not in failed}, limit_s)
            is_over = True
        finally:
            for server in failed if is_over else servers:
                calls[server].cancel()
                self._leave(server)
        return failed

    def close(self) -> None:
        for server in list(self._groups):
            self._leave(server)
        for thread in self._leaving:
            thread.join(_LEAVE_S)

    def _not_arrived(
        self, under_way: Mapping[Server, Sequence[Any]], calls: Mapping[Server, Future[None]]
    ) -> dict[Server, str]:
        """Wait until servers have what is under way to them; those that do not get it, with the reason."""
        end = time.monotonic() + self._served.timeout_s
        reasons = {server: self._why_not(works, calls[server], end) for server, works in under_way.items()}
        return {server: reason for server, reason in reasons.items() if reason}

    def _why_not(self, works: Sequence[Any], call: Future[None], end: float) -> str | None:
        """Wait until works are done; what went wrong, if it did. The server's own word comes first."""
        while not all(work.is_completed() for work in works):
            if call.done() or time.monotonic() > end:
                said = f"it took no weights for {self._served.timeout_s:g} s (rollout.server_timeout_s)"
                return _error(call, 0.0) or said
            time.sleep(_LOOK_AFTER_S)
        try:
            for work in works:
                work.wait()
        except RuntimeError as error:
            return _error(call, _SAY_S) or f"the connection for its weights broke ({_of_torch(error)})"
        return None

    def _leave(self, server: Server) -> None:
        if server in self._groups:
            self._leaving = [thread for thread in self._leaving if thread.is_alive()]
            self._leaving.append(self._groups.pop(server).close())


def _address_for(server: Server) -> str:
    """Where this host listens for a server: on its loopback, where the server is there, too.

    Raises:
        OSError: there is no way to the server.
    """
    host = urlsplit(server.address).hostname or ""
    if is_loopback(host):
        return host if ":" in host else "127.0.0.1"
    return own_address(host)


def _ended(calls: Mapping[Server, Future[None]], limit_s: float) -> dict[Server, str]:
    """Wait for calls; those that failed, or did not end and are given up, with the reason."""
    end = time.monotonic() + limit_s
    late = f"it did not take the weights in {limit_s:g} s (rollout.server_timeout_s)"
    reasons = {
        server: _error(call, max(0.0, end - time.monotonic())) or (None if call.done() else late)
        for server, call in calls.items()
    }
    for call in calls.values():
        call.cancel()
    return {server: reason for server, reason in reasons.items() if reason}


def _error(call: Future[None], limit_s: float) -> str | None:
    """Wait for a call; why it failed, None where it did not, or has not ended."""
    with contextlib.suppress(TimeoutError):
        try:
            call.result(limit_s)
        except ServerError as error:
            return str(error)
    return None


def _of_torch(error: RuntimeError) -> str:
    """Its first sentence, without the place in torch's source in front of it."""
    return one_line(RuntimeError(re.sub(r"^\[\S+\] ", "", str(error)).split(". ")[0]), limit=120)
