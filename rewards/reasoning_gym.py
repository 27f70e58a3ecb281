"""The reward of the task `reasoning_gym`: each data set's own scorer judges."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.accuracy import TIMEOUT_S
from rl_posttrain.rewards.completions import after_thinking, completion_text, last_answer_tag, last_boxed
from rl_posttrain.rewards.workers import WorkerPool, pool_for

PLACES = {"answer_tag": last_answer_tag, "boxed": last_boxed, "text": lambda text: text}
WAYS = ("scored", "failed", "timeout", "missing")
# Longer answers are no answers: the longest of reasoning-gym has some thousand characters.
MAX_CHARACTERS = 20_000
_WORKER_MEMORY_BYTES = 2**30
_SCORE = "rl_posttrain.rewards.gym_scorers:score"
_WAY_OF = {"done": "scored", "failed": "failed", "timeout": "timeout", "died": "timeout"}


def reasoning_gym_score(
    completions: Sequence[str | list[dict[str, Any]]],
    entry: Sequence[str | None],
    answer_in: Sequence[str] = ("answer_tag", "boxed", "text"),
    timeout_s: float = TIMEOUT_S,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""What the scorer of the row's data set in reasoning-gym pays for the answer: 1.0 where it is right.

    Many scorers pay a part for an answer that is partly right, and a few pay 0.01 for any answer. The answer is read
    after the thinking, from the first place of `answer_in` that the text has. Scorers run in worker processes, which
    are killed at the time limit and have 1 GiB of memory; those that evaluate the answer as Python are kept to plain
    values and expressions.

    Args:
        completions: B texts or lists of chat messages; of the latter, the last message is read.
        entry: B entries as the task `reasoning_gym` writes them; None where a row is of another task.
        answer_in: places, in order of preference: `answer_tag` (the last <answer>...</answer>), `boxed` (the last
            balanced \boxed{}), `text` (all of it).
        timeout_s: time limit of a scorer for one answer, in seconds.
        log_metric: called with ``reasoning_gym_score/WAY`` and the share of completions of each of `WAYS`: `scored`;
            `failed`, where the scorer raises; `timeout`, where it exceeds its time or memory; `missing`, where the
            completion has no answer, or one of more than 20,000 characters. All but `scored` get 0.0.

    Returns:
        B rewards from 0.0 to 1.0; None where there is no entry.

    Raises:
        RecipeError: `answer_in` names an unknown place, or `timeout_s` is not positive.
    """
    for place in answer_in:
        if place not in PLACES:
            raise RecipeError(f"rewards.args.answer_in={place}: no such place; use some of {', '.join(PLACES)}")
    if not timeout_s > 0:
        raise RecipeError(f"rewards.args.timeout_s={timeout_s}: it must be above 0; set a number of seconds, such as 5")
    rewards: list[float | None] = []
    calls: dict[tuple[str, str], list[int]] = {}  # equal answers to one question are scored once
    ways: Counter[str] = Counter()
    for completion, row in zip(completions, entry, strict=True):
        if row is not None:
            answer = stated_answer(completion, answer_in)
            if answer is not None:
                calls.setdefault((row, answer), []).append(len(rewards))
            else:
                ways["missing"] += 1
        rewards.append(None if row is None else 0.0)
    outcomes = pool().run(list(calls), timeout_s=timeout_s)
    for places, outcome in zip(calls.values(), outcomes, strict=True):
        ways[_WAY_OF[outcome.status]] += len(places)
        for place in places:
            rewards[place] = outcome.value if outcome.status == "done" else 0.0
    if log_metric is not None and ways:
        for way in WAYS:
            log_metric(f"reasoning_gym_score/{way}", ways[way] / len(rewards))
    return rewards


def pool() -> WorkerPool:
    """This process's workers for the scorers. `pool().start()` starts them in the background."""
    return pool_for(_SCORE, memory_bytes=_WORKER_MEMORY_BYTES)


def stated_answer(completion: str | list[dict[str, Any]], answer_in: Sequence[str] = tuple(PLACES)) -> str | None:
    """The answer that `reasoning_gym_score` hands to a scorer; None where there is none, or none of its length."""
    text = after_thinking(completion_text(completion))
    answer = next((found for place in answer_in if (found := PLACES[place](text)) is not None), "").strip()
    return answer if answer and len(answer) <= MAX_CHARACTERS else None
