"""One batch of calls on worker processes: who is called next, for how long, and what became of each call."""

import selectors
import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

from rl_posttrain.rewards.processes import Worker
from rl_posttrain.rewards.serving import LIMIT_SIGNALS

# A worker that is ended has wasted its work. A usual comparison by math-verify takes 0.02 to 0.06 s.
MIN_LIMIT_S = 0.07
# A worker ends itself at the limit. This many seconds later it is ended from here: the function can turn the timer off.
_GRACE_S = 1.0


class Outcome(NamedTuple):
    """The outcome of one call.

    `done`: `value` is what the function returned. `failed`: it raised; `value` is the error message. `timeout`: the
    call took its whole time limit. `unfinished`: the batch's time was over before that. `died`: its worker ended.
    """

    status: Literal["done", "failed", "timeout", "unfinished", "died"]
    value: Any = None


class Turn(NamedTuple):
    """A call that a worker makes: its place in the batch, its time limit in seconds, its start and its latest end."""

    place: int
    limit_s: float
    start: float
    end: float


class Rounds:
    """The calls of a batch that are still to make, and the time limit of each.

    Without a deadline every call gets `timeout_s`. With one, slow calls must not use up the time of quick ones that
    stand behind them. So there are rounds: a call gets half of a slow call's share of the time that is left, though at
    least `MIN_LIMIT_S`. How many of the calls ahead are slow is estimated by those that were made. A call that exceeds
    its limit is ended and made again in the next round, with at least twice the time; those that had the least are
    first.

    Args:
        keys: one a call. A worker takes all calls of a key before it takes another key; a worker without a key of its
            own helps with the largest.
        timeout_s: the longest time limit of a call.
        deadline: of the batch, by `time.monotonic`, or None.
    """

    def __init__(self, keys: Sequence[Hashable], timeout_s: float, num_workers: int, deadline: float | None):
        self._keys, self._timeout_s, self._num_workers, self._deadline = keys, timeout_s, num_workers, deadline
        self._exceeded_s: dict[int, float] = {}  # by place: the limit that a call exceeded
        self._num_turns = self._num_slow_turns = 0
        self._slow_s = self._slow_limits_s = 0.0  # real time of calls that exceeded their limits, and those limits
        self._next_round = list(range(len(keys)))
        self._begin_round()

    def next_for(self, worker: Worker) -> Turn | None:
        """The next call; None if no call is left."""
        if not self._num_left:
            self._begin_round()
        if not self._num_left:
            return None
        limit_s = self._limit_s()
        own = self._taken.get(worker)
        if not own:
            own = self._untouched.popleft() if self._untouched else max(self._taken.values(), key=len)
            self._taken[worker] = own
        self._num_left -= 1
        self._num_turns += 1
        place = own.popleft()
        limit_s = min(self._timeout_s, max(limit_s, 2 * self._exceeded_s.get(place, 0.0)))
        start = time.monotonic()
        end = self._deadline or start + limit_s + _GRACE_S
        return Turn(place, limit_s, start, end)

    def is_over_after(self, turn: Turn) -> bool:
        """Whether a call that exceeded its limit had its whole time. If not, it will be made again."""
        self._num_slow_turns += 1
        self._slow_s += time.monotonic() - turn.start
        self._slow_limits_s += turn.limit_s
        if turn.limit_s >= self._timeout_s:
            return True
        self._exceeded_s[turn.place] = turn.limit_s
        self._next_round.append(turn.place)
        return False

    def _begin_round(self) -> None:
        groups: dict[Hashable, deque[int]] = {}
        # The limits fall as time passes: who had the shortest turn is next.
        for place in sorted(self._next_round, key=lambda place: self._exceeded_s.get(place, 0.0)):
            groups.setdefault(self._keys[place], deque()).append(place)
        self._untouched, self._taken = deque(groups.values()), {}
        self._num_left, self._next_round = len(self._next_round), []

    def _limit_s(self) -> float:
        if self._deadline is None:
            return self._timeout_s
        time_left_s = (self._deadline - time.monotonic()) * self._num_workers
        if self._num_left + len(self._next_round) <= self._num_workers:
            return max(MIN_LIMIT_S, time_left_s)
        slow_share = (self._num_slow_turns + 1) / (self._num_turns + 1)  # all, as long as nothing is known
        num_slow = max(1.0, slow_share * self._num_left) + len(self._next_round)
        slowness = max(1.0, self._slow_s / self._slow_limits_s) if self._slow_limits_s else 1.0  # of a busy machine
        return max(MIN_LIMIT_S, time_left_s / num_slow / slowness / 2)


class Batch:
    """The calls of one batch on borrowed workers.

    Args:
        workers: all running.
        requests: one a call: the pickled arguments.
        deadline: by `time.monotonic`, or None. With a deadline, time limits count the worker's CPU time, so that a busy
            machine does not cost an answer; without one they count real time.
    """

    def __init__(self, workers: list[Worker], rounds: Rounds, requests: list[bytes], deadline: float | None):
        self._workers, self._rounds, self._requests, self._deadline = workers, rounds, requests, deadline
        self._outcomes: list[Outcome | None] = [None] * len(requests)
        self._turns: dict[Worker, Turn] = {}

    def finish(self) -> list[Outcome]:
        """One outcome a call, in order. All workers run and are idle afterwards."""
        with selectors.DefaultSelector() as self._selector:
            for worker in self._workers:
                self._selector.register(worker.connection, selectors.EVENT_READ, worker)
            while not self._is_late():
                for worker in self._workers:
                    if worker not in self._turns:
                        self._give(worker)
                if not self._turns:
                    break
                self._wait()
            for worker in list(self._turns):
                del self._turns[worker]
                self._replace(worker)
        return [outcome or Outcome("unfinished") for outcome in self._outcomes]

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _give(self, worker: Worker) -> None:
        turn = self._rounds.next_for(worker)
        if turn is None:
            return
        while True:
            try:
                worker.send(self._requests[turn.place], turn.limit_s, is_cpu_time=self._deadline is not None)
                break
            except (BrokenPipeError, ConnectionResetError):  # it died while it was idle, not because of this call
                self._replace(worker)
        self._turns[worker] = turn

    def _wait(self) -> None:
        wait_s = max(0.0, min(turn.end for turn in self._turns.values()) - time.monotonic())
        for key, _ in self._selector.select(wait_s):
            self._hear(key.data)
        if self._is_late():
            return
        now = time.monotonic()
        for worker, turn in list(self._turns.items()):
            if now >= turn.end:
                self._replace(worker)
                self._exceeds(self._turns.pop(worker))

    def _hear(self, worker: Worker) -> None:
        reply = worker.receive()
        if reply is None:
            return
        turn = self._turns.pop(worker, None)
        if "ended" in reply:
            status = self._replace(worker)
            if turn is None:  # it died while it was idle
                return
            if status is not None and -status in LIMIT_SIGNALS:
                self._exceeds(turn)
            else:
                self._outcomes[turn.place] = Outcome("died")
            return
        failed = "error" in reply
        self._outcomes[turn.place] = Outcome("failed" if failed else "done", reply["error" if failed else "value"])
        if reply["retires"]:
            self._replace(worker)

    def _exceeds(self, turn: Turn) -> None:
        if self._rounds.is_over_after(turn):
            self._outcomes[turn.place] = Outcome("timeout")

    def _replace(self, worker: Worker) -> int | None:
        """Start a new process at once, even when no call is left: then it is ready for the next batch."""
        self._selector.unregister(worker.connection)
        status = worker.end()
        worker.start()
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return status
