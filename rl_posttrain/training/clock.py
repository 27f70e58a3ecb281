"""Seconds of a step by phase, and what the run is doing now."""

import contextlib
import time
from collections.abc import Callable, Iterator

PHASES = ("rollout", "reward", "sync")


class Clock:
    """Times the phases of each step. What no phase claims is the update.

    Args:
        show: told the phase whenever one begins: sync, rollout, reward, update, evaluation, checkpoint.
    """

    def __init__(self, show: Callable[[str], None]):
        self._show = show
        self._seconds: dict[str, float] = {}
        self._nested = False
        self._step_started = self._run_started = time.perf_counter()
        self._seconds_before = 0.0

    def start(self, seconds_before: float = 0.0) -> None:
        """Training begins; the run counts on from the seconds of the process that was stopped."""
        self._step_started = self._run_started = time.perf_counter()
        self._seconds_before = seconds_before

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside as `name`. Phases inside of a phase are part of it: evaluation draws rollouts, too."""
        if self._nested:
            yield
            return
        self._show(name)
        self._nested, started = True, time.perf_counter()
        try:
            yield
        finally:
            self._nested = False
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started
            self._show("update")

    def end_step(self) -> dict[str, float]:
        """``time/<phase>`` of the step that ends now, and ``seconds`` of the run so far.

        Checkpoints count in the run's seconds and in no phase of a step.
        """
        now = time.perf_counter()
        spent, self._seconds = self._seconds, {}
        row = {f"time/{name}": spent.get(name, 0.0) for name in PHASES}
        row["time/update"] = now - self._step_started - sum(spent.values())
        if "evaluation" in spent:
            row["time/evaluation"] = spent["evaluation"]
        row["seconds"] = self._seconds_before + now - self._run_started
        self._step_started = now
        return row
