"""Function calls in worker processes, which are killed at a time limit and replaced.

An alarm signal reaches only the main thread and waits until C code returns, and a thread cannot be killed at all. A
process can. The workers start when they are first needed and take calls from any thread. A fork of this process starts
workers of its own. The workers end when the process that started them ends, in whatever way.
"""

import atexit
import contextlib
import json
import os
import pickle
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rl_posttrain.errors import RewardError, class_and_message
from rl_posttrain.machine.process import cores_per_process

START_LIMIT_S = 180.0
MAX_WORKERS = 16
MAX_FAILED_STARTS = 2


class Outcome(NamedTuple):
    """The outcome of one call. `value` is what the function returned; for `failed` it is the error message."""

    status: Literal["done", "failed", "timeout", "died"]
    value: Any = None


class WorkerPool:
    """Worker processes for one function.

    Args:
        function: ``package.module:name``, imported by each worker. It must return a value that JSON can hold.
        memory_bytes: memory limit of a worker; beyond it the function gets a MemoryError.
        num_workers: most workers at a time; by default this process's share of the CPU cores.
    """

    def __init__(self, function: str, *, memory_bytes: int, num_workers: int | None = None):
        self._function, self._memory_bytes = function, memory_bytes
        self.num_workers = num_workers or min(MAX_WORKERS, cores_per_process())
        self._open()
        os.register_at_fork(after_in_child=self._leave_to_parent)
        atexit.register(self.close)

    def run(self, calls: Sequence[tuple], *, timeout_s: float, keys: Sequence[Hashable] | None = None) -> list[Outcome]:
        """Call the function on each tuple of arguments, several at a time.

        Args:
            calls: N tuples of positional arguments, which must be picklable.
            timeout_s: time limit of each call in seconds; a worker that exceeds it is killed and replaced.
            keys: N keys. As long as all workers are busy, calls of one key go to one worker, which can then cache.

        Returns:
            N outcomes in the order of the calls.

        Raises:
            RewardError: a worker does not start, or the arguments cannot be pickled.
        """
        if not calls:
            return []
        # Pickled before a worker is taken: a failure here is the caller's mistake.
        try:
            requests = [pickle.dumps((timeout_s, pickle.dumps(call))) for call in calls]
        except Exception as error:
            raise RewardError(
                f"{self._function}: its arguments cannot be handed to a worker ({class_and_message(error)})"
            ) from error
        queue = _Queue(keys if keys is not None else range(len(calls)))
        with self._borrow(len(calls)) as workers:
            return _Batch(workers, queue, requests, timeout_s).finish()

    @property
    def process_ids(self) -> list[int]:
        """Ids of the running workers."""
        return [worker.process.pid for worker in self._all if worker.is_running]

    def close(self) -> None:
        """End all workers; a later call starts new ones."""
        for worker in self._all:
            worker.stop()

    def _open(self) -> None:
        self._changed = threading.Condition()
        self._all = [_Worker(self._function, self._memory_bytes) for _ in range(self.num_workers)]
        self._idle = list(self._all)

    def _leave_to_parent(self) -> None:
        # The child must close its ends of the pipes: open ones would keep the workers alive after their parent.
        for worker in self._all:
            worker.forget()
        self._open()

    @contextlib.contextmanager
    def _borrow(self, num_wanted: int) -> Iterator[list["_Worker"]]:
        with self._changed:
            while not self._idle:
                self._changed.wait()
            workers, self._idle = self._idle[:num_wanted], self._idle[num_wanted:]
        try:
            yield workers
        except BaseException:
            # Otherwise the next batch could read a reply to this one.
            for worker in workers:
                worker.stop()
            raise
        finally:
            with self._changed:
                self._idle += workers
                self._changed.notify_all()


class _Queue:
    """Indices of the calls that are still to make. A worker takes all calls of a key before it takes another key."""

    def __init__(self, keys: Sequence[Hashable]):
        groups: dict[Hashable, deque[int]] = {}
        for place, key in enumerate(keys):
            groups.setdefault(key, deque()).append(place)
        self._untouched = deque(groups.values())
        self._taken: dict[_Worker, deque[int]] = {}

    def next_for(self, worker: "_Worker") -> int | None:
        own = self._taken.get(worker)
        if not own:
            own = self._untouched.popleft() if self._untouched else max(self._taken.values(), key=len, default=None)
            if own is not None:
                self._taken[worker] = own
        return own.popleft() if own else None

    def put_back(self, worker: "_Worker", place: int) -> None:
        self._taken[worker].appendleft(place)


