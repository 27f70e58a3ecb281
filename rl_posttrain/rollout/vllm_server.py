"""vLLM servers as one rollout engine: completions over HTTP, weights as `server_weights.py` brings them.

The main process gives weights to all servers and reads them back; every process samples its own prompts. A server that
fails is left out, and its prompts go to the others, until it has the weights of a later sync.
"""

import asyncio
import atexit
import contextlib
import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from rl_posttrain.errors import EngineError, EngineLost
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import Held, Sampling
from rl_posttrain.rollout.served_run import ServedRun, misfit
from rl_posttrain.rollout.server_client import Server, ServerError, check_addresses
from rl_posttrain.rollout.server_loop import Loop, together
from rl_posttrain.rollout.server_weights import Files, Groups, WeightPath, check_transfer
from rl_posttrain.rollout.server_worker import unpack

# What a server has for its last request, which nothing depends on.
_FAREWELL_S = 5.0


class VLLMServers:
    """Servers that are checked and this run's; every process makes one, and the main process claims the servers.

    Args:
        addresses: of the servers, in the order in which prompts are dealt.
        note: tells the user which server is left out, and which is back.

    Raises:
        EngineError: on the main process: a server cannot be reached, or is not for this run. At the start all must be
            there: an address with a mistake would not be noticed otherwise.
    """

    shares_weights = False
    samples_alone = True
    gives_logprobs = True

    def __init__(self, addresses: Sequence[str], served: ServedRun, note: Callable[[str], None]):
        self._served, self._note = served, note
        self._servers = [Server(address, served.timeout_s) for address in addresses]
        self._session, self._version = f"{time.time_ns():020}-{secrets.token_hex(4)}", ""
        self._num_syncs = self._num_calls = 0
        self._parameters: set[str] = set()
        self._identities: dict[Server, str] = {}
        self.depends_on_batch = True
        self._sampling = threading.Lock()
        self._from_main: Callable[[Callable[[], Any]], Any] = lambda find: find()
        check_addresses(addresses)
        check_transfer(served.weight_transfer)
        self._loop = Loop()
        self._ends = contextlib.ExitStack()
        if is_main_process():
            atexit.register(self.close)
            self._path = self._ends.enter_context(contextlib.closing(self._way_of_weights()))
            for server, error in self._loop.run(self._of_each(self._open, self._servers)):
                if error:
                    self.close()
                    raise EngineError(f"rollout.servers: {server.address}: {error}")
                server.left_out = None
            if same := self._listed_twice():
                self.close()
                raise EngineError(f"rollout.servers: {' and '.join(same)} are one server; keep one of them")
            self._loop.repeat(self._keep_leases, served.lease_s / 4)

    def joined(self, of_main_process: Callable[[Callable[[], Any]], Any]) -> "VLLMServers":
        """This engine, once processes can talk to each other.

        Args:
            of_main_process: what a function gives on the main process, on every process; a collective.
        """
        self._from_main = of_main_process
        self._session, self._parameters, self.depends_on_batch = of_main_process(
            lambda: (self._session, self._parameters, self.depends_on_batch)
        )
        return self

    @property
    def metrics(self) -> dict[str, float]:
        """How many servers are in use."""
        return {"servers_in_use": float(len(self._in_use()))}

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """As `RolloutEngine.generate`; from any thread, while the servers keep their weights."""
        if unknown := sorted(set(sampling.other) - self._parameters):
            raise EngineError(
                f"trl.generation_kwargs={dict(sampling.other)}: vLLM's server takes no {unknown[0]}; leave it out"
            )
        options = {name: value for name, value in vars(sampling).items() if name != "other"} | dict(sampling.other)
        with self._sampling:
            self._num_calls += 1
            return self._loop.run(self._draw(prompts, seeds, options))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """As `RolloutEngine.load_weights`; a collective. It waits until nothing is sampled any more."""
        with self._sampling:
            self._num_syncs += 1
            self._version = f"{self._session}-{self._num_syncs}"
            refused = None
            if is_main_process():
                refused = self._give(weights)
            else:
                for _ in weights:  # its parts are gathered from all processes
                    pass
            reasons, refused = self._from_main(lambda: ([server.left_out for server in self._servers], refused))
            for server, reason in zip(self._servers, reasons, strict=True):
                server.left_out = reason
        if refused:
            raise EngineError(refused)
        self._require_one()

    def fingerprint(self, columns: Mapping[str, Sequence[int] | None]) -> Iterator[Held]:
        """As `RolloutEngine.fingerprint`, of every server in use; on the main process, which has given the weights."""
        if not is_main_process():
            return
        asked = json.dumps({name: wanted and list(wanted) for name, wanted in columns.items()})
        found: dict[str, list[dict]] = {}

        async def read(server: Server, http: Any) -> None:
            found[server.address] = await server.call(http, "read", asked)

        for server, error in self._loop.run(self._of_each(read, self._in_use())):
            if error:
                self._leave_out(server, error)
        self._require_one()
        names = {address: {(held["name"], held["place"]) for held in read} for address, read in found.items()}
        every = set.union(*names.values())
        if short := next((address for address, has in names.items() if has != every), None):
            missing = sorted(every - names[short])[0][0]
            raise EngineError(
                f"rollout.servers: {short}: {missing} cannot be read back from it, as from the other servers; start "
                "all servers alike"
            )
        for address, read_back in found.items():
            for held in read_back:
                yield unpack(held, f"{held['place']} on {address}")

    def close(self) -> None:
        """Give the servers back, and remove the files."""
        atexit.unregister(self.close)
        if self._loop.is_open and is_main_process():

            async def give_back(server: Server, http: Any) -> None:
                await server.call(http, "claim", self._served.run, self._session, 0, retries=False, limit_s=_FAREWELL_S)

            self._loop.run(self._of_each(give_back, self._servers))
        self._loop.close()
        self._ends.close()

    def _in_use(self) -> list[Server]:
        return [server for server in self._servers if server.left_out is None]

    def _listed_twice(self) -> list[str]:
        """Addresses of one and the same server, if there is such."""
        by_identity: dict[str, list[str]] = {}
        for server in self._servers:
            by_identity.setdefault(self._identities[server], []).append(server.address)
        return next((addresses for addresses in by_identity.values() if len(addresses) > 1), [])

    def _require_one(self) -> None:
        """Raise an `EngineLost` where no server can be used."""
        if not self._in_use():
            said = "; ".join(f"{server.address}: {server.left_out}" for server in self._servers)
            raise EngineLost(f"rollout.servers: no server can be used ({said}); start them again")

    def _leave_out(self, server: Server, reason: str) -> None:
        if server.left_out is None:
            self._note(f"{server.address} is left out until the next sync: {reason}")
        server.left_out = reason

    async def _of_each(
        self, act: Callable[[Server, Any], Coroutine[Any, Any, None]], servers: Sequence[Server]
    ) -> list[tuple[Server, str | None]]:
        """Do something with several servers at the same time: each with the reason why it failed, or None."""

        async def tried(server: Server) -> str | None:
            try:
                await act(server, self._loop.http)
            except ServerError as error:
                return str(error)
            return None

        return list(zip(servers, await asyncio.gather(*map(tried, servers)), strict=True))

    async def _open(self, server: Server, http: Any) -> None:
        """Check a server, and make it this run's.

        Raises:
            ServerError: it is not for this run.
        """
        served = self._served
        about = await server.call(http, "describe")
        if said := misfit(about, served):
            raise ServerError(said)
        claimed = await server.call(http, "claim", served.run, self._session, served.lease_s)
        if not claimed["granted"]:
            raise ServerError(
                f"it is in use by the run {claimed['run']}, for {claimed['seconds']:g} s more unless that is heard of; "
                "end it, wait, or start another server"
            )
        await self._path.open(server, http, about)
        self._parameters, self._identities[server] = set(about["parameters"]), about["identity"]
        self.depends_on_batch = not about["on_gpu"]

    def _way_of_weights(self) -> WeightPath:
        if self._served.weight_transfer == "files":
            return Files(self._served, self._session, self._loop)
        return Groups(self._served.weight_transfer, self._served, self._session, self._loop)

    def _give(self, weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
        """Bring weights to all servers that take them; why that cannot be done, if it cannot."""
        reached = []
        for server, error in self._loop.run(self._of_each(self._reach, self._servers)):
            self._leave_out(server, error) if error else reached.append(server)
        try:
            failed = self._path.give(reached, iter(weights), self._version, self._load)
        except EngineError as error:
            return str(error)
        for server in reached:
            if server in failed:
                self._leave_out(server, failed[server])
                continue
            if server.left_out:
                self._note(f"{server.address} is back, with the weights of this step")
            server.left_out = None
        return None

    async def _reach(self, server: Server, http: Any) -> None:
        is_expected = server.left_out is None
        state = await server.call(http, "state", self._session, self._served.lease_s, retries=is_expected)
        if state["is_held"]:
            await self._path.renew(server, http)
        else:
            await self._open(server, http)  # it was started again, or was not heard of for long

    async def _load(self, server: Server, paths: Sequence[str] | None) -> None:
        served, http = self._served, self._loop.http
        told = self._session, self._version, served.lease_s, paths
        loaded = await server.call(http, "load", *told, retries=paths is not None, is_limited=paths is not None)
        if loaded["version"] != self._version:
            run = loaded["run"]
            raise ServerError(f"the run {run} took it meanwhile" if run else "it was started again meanwhile")

    async def _keep_leases(self) -> None:
        async def keep(server: Server, http: Any) -> None:
            limit_s = self._served.lease_s / 4  # one that hangs must not cost the others their lease
            await server.call(http, "state", self._session, self._served.lease_s, retries=False, limit_s=limit_s)

        await self._of_each(keep, self._servers)

    async def _draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[Completion]:
        """All completions; what a failing server should have drawn is dealt to the others."""
        drawn: dict[int, Completion] = {}
        while missing := [place for place in range(len(prompts)) if place not in drawn]:
            self._require_one()
            servers = self._in_use()
            parts = {server: part for server, part in zip(servers, _dealt(missing, len(servers)), strict=True) if part}

            async def draw(server: Server, http: Any, parts: Mapping[Server, list[int]] = parts) -> None:
                part = parts[server]
                await self._check_version(server, http)
                wanted = [
                    server.complete(http, prompts[place], seeds[place], options | self._salt(place)) for place in part
                ]
                completions = await together(wanted, self._served.timeout_s, one_by_one=self._served.one_by_one)
                # Whatever happened to the server meanwhile shows here, and none of these is used then.
                await self._check_version(server, http)
                drawn.update(zip(part, completions, strict=True))

            for server, error in await self._of_each(draw, list(parts)):
                if error:
                    self._leave_out(server, error)
        return [drawn[place] for place in range(len(prompts))]

    def _salt(self, place: int) -> dict[str, str]:
        """What was computed for a prompt is used again in this call, and in no other one.

        One by one it is used for no other completion: which of them a server has drawn before must not matter.
        """
        own = [str(place)] if self._served.one_by_one else []
        return {"cache_salt": "-".join([self._version, str(self._num_calls), *own])}

    async def _check_version(self, server: Server, http: Any) -> None:
        state = await server.call(http, "state", self._session, self._served.lease_s)
        if state["version"] is None:
            raise ServerError("it has lost this step's weights, as after a restart")
        if state["version"] != self._version:
            raise ServerError(f"it has other weights than this step's, from the run {state['run']}")


def _dealt(places: Sequence[int], number: int) -> list[list[int]]:
    """`places` in `number` parts of neighbours, whose sizes differ by one at most: groups of a prompt stay together."""
    ends = [len(places) * part // number for part in range(number + 1)]
    return [list(places[start:end]) for start, end in itertools.pairwise(ends)]
