"""Function calls in worker processes, which end at a time limit and are replaced.

An alarm signal reaches only the main thread and waits until C code returns, and a thread cannot be killed at all. A
process can. A fork server that has imported the function makes the workers (serving.py): to replace one costs
milliseconds, and a new one has no trace of the call that was ended. The workers start when they are first needed and
take calls from any thread. A fork of this process starts workers of its own. The workers end when the process that
started them ends, in whatever way.
"""

import atexit
import contextlib
import os
import pickle
import threading
import time
from collections.abc import Hashable, Iterator, Sequence

from rl_posttrain.errors import RewardError, class_and_message
from rl_posttrain.machine.process import cores_per_process
from rl_posttrain.rewards.batches import Batch, Outcome, Rounds
from rl_posttrain.rewards.processes import START_LIMIT_S, ForkServer, Worker

MAX_WORKERS = 16


class WorkerPool:
    """Worker processes for one function.

    Args:
        function: ``package.module:name``, imported once. It must return a value that JSON can hold.
        made_with: if given, `function` is called with it, once, and returns the function of the calls.
        start_limit_s: for importing and making the function, in seconds. It counts in no call's limit.
        memory_bytes: memory limit of a worker; beyond it the function gets a MemoryError.
        num_workers: most workers at a time; by default this process's share of the CPU cores.
    """

    def __init__(
        self,
        function: str,
        *,
        memory_bytes: int,
        num_workers: int | None = None,
        made_with: str | None = None,
        start_limit_s: float = START_LIMIT_S,
    ):
        self._function, self._memory_bytes = function, memory_bytes
        self._made_with, self._start_limit_s = made_with, start_limit_s
        self.num_workers = num_workers or min(MAX_WORKERS, cores_per_process())
        self._open()
        os.register_at_fork(after_in_child=self._leave_to_parent)
        atexit.register(self.close)

    def start(self) -> None:
        """Start importing the function, in the background, so that the first `run` does not wait for that."""
        self._server.start()

    def run(
        self,
        calls: Sequence[tuple],
        *,
        timeout_s: float,
        batch_timeout_s: float | None = None,
        keys: Sequence[Hashable] | None = None,
    ) -> list[Outcome]:
        """Call the function on each tuple of arguments, several at a time.

        Args:
            calls: N tuples of positional arguments, which must be picklable.
            timeout_s: time limit of each call in seconds: CPU time of its worker if there is a `batch_timeout_s`, real
                time if not.
            batch_timeout_s: real time for all calls in seconds. If workers must start first, at least half of it is
                left after that. Slow calls do not use up the time of quick ones (`batches.Rounds`).
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
            requests = [pickle.dumps(call) for call in calls]
        except Exception as error:
            raise RewardError(
                f"{self._function}: its arguments cannot be handed to a worker ({class_and_message(error)})"
            ) from error
        asked = time.monotonic()
        with self._borrow(len(calls)) as workers:
            deadline = None
            if batch_timeout_s is not None:
                deadline = max(asked + batch_timeout_s, time.monotonic() + batch_timeout_s / 2)
            rounds = Rounds(keys if keys is not None else range(len(calls)), timeout_s, len(workers), deadline)
            return Batch(workers, rounds, requests, deadline).finish()

    @property
    def process_ids(self) -> list[int]:
        """Ids of the workers' processes."""
        return [worker.pid for worker in self._all if worker.pid is not None]

    @property
    def server_id(self) -> int | None:
        """Id of the fork server's process, if there is one."""
        return self._server.process_id

    def close(self) -> None:
        """End all workers; a later call starts new ones."""
        self._server.close()
        for worker in self._all:
            worker.forget()

    def _open(self) -> None:
        self._changed = threading.Condition()
        self._server = ForkServer(self._function, self._memory_bytes, self._made_with, self._start_limit_s)
        self._all = [Worker(self._server) for _ in range(self.num_workers)]
        self._idle = list(self._all)

    def _leave_to_parent(self) -> None:
        # The child must close its ends of the connections: open ones would keep the workers alive after their parent.
        self._server.forget()
        for worker in self._all:
            worker.forget()
        self._open()

    @contextlib.contextmanager
    def _borrow(self, num_wanted: int) -> Iterator[list[Worker]]:
        """At most so many idle workers, all running; waits until there is one."""
        with self._changed:
            while not self._idle:
                self._changed.wait()
            workers, self._idle = self._idle[:num_wanted], self._idle[num_wanted:]
        try:
            for worker in workers:
                worker.start()
            yield workers
        except BaseException:
            # Otherwise the next batch could read a reply to this one.
            for worker in workers:
                worker.end()
            raise
        finally:
            with self._changed:
                self._idle += workers
                self._changed.notify_all()


_pools: dict[tuple[str, str | None, float], WorkerPool] = {}
_pools_lock = threading.Lock()


def pool_for(
    function: str, *, memory_bytes: int, made_with: str | None = None, start_limit_s: float = START_LIMIT_S
) -> WorkerPool:
    """This process's pool for a function, as `WorkerPool` describes it; made at the first call."""
    key = (function, made_with, start_limit_s)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = WorkerPool(
                function, memory_bytes=memory_bytes, made_with=made_with, start_limit_s=start_limit_s
            )
        return _pools[key]
