"""math-verify in worker processes: comparing many answers, and reading many golds, within time limits."""

from collections.abc import Sequence
from typing import Literal

from rl_posttrain.rewards.cache import Cache
from rl_posttrain.rewards.workers import Outcome, WorkerPool, pool_for

_COMPARE = "rl_posttrain.rewards.answers.symbolic:compare"
_MEMORY_BYTES = 2**30
# The longest time limit, in seconds, within which math-verify could not compare a gold and an answer.
_too_short: Cache[tuple[str, str], float] = Cache(max_entries=16384)


def pool() -> WorkerPool:
    """This process's workers for math-verify. `pool().start()` starts them in the background."""
    return pool_for(_COMPARE, memory_bytes=_MEMORY_BYTES)


def compare_all(
    questions: Sequence[tuple[str, str]], *, timeout_s: float, batch_timeout_s: float
) -> list[Literal["right", "wrong", "unparseable", "no gold", "timeout"]]:
    """Compare golds and answers. A question that took its whole time limit is not asked again with the same limit.

    Args:
        questions: N pairs of gold and answer.
        timeout_s: time limit of one question, in seconds of a worker's CPU time.
        batch_timeout_s: time limit of all questions, in seconds; `workers.WorkerPool.run` says how it is shared.

    Returns:
        N results. `timeout`: not decided within the limits of time and memory. `no gold`: the gold cannot be read.
    """
    open_questions = [question for question in dict.fromkeys(questions) if not _is_too_slow(question, timeout_s)]
    outcomes = pool().run(
        open_questions,
        timeout_s=timeout_s,
        batch_timeout_s=batch_timeout_s,
        keys=[gold for gold, _ in open_questions],
    )
    results = dict(zip(open_questions, map(_result, outcomes), strict=True))
    for question, outcome in zip(open_questions, outcomes, strict=True):
        if outcome.status == "timeout":
            _too_short.put(question, timeout_s)
    return [results.get(question, "timeout") for question in questions]


def read_all(
    golds: Sequence[str], *, timeout_s: float, batch_timeout_s: float
) -> list[Literal["readable", "no gold", "timeout", "unfinished"]]:
    """Whether golds can be read. Limits as for `compare_all`.

    Returns:
        N results. `unfinished`: the time of all was over before this one had taken its own.
    """
    outcomes = pool().run([(gold, None) for gold in golds], timeout_s=timeout_s, batch_timeout_s=batch_timeout_s)
    results = {"unparseable": "no gold"}  # math-verify raised
    return [
        "unfinished" if outcome.status == "unfinished" else results.get(_result(outcome), _result(outcome))
        for outcome in outcomes
    ]


def _is_too_slow(question: tuple[str, str], timeout_s: float) -> bool:
    return (_too_short.get(question) or 0.0) >= timeout_s


def _result(outcome: Outcome) -> str:
    if outcome.status == "done":
        return outcome.value
    if outcome.status == "failed" and not outcome.value.startswith("MemoryError"):
        return "unparseable"
    return "timeout"
