"""How runs ended: finished, failed or still running. A failed run counts in a verdict; see judging.py.

A run has failed where it

- was stopped by a guard, or has no summary and no process holds it any more (it was killed, or ended with an error);
- is of another program and ends more than one of its rows before its planned number of steps;
- ended in values that are not finite: the reward of its last step is not finite, or at least half of the rows of its
  last tenth of the steps have a reward, a loss or a gradient norm that is not finite;
- stopped to record a reward: the steps since the last one are at least two of its usual distances.

A value that was not finite and after which the run recovered is counted and said, and is no failure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_posttrain.runs.columns import NON_FINITE, Columns
from rl_posttrain.runs.directory import RunDirectory


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        word: finished, failed or running.
        reason: why it failed, or how far it is; empty for a finished run.
    """

    word: str
    reason: str = ""

    @property
    def finished(self) -> bool:
        return self.word == "finished"

    @property
    def failed(self) -> bool:
        return self.word == "failed"

    @property
    def running(self) -> bool:
        return self.word == "running"


FINISHED = Outcome("finished")


@dataclass(frozen=True)
class Share:
    """How many of some runs had something happen, such as a failure.

    Attributes:
        count: runs that had it.
        number: all runs.
    """

    count: int
    number: int

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true share (Clopper and Pearson 1934); one-sided where none or all had it.

        0 of 5 allows up to 0.45.
        """
        if not self.number:
            return 0.0, 1.0
        side = "two-sided" if 0 < self.count < self.number else "less" if self.count == 0 else "greater"
        found = stats.binomtest(self.count, self.number, alternative=side).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def words(self) -> str:
        """``1 of 5 (95 %: 0.5 to 72 %)``."""
        low, high = self.interval()
        if self.count == 0:
            shown = f"up to {percent(high)}"
        elif self.count == self.number:
            shown = f"from {percent(low)}"
        else:
            shown = f"{100 * low:.2g} to {percent(high)}"
        return f"{self.count} of {self.number} (95 %: {shown})"


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def outcome_of_ours(run: RunDirectory, columns: Columns, num_planned: int | None) -> Outcome:
    """How a run of ours ended, or where it is.

    Args:
        columns: its metrics; empty before its first step.
        num_planned: steps that its recipe asks for.
    """
    steps = f"{int(columns['step'][-1]) if columns else 0} of {num_planned or '?'} steps"
    if run.summary() is not None:
        return ended_in(columns)
    if run.is_locked():
        return Outcome("running", steps)
    if (stopped := run.stopped()) is not None:
        return Outcome("failed", f"stopped by guards.{stopped['guard']} after {steps}")
    return Outcome("failed", f"cut short after {steps}, and no process trains it")


def outcome_of_other(columns: Columns, num_planned: int) -> Outcome:
    """How a run of another program ended.

    Args:
        num_planned: steps that it was to make.
    """
    steps = columns["step"]
    if num_planned - steps[-1] > max(1.0, usual_distance(steps)):
        return Outcome("failed", f"it ends at step {steps[-1]:g} of {num_planned}")
    return ended_in(columns)


def ended_in(columns: Columns) -> Outcome:
    """Finished, or failed where a run that made all of its steps has no good values at their end."""
    steps = columns["step"]
    good = np.isfinite(columns["reward"]) if "reward" in columns else np.zeros(len(steps), dtype=bool)
    lost = columns[NON_FINITE] > 0 if NON_FINITE in columns else ~good
    if not good.any():
        return Outcome("failed", "no step has a reward that is finite")
    last = int(np.flatnonzero(good)[-1])
    since = f"since step {steps[last + 1]:g}" if last + 1 < len(steps) else ""
    if lost[-1] and not good[-1]:
        return Outcome("failed", f"its reward is not finite {since}")
    late = steps > steps[-1] - last_tenth_of(steps)
    if 2 * int(lost[late].sum()) >= int(late.sum()):
        return Outcome(
            "failed", "at least half of its last tenth has a reward, loss or gradient norm that is not finite"
        )
    if steps[-1] - steps[last] >= 2 * usual_distance(steps[good]):
        return Outcome("failed", f"it recorded no reward {since}")
    return FINISHED


def usual_distance(steps: np.ndarray) -> float:
    """Steps between two rows: the median; 1 where there is a single row."""
    distances = np.diff(steps)
    if len(distances) and distances[0] > 0 and (distances == distances[0]).all():
        return float(distances[0])  # as nearly every run has it, and without the cost of a median
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 1.0


def last_tenth_of(steps: np.ndarray) -> float:
    """How many steps the last tenth has, rounded up to whole rows at their usual distance."""
    distance = usual_distance(steps)
    rows = (steps[-1] - steps[0]) / distance + 1
    return math.ceil(round(rows, 6) / 10) * distance


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names with commas; of many the first ones."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
