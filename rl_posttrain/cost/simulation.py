"""A simulation of steps whose completions have lengths with a long tail: engines that sample, a trainer that updates.

Time is in seconds of the simulated machine. An event is the end of a completion or of an update. Between two events of
an engine all of its sequences get tokens, at the pace that their number allows.
"""

import bisect
import heapq
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Seconds of one token step of an engine with so many sequences.
Pace = Callable[[int], float]


@dataclass(frozen=True)
class Lengths:
    """Completion lengths: lognormal with this median and spread of the logarithm, cut at `most` tokens."""

    median: float
    sigma: float
    most: int

    def draw(self, random_numbers: random.Random) -> int:
        drawn = self.median * math.exp(self.sigma * random_numbers.gauss(0.0, 1.0))
        return max(1, min(self.most, round(drawn)))


def median_of_longest(lengths: Lengths, n: int) -> float:
    """The median of the longest of n completions: the length at whose quantile 2^(-1/n) stands, before it is cut."""
    score = statistics.NormalDist().inv_cdf(0.5 ** (1.0 / n))
    return min(lengths.most, lengths.median * math.exp(lengths.sigma * score))


def sample_s(lengths: Sequence[int], pace: Pace, at_once: int) -> float:
    """Seconds until one engine has finished completions of these lengths, taken in order, `at_once` at a time.

    Continuous batching: a place that becomes free is taken by the next completion at once.
    """
    running: list[int] = []  # token steps at which each ends, a heap
    waiting, done_steps, seconds = list(reversed(lengths)), 0, 0.0
    while waiting or running:
        while waiting and len(running) < at_once:
            heapq.heappush(running, done_steps + waiting.pop())
        ends = running[0]
        seconds += (ends - done_steps) * pace(len(running))
        done_steps = ends
        while running and running[0] == ends:
            heapq.heappop(running)
    return seconds


@dataclass(frozen=True)
class Plan:
    """How devices are used.

    ``engines`` sample together, each with `at_once` places; ``update_s`` is the trainer's time for a whole batch and
    ``sync_s`` that of handing over weights, which stops trainer and engines. ``max_staleness`` None is sampling and
    training on the same devices, in turn; n lets batches be sampled at most n updates ahead, on devices of the
    engines' own. With ``together`` engines begin each batch at the same time, as `rollout.max_staleness` does;
    otherwise each goes on with its part of the next one.
    """

    engines: int
    at_once: int
    update_s: float
    sync_s: float
    max_staleness: int | None = None
    together: bool = True


@dataclass(frozen=True)
class Result:
    """Seconds a step in the mean, the shares of time at work, and how many updates batches were behind in the mean."""

    step_s: float
    trainer_busy: float
    engines_busy: float
    staleness: float


def simulate(plan: Plan, batches: Sequence[Sequence[int]], pace: Pace) -> Result:
    """A step for each batch: it is dealt to the engines, sampled, and used for one update, in order.

    An engine begins batch k when it is free and the weights after update k - 1 - n are there, n being the staleness
    that is allowed; it takes the newest weights that there are. Weights change between two batches alone.

    Args:
        batches: lengths of each batch's completions in tokens, in an order that has nothing to do with them.
        pace: of each engine.
    """
    ahead = plan.max_staleness or 0
    free_at, holds = [0.0] * plan.engines, [0] * plan.engines
    updated_at: list[float] = []  # when each update ended and its weights could be taken
    trainer_free_at = busy_s = behind = 0.0
    for step, lengths in enumerate(batches):
        needed = step - ahead
        allowed = updated_at[needed - 1] if needed > 0 else 0.0
        begins = [max(free, allowed) for free in free_at]
        if plan.together:
            begins = [max(begins)] * plan.engines
        for engine, begin in enumerate(begins):
            version = bisect.bisect_right(updated_at, begin)
            takes_s = plan.sync_s if version > holds[engine] else 0.0
            holds[engine] = version
            sampled_s = sample_s(lengths[engine :: plan.engines], pace, plan.at_once)
            free_at[engine] = begin + takes_s + sampled_s
            busy_s += sampled_s
            behind += (step - version) / plan.engines
        # Handing over stops the trainer, too; where engines wait for the update, they have waited for both.
        hands_over_s = plan.sync_s if ahead and updated_at else 0.0
        begin = max(max(free_at), trainer_free_at + hands_over_s)
        trainer_free_at = begin + plan.update_s
        updated_at.append(trainer_free_at)
    total = trainer_free_at
    return Result(
        step_s=total / len(batches),
        trainer_busy=len(batches) * plan.update_s / total,
        engines_busy=busy_s / plan.engines / total,
        staleness=behind / len(batches),
    )
