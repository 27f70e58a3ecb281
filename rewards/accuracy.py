"""Does a completion's final answer have the value of the gold answer?"""

import contextlib
import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.answers import (
    MAX_CHARACTERS,
    Answer,
    Chain,
    Equation,
    Expression,
    UndecidedError,
    Words,
    choice_value,
    chosen_letter,
    cleaned,
    is_only_numbers,
    read_answer,
    read_choice,
    same_answer,
)
from rl_posttrain.rewards.answers.unfinished import asks_too_much, leaves_undone
from rl_posttrain.rewards.by_workers import judge_all, read_all
from rl_posttrain.rewards.cache import Cache
from rl_posttrain.rewards.completions import (
    after_gsm8k_mark,
    after_thinking,
    completion_text,
    last_answer_tag,
    last_boxed,
)
from rl_posttrain.rewards.golds import gold_of
from rl_posttrain.rewards.statements import last_expression, said_in
from rl_posttrain.rewards.verdict import Verdict

FINDERS = {
    "boxed": last_boxed,
    "answer_tag": last_answer_tag,
    "gsm8k": after_gsm8k_mark,
    "last_expression": last_expression,
}
TIMEOUT_S = 5.0
BATCH_TIMEOUT_S = 8.0
GOLDS_TIMEOUT_S = 60.0
# The time of a batch in this process: for all, or for each completion if that is more. A usual one takes 0.0005 s. What
# is not decided then is decided in the workers, which have time limits.
_TIME_HERE_S, _TIME_HERE_EACH_S = 1.0, 0.01
DECIDED = ("exact", "symbolic", "timeout", "unparseable", "missing")
# 10-20 and 3 \times 4 are no numbers: the question asks for a range or a size.
_RANGE_OR_SIZE = re.compile(r"[0-9]+\s*(?:-|\\times)\s*[0-9]+")
_DROPPED = re.compile(r"['\"&:?]|\\(?:ldots|prime|not)(?![A-Za-z])|[0-9A-Za-z)}]\s+[0-9]")
_UNREADABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


_verdicts: Cache[tuple[str, str], Verdict] = Cache(max_entries=16384)
_can_read: Cache[str, bool] = Cache(max_entries=16384)