class _Batch:
    """One batch of calls on borrowed workers."""

    def __init__(self, workers: list["_Worker"], queue: _Queue, requests: list[bytes], timeout_s: float):
        self._workers, self._queue, self._requests, self._timeout_s = workers, queue, requests, timeout_s
        self._outcomes: list[Outcome | None] = [None] * len(requests)
        self._num_open = len(requests)
        self._calls: dict[_Worker, tuple[int, float]] = {}  # index of the call, and its deadline

    def finish(self) -> list[Outcome]:
        with selectors.DefaultSelector() as self._selector:
            for worker in self._workers:
                if not worker.is_running:
                    worker.restart()
                self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            while self._num_open:
                for worker in self._workers:
                    if worker.is_ready and worker not in self._calls:
                        self._give(worker)
                self._wait()
        return self._outcomes

    def _give(self, worker: "_Worker") -> None:
        place = self._queue.next_for(worker)
        if place is None:
            return
        try:
            worker.send(self._requests[place])
        except BrokenPipeError:  # it died while it was idle, not because of this call
            self._queue.put_back(worker, place)
            self._replace(worker)
            return
        self._calls[worker] = place, time.monotonic() + self._timeout_s

    def _wait(self) -> None:
        limits = [deadline for _, deadline in self._calls.values()]
        limits += [worker.started + START_LIMIT_S for worker in self._workers if not worker.is_ready]
        for key, _ in self._selector.select(max(0.0, min(limits) - time.monotonic())):
            self._hear(key.data)
        now = time.monotonic()
        for worker, (_, deadline) in list(self._calls.items()):
            if now >= deadline:
                self._end(worker, Outcome("timeout"))
                self._replace(worker)
        late = [worker for worker in self._workers if not worker.is_ready and now >= worker.started + START_LIMIT_S]
        if late:
            raise RewardError(
                f"a reward worker was not ready after {START_LIMIT_S:.0f} s; is the machine out of memory?"
            )

    def _hear(self, worker: "_Worker") -> None:
        reply = worker.receive()
        if reply is None:
            return
        if "ready" in reply:
            worker.is_ready, worker.num_failed_starts = True, 0
        elif "ended" in reply:
            worker.num_failed_starts += not worker.is_ready
            if worker.num_failed_starts == MAX_FAILED_STARTS:
                raise RewardError(f"{worker.function}: a worker ended while it started; see its error above")
            if worker in self._calls:
                self._end(worker, Outcome("died"))
            self._replace(worker)
        else:
            failed = "error" in reply
            self._end(worker, Outcome("failed" if failed else "done", reply["error" if failed else "value"]))
            if reply["retires"]:
                self._replace(worker)

    def _end(self, worker: "_Worker", outcome: Outcome) -> None:
        place, _ = self._calls.pop(worker)
        self._outcomes[place] = outcome
        self._num_open -= 1

    def _replace(self, worker: "_Worker") -> None:
        """Start a new process at once, even when no call is left: then it is ready for the next batch."""
        self._selector.unregister(worker.process.stdout)
        worker.restart()
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)


class _Worker:
    """One worker process at a time, and its replacements."""

    def __init__(self, function: str, memory_bytes: int):
        self.function, self._memory_bytes = function, memory_bytes
        self.num_failed_starts = 0
        self.process: subprocess.Popen | None = None
        self.is_ready = False
        self.started = 0.0
        self._heard = b""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def restart(self) -> None:
        self.stop()
        # The parent's module path without the working directory: a random.py there must not hide Python's own.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rl_posttrain.rewards.serving", self.function, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches the trainer alone; killing the group ends what a reward started
        )
        self.started = time.monotonic()

    def send(self, request: bytes) -> None:
        data = memoryview(len(request).to_bytes(8, "big") + request)
        while data:
            data = data[self.process.stdin.write(data) :]

    def receive(self) -> dict[str, Any] | None:
        """The next reply; None as long as it is incomplete; ``{"ended": True}`` when the worker has ended."""
        read = os.read(self.process.stdout.fileno(), 65536)
        if not read:
            return {"ended": True}
        self._heard += read
        if not self._heard.endswith(b"\n"):
            return None
        reply, self._heard = json.loads(self._heard), b""
        return reply

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
        self.forget()

    def forget(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
        self.process, self.is_ready, self._heard = None, False, b""


_pools: dict[str, WorkerPool] = {}
_pools_lock = threading.Lock()


def pool_for(function: str, *, memory_bytes: int) -> WorkerPool:
    """This process's pool for a function; made at the first call."""
    with _pools_lock:
        if function not in _pools:
            _pools[function] = WorkerPool(function, memory_bytes=memory_bytes)
        return _pools[function]
