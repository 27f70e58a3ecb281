"""How far a run is: its rows so far, and the time that is left."""

import statistics
import time

from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.series import number, numbers, step_seconds


class Progress:
    """The rows so far, and what they say about time.

    Args:
        num_steps: steps that the recipe asks for, those before a resume included.
    """

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.rows: list[dict] = []
        self.last_step_seconds: float | None = None
        self._seconds_before = self._last_seconds = 0.0
        self._started = time.monotonic()
        self._recent: list[float] = []  # replaced and not appended to: the live view reads it from another thread
        self._first = True

    def resume(self, rows: list[dict]) -> None:
        """Take over the rows of the steps that an earlier process made."""
        self.rows = list(rows)
        self._seconds_before = self._last_seconds = max(numbers(rows, "seconds"), default=0.0)
        self._recent = step_seconds(columns_of(rows))[1:][-10:].tolist()

    def add(self, row: dict) -> None:
        """Add the row of a finished step."""
        seconds = number(row, "seconds")
        self.last_step_seconds = None if seconds is None else seconds - self._last_seconds
        if seconds is not None:
            # A process's first step also compiles and fills caches, so it does not tell how long the next ones take.
            if not self._first:
                self._recent = [*self._recent, seconds - self._last_seconds][-10:]
            self._last_seconds = seconds
        self._first = False
        self.rows.append(row)

    @property
    def steps_done(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    def elapsed_seconds(self) -> float:
        """Seconds of this process, its start-up included, and of the steps of earlier processes."""
        return self._seconds_before + time.monotonic() - self._started

    def seconds_left(self) -> float | None:
        """Mean seconds of the last 10 steps times the number of steps left; None before the second step."""
        steps_left = self.num_steps - self.steps_done
        if steps_left <= 0:
            return 0.0
        return statistics.fmean(self._recent) * steps_left if self._recent else None