def math_accuracy(
    completions: Sequence[str | list[dict[str, Any]]],
    answer: Sequence[Any],
    answer_in: Sequence[str] = ("boxed", "answer_tag", "gsm8k", "last_expression"),
    timeout_s: float = TIMEOUT_S,
    batch_timeout_s: float = BATCH_TIMEOUT_S,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""1.0 where the completion's answer has the gold's value, else 0.0.

    The answer is read after the thinking, from the first place of `answer_in` that the text has. That place alone
    decides: a wrong box is wrong, even where a right number follows it. Numbers, units, words and choices, and lists,
    points, intervals and matrices of them are compared exactly. Other expressions are compared by math-verify, in
    worker processes that are killed at the time limit. Where the gold is a number, the answer must be a number, too:
    "3 + 4", "8/4" and "6 or 7" do not answer 7, 2 and 7. Otherwise it would pay to repeat the question or to list
    guesses.

    Args:
        completions: B texts or lists of chat messages; of the latter, the last message is read.
        answer: B gold answers, as data sets have them: `golds.gold_of` says how they are read and what is none. So a
            solution that ends in "#### 18" or "\boxed{18}" is the gold 18.
        answer_in: places, in order of preference: `boxed` (the last balanced \boxed{}), `answer_tag` (the last
            <answer>...</answer>), `gsm8k` (the line after the last ####), `last_expression` (what the
            text states as its answer, or else its last number, formula or list, whole).
        timeout_s: time limit of math-verify for one answer, in seconds of a worker's CPU time.
        batch_timeout_s: time limit of math-verify for all answers of the call, in seconds. If many are slow, each gets
            its share: slow answers do not cost the reward of quick ones. If the workers must start first, half of it is
            left after that.
        log_metric: called with ``math_accuracy/WAY`` and the share of completions decided in that way, for each of
            `DECIDED`; TRL passes it.

    Returns:
        B rewards, 1.0 or 0.0; None where there is no gold, or the gold cannot be read.

    Raises:
        RecipeError: `answer_in` names an unknown place, or a time limit is not positive.
    """
    verdicts = judge(completions, answer, answer_in=answer_in, timeout_s=timeout_s, batch_timeout_s=batch_timeout_s)
    if log_metric is not None and verdicts:
        counts = Counter(verdict.decided for verdict in verdicts if verdict is not None)
        for way in DECIDED:
            log_metric(f"math_accuracy/{way}", counts[way] / len(verdicts))
    return [None if verdict is None else verdict.reward for verdict in verdicts]


def judge(
    completions: Sequence[str | list[dict[str, Any]]],
    answer: Sequence[Any],
    *,
    answer_in: Sequence[str] = tuple(FINDERS),
    timeout_s: float = TIMEOUT_S,
    batch_timeout_s: float = BATCH_TIMEOUT_S,
) -> list[Verdict | None]:
    """As `math_accuracy`, but returns a `Verdict` for each completion; None where there is no gold."""
    for place in answer_in:
        if place not in FINDERS:
            raise RecipeError(f"rewards.args.answer_in={place}: no such place; use some of {', '.join(FINDERS)}")
    for name, limit_s in (("timeout_s", timeout_s), ("batch_timeout_s", batch_timeout_s)):
        if not limit_s > 0:
            raise RecipeError(f"rewards.args.{name}={limit_s}: it must be above 0; set a number of seconds, such as 5")
    end_here = time.monotonic() + max(_TIME_HERE_S, _TIME_HERE_EACH_S * len(completions))
    verdicts: list[Verdict | None] = []
    open_questions: dict[tuple[str, str], list[int]] = {}
    for completion, gold in zip(completions, answer, strict=True):
        gold = gold_of(gold)
        verdict = None
        if gold is not None:
            found = final_answer(completion, answer_in)
            if found is None:
                verdict = Verdict(0.0, "missing")
            else:
                verdict = _verdicts.get((found, gold))
                if verdict is None and time.monotonic() < end_here:
                    verdict = _decided_here(found, gold)
                if verdict is None:
                    open_questions.setdefault((found, gold), []).append(len(verdicts))
        verdicts.append(verdict)
    if open_questions:
        for question, verdict in _by_workers(list(open_questions), timeout_s, batch_timeout_s).items():
            for place in open_questions[question]:
                verdicts[place] = verdict
    return verdicts


def final_answer(completion: str | list[dict[str, Any]], answer_in: Sequence[str] = tuple(FINDERS)) -> str | None:
    """The text that `math_accuracy` compares with the gold; None where the completion has no answer.

    Args:
        answer_in: as for `math_accuracy`.
    """
    return _find(after_thinking(completion_text(completion)), [FINDERS[place] for place in answer_in])


class UnreadGolds(NamedTuple):
    """Golds that were not read, each once.

    `unreadable`: neither exact comparison nor math-verify can read them. `too_slow`: math-verify did not read them
    within its limit for one gold; of their answers, it can compare none. `unchecked`: the time for all golds was over
    before it had read them or had taken that long.
    """

    unreadable: list[str]
    too_slow: list[str]
    unchecked: list[str]


def unread_golds(
    golds: Sequence[str | None], *, timeout_s: float = TIMEOUT_S, batch_timeout_s: float = GOLDS_TIMEOUT_S
) -> UnreadGolds:
    """Read golds as `math_accuracy` does, and say which could not be read.

    Args:
        timeout_s: time limit of math-verify for one gold, in seconds of a worker's CPU time.
        batch_timeout_s: time limit of math-verify for all golds, in seconds.
    """
    distinct = dict.fromkeys(gold for gold in map(gold_of, golds) if gold is not None)
    hard = [gold for gold in distinct if _read_gold(gold).answer is None and _read_gold(gold).choice is None]
    known = {gold: _can_read.get(gold) for gold in hard}
    asked = [gold for gold in hard if known[gold] is None]
    results = read_all(asked, timeout_s=timeout_s, batch_timeout_s=batch_timeout_s)
    for gold, result in zip(asked, results, strict=True):
        if result in ("readable", "unreadable"):
            known[gold] = result == "readable"
            _can_read.put(gold, known[gold])
    return UnreadGolds(
        unreadable=[gold for gold in hard if known[gold] is False],
        too_slow=[gold for gold, result in zip(asked, results, strict=True) if result == "timeout"],
        unchecked=[gold for gold, result in zip(asked, results, strict=True) if result == "unfinished"],
    )


def may_need_math_verify(gold: str) -> bool:
    """Whether math-verify may have to compare an answer with this gold; if not, workers need not be started."""
    read = _read_gold(gold_of(gold) or "")
    return read.choice is None and not isinstance(read.answer, Words) and not read.is_only_numbers


def _find(text: str, finders: Sequence[Callable[[str], str | None]]) -> str | None:
    return next((found for finder in finders if (found := finder(text)) is not None), None)


def _decided_here(found: str, gold: str) -> Verdict | None:
    verdict = exact_verdict(found, gold)
    if verdict is not None:
        _verdicts.put((found, gold), verdict)
    return verdict


def _by_workers(
    questions: list[tuple[str, str]], timeout_s: float, batch_timeout_s: float
) -> dict[tuple[str, str], Verdict]:
    decided = judge_all(questions, timeout_s=timeout_s, batch_timeout_s=batch_timeout_s)
    verdicts = dict(zip(questions, decided, strict=True))
    for question, verdict in verdicts.items():
        if verdict.reward is None and _read_gold(question[1]).answer is not None:
            verdicts[question] = Verdict(0.0, "unparseable")  # the gold is read here, and the answer is not
    for question, verdict in verdicts.items():
        if verdict.decided != "timeout":  # another time it may be decided: with a longer limit, or in a smaller batch
            _verdicts.put(question, verdict)
    return verdicts


class _Gold(NamedTuple):
    text: str
    choice: str | None
    answer: Answer | None
    is_only_numbers: bool
    decided: Literal["exact", "symbolic"]


@functools.lru_cache(maxsize=4096)
def _read_gold(gold: str) -> _Gold:
    text = cleaned(gold)
    answer = read_answer(text)
    is_plain = answer is not None and is_only_numbers(answer)
    decided = "exact" if is_plain or isinstance(answer, Words) else "symbolic"
    return _Gold(text, read_choice(text), answer, is_plain, decided)


def exact_verdict(found: str, gold_text: str) -> Verdict | None:
    """The verdict that needs no other process; None where only math-verify can tell."""
    if not found.strip() or len(found) > MAX_CHARACTERS or _UNREADABLE.search(found):
        return Verdict(0.0, "unparseable")
    gold, found = _read_gold(gold_text), cleaned(found)
    if found == gold.text:
        return Verdict(float(bool(found)), "exact")
    if _RANGE_OR_SIZE.fullmatch(gold.text):
        return Verdict(float(_letters(found) == _letters(gold.text)), "exact")
    if gold.choice is not None:
        if chosen_letter(found) == gold.choice:
            return Verdict(1.0, "exact")
        value = choice_value(gold.text)
        return Verdict(0.0, "exact") if value is None else exact_verdict(found, value)
    answer = read_answer(found)
    if answer is None and (said := said_in(found)) is not None:
        found = cleaned(said)
        answer = read_answer(found)
    if answer is None and isinstance(gold.answer, Words):
        return Verdict(0.0, "exact")
    is_lossy = not isinstance(gold.answer, Expression) or _DROPPED.search(found)
    if answer is None and gold.answer is not None and is_lossy:
        return Verdict(0.0, "unparseable")  # math-verify drops brackets, primes, dots, and what it cannot place
    is_plain = answer is not None and is_only_numbers(answer)
    # What stands on the left of an equation is asked for: \sin x = 3/5.
    given = found.rpartition("=")[2] if isinstance(answer, Equation | Chain) else found
    if not is_plain and leaves_undone(given, gold.text):
        return Verdict(0.0, "exact")
    if answer is not None and gold.answer is not None:
        with contextlib.suppress(UndecidedError):
            return Verdict(float(same_answer(answer, gold.answer)), gold.decided)
    if any(
        command in found + gold.text for command in (r"\text", r"\ldots")
    ):  # math-verify drops words, units and dots
        return Verdict(float(_letters(found) == _letters(gold.text)), "exact")
    return Verdict(0.0, "unparseable") if asks_too_much(found, gold.text) else None


def _letters(text: str) -> str:
    return "".join(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).split())
