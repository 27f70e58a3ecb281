"""Where the processes of a run meet: torch's store, which a process on its own opens for this machine alone.

Under torchrun the store is torchrun's. It is kept when torchrun starts the processes again (``--max-restarts``), with
the addresses at which the ended ones could be reached; torch 2.13 lets the new ones read these.
"""

import functools
import importlib
import ipaddress
import os
import socket
from typing import Any


@functools.cache
def prepare_rendezvous() -> None:
    """Let torch's store listen on the loopback address where that is its address, and begin empty at each start.

    Call it before a process group is made. torch would listen on every interface, as torchrun's own store does.
    """
    from torch.distributed import PrefixStore, TCPStore

    # torch.distributed has a function of the module's name.
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    original = rendezvous._create_c10d_store

    def create(hostname: str, port: int, rank: int, world_size: int, timeout: Any, use_libuv: bool = True) -> Any:
        if rendezvous._torchelastic_use_agent_store():
            store = original(hostname, port, rank, world_size, timeout, use_libuv)
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            return store if start == "0" else PrefixStore(f"rl_posttrain/start/{start}", store)
        if rank != 0 or not _is_loopback(hostname):
            return original(hostname, port, rank, world_size, timeout, use_libuv)
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((socket.gethostbyname(hostname), port))
        except OSError:  # this process has a store there already, which torch shares
            server.close()
            return original(hostname, port, rank, world_size, timeout, use_libuv)
        server.listen()
        return TCPStore(
            host_name=hostname,
            port=port,
            world_size=world_size,
            is_master=True,
            timeout=timeout,
            multi_tenant=True,
            master_listen_fd=server.detach(),
            use_libuv=use_libuv,
        )

    rendezvous._create_c10d_store = create


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(hostname)).is_loopback
    except OSError:
        return False
