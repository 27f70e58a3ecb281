"""Judging many answers, and reading many golds, in worker processes that have math-verify, within time limits."""

from collections.abc import Sequence
from typing import Literal

from rl_posttrain.rewards.cache import Cache
from rl_posttrain.rewards.verdict import Verdict
from rl_posttrain.rewards.workers import WorkerPool, pool_for

_DECIDE = "rl_posttrain.rewards.deciding:decide"
_MEMORY_BYTES = 2**30
# The longest time limit, in seconds, within which an answer could not be compared with a gold.
_too_short: Cache[tuple[str, str], float] = Cache(max_entries=16384)


def pool() -> WorkerPool:
    """This process's workers with math-verify. `pool().start()` starts them in the background."""
    return pool_for(_DECIDE, memory_bytes=_MEMORY_BYTES)


def judge_all(questions: Sequence[tuple[str, str]], *, timeout_s: float, batch_timeout_s: float) -> list[Verdict]:
    """Verdicts on answers. A question that took its whole time limit is not asked again with the same limit.

    Args:
        questions: N pairs of answer and gold.
        timeout_s: time limit of one question, in seconds of a worker's CPU time.
        batch_timeout_s: time limit of all questions, in seconds; `workers.WorkerPool.run` says how it is shared.

    Returns:
        N verdicts; `timeout` where the limits of time and memory did not suffice.
    """
    verdicts = dict.fromkeys(questions, Verdict(0.0, "timeout"))
    asked = [question for question in verdicts if (_too_short.get(question) or 0.0) < timeout_s]
    golds = [gold for _, gold in asked]
    outcomes = pool().run(asked, timeout_s=timeout_s, batch_timeout_s=batch_timeout_s, keys=golds)
    for question, outcome in zip(asked, outcomes, strict=True):
        if outcome.status == "done":
            verdicts[question] = Verdict(*outcome.value)
        elif outcome.status == "failed" and not outcome.value.startswith("MemoryError"):
            verdicts[question] = Verdict(0.0, "unparseable")
        elif outcome.status == "timeout":
            _too_short.put(question, timeout_s)
    return [verdicts[question] for question in questions]


def read_all(
    golds: Sequence[str], *, timeout_s: float, batch_timeout_s: float
) -> list[Literal["readable", "unreadable", "timeout", "unfinished"]]:
    """Whether math-verify can read golds. Limits as for `judge_all`.

    Returns:
        N results. `unfinished`: the time of all was over before this one had taken its own.
    """
    outcomes = pool().run([(None, gold) for gold in golds], timeout_s=timeout_s, batch_timeout_s=batch_timeout_s)
    results = {"failed": "unreadable", "died": "timeout"}
    return [
        outcome.value if outcome.status == "done" else results.get(outcome.status, outcome.status)
        for outcome in outcomes
    ]
