"""Weights over the network: torch's process group of the trainer's main process and one server's workers.

Gloo and NCCL take the same way. The trainer, which is rank 0, sends buckets of weights, and a description in front of
each. Unlike vLLM's own communicator a group of torch can be waited for with a time limit, and left.
"""

import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal

import torch

Backend = Literal["gloo", "nccl"]

# Large enough that its description costs nothing, and small enough beside a model: two of them are under way at a time.
_BYTES_A_BUCKET = 2**26
# Where a tensor starts in a bucket, so that it can be seen in any dtype.
_ALIGNMENT = 16
_CONNECT_S = 5.0
# Read by torch when a group is made: its own watch over NCCL must give a broken group up, and not end the process.
_NCCL_ERRORS, _GIVE_UP = "TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"
_environment = threading.Lock()


class Group:
    """A process's place in a group; it returns once all have come.

    Args:
        backend: what moves the weights; ``nccl`` between GPUs, of which each process has one.
        store: by which the processes find each other.
        rank, size: of the group.
        address: of this process, where gloo listens.
        limit_s: until all have come, and for each message.
        device: where messages stand: see `device_of`.

    Raises:
        RuntimeError: the others did not come, or cannot be reached.
    """

    def __init__(
        self, backend: Backend, store: Any, rank: int, size: int, address: str, limit_s: float, device: torch.device
    ):
        self.device, self._limit = device, timedelta(seconds=limit_s)
        if backend == "nccl":
            torch.cuda.set_device(device)  # of this thread
        make = {"gloo": _gloo, "nccl": _nccl}[backend]
        self._group = make(store, rank, size, address, self._limit)
        # NCCL connects with the first message.
        self.wait(self.broadcast(torch.zeros(1, device=device)))

    def broadcast(self, tensor: torch.Tensor) -> Any:
        """Begin to send what rank 0 has in `tensor`, or to receive it on the others; the work that `wait` waits for."""
        from torch.distributed import BroadcastOptions

        options = BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        options.asyncOp = True
        return self._group.broadcast([tensor], options)

    def wait(self, work: Any) -> None:
        """Wait for a work, for the group's time limit."""
        work.wait(self._limit)

    def close(self) -> threading.Thread:
        """Leave the group, whatever is under way: in a thread, for gloo ends what it has begun, or its time limit."""
        held, self._group = [self._group], None

        def leave() -> None:
            if self.device.type == "cuda":
                held[0].abort()
            held.clear()  # the last that holds it

        leaving = threading.Thread(target=leave, name="leaving", daemon=True)
        leaving.start()
        return leaving


def device_of(backend: Backend) -> torch.device:
    """Where a backend takes messages from: main memory, or this process's GPU."""
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")


def listen(address: str, limit_s: float) -> tuple[Any, int]:
    """A store of torch that listens at this host's `address` alone, and its port.

    Raises:
        OSError: it cannot listen there.
    """
    from torch.distributed import TCPStore

    family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.bind(place)
        server.listen()
        port = server.getsockname()[1]
    except OSError:
        server.close()
        raise
    # Told only a port, torch would listen on all of this host's addresses.
    store = TCPStore(
        address, port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=limit_s),
        master_listen_fd=server.detach(),
    )  # fmt: skip
    return store, port


def join(backend: Backend, address: str, port: int, rank: int, size: int, limit_s: float) -> Group:
    """The group of a trainer that listens at `address`.

    Raises:
        OSError, RuntimeError: it cannot be reached.
    """
    from torch.distributed import TCPStore

    # torch would try for the whole time limit.
    with socket.create_connection((address, port), timeout=_CONNECT_S) as probe:
        own = probe.getsockname()[0]
    store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=limit_s))
    return Group(backend, store, rank, size, own, limit_s, device_of(backend))


def own_address(peer: str) -> str:
    """This host's address on the way to another one.

    Raises:
        OSError: there is no way.
    """
    family, _, _, _, place = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect(place)
        return probe.getsockname()[0]


def buckets(
    weights: Iterable[tuple[str, torch.Tensor]], version: str, dtype: torch.dtype, device: torch.device
) -> Iterator[list[torch.Tensor]]:
    """The messages of each bucket of `weights`, those of floating point in `dtype`; at last those that end them."""
    flat, size, number = None, 0, 0
    held: list[tuple[str, str, list[int], int]] = []
    for name, tensor in weights:
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        num_bytes = tensor.numel() * wanted.itemsize
        if flat is not None and size + num_bytes > flat.numel():
            yield _messages({"version": version, "weights": held}, flat[:size])
            flat, size, held = None, 0, []
        if flat is None:
            flat = torch.empty(max(_BYTES_A_BUCKET, num_bytes), dtype=torch.uint8, device=device)
        flat[size : size + num_bytes].view(wanted).view(tensor.shape).copy_(tensor.detach())
        held.append((name, str(wanted).removeprefix("torch."), list(tensor.shape), size))
        size = min(flat.numel(), -(-(size + num_bytes) // _ALIGNMENT) * _ALIGNMENT)
        number += 1
    if flat is not None:
        yield _messages({"version": version, "weights": held}, flat[:size])
    yield _messages({"version": version, "number": number}, torch.empty(0, dtype=torch.uint8, device=device))


def receive(group: Group, version: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights that rank 0 sends by `buckets`.

    Raises:
        ValueError: they are of another version, or not all of them came.
        RuntimeError: the connection broke, or nothing came for the group's time limit.
    """

    def message(size: int, dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.empty(size, dtype=dtype, device=group.device)
        group.wait(group.broadcast(tensor))
        return tensor

    number = 0
    while True:
        text_size, size = message(2, torch.int64).tolist()
        said = json.loads(message(text_size, torch.uint8).cpu().numpy().tobytes())
        if said["version"] != version:
            raise ValueError(f"the trainer sends the weights of version {said['version']}, not of {version}")
        if "weights" not in said:
            if number != said["number"]:
                raise ValueError(f"{number} weights came of {said['number']}")
            return
        flat = message(size, torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
        for name, dtype_name, shape, start in said["weights"]:
            dtype = getattr(torch, dtype_name)
            end = start + torch.Size(shape).numel() * dtype.itemsize
            yield name, flat[start:end].view(dtype).view(shape)
            number += 1


def _messages(said: dict[str, Any], flat: torch.Tensor) -> list[torch.Tensor]:
    """What `receive` expects: two sizes, a description, and the values, if there are any."""
    text = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8).to(flat.device)
    sizes = torch.tensor([text.numel(), flat.numel()], device=flat.device)
    return [sizes, text, flat] if flat.numel() else [sizes, text]


def _gloo(store: Any, rank: int, size: int, address: str, limit: timedelta) -> Any:
    from torch.distributed import ProcessGroupGloo

    options = ProcessGroupGloo._Options()
    options._timeout = limit
    options._devices = [ProcessGroupGloo.create_device(hostname=address)]
    options._threads = 1  # messages stay in order
    return ProcessGroupGloo(store, rank, size, options)


def _nccl(store: Any, rank: int, size: int, address: str, limit: timedelta) -> Any:
    from torch.distributed import ProcessGroupNCCL

    options = ProcessGroupNCCL.Options()
    options._timeout = limit
    with _environment:
        before = os.environ.get(_NCCL_ERRORS)
        os.environ[_NCCL_ERRORS] = _GIVE_UP
        try:
            return ProcessGroupNCCL(store, rank, size, options)
        finally:
            os.environ.pop(_NCCL_ERRORS)
            if before is not None:
                os.environ[_NCCL_ERRORS] = before
