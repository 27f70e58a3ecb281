"""Whether a completion's final answer has the value of the gold answer."""

import re
import threading
from collections.abc import Sequence
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.completions import (
    NUMBER,
    after_gsm8k_mark,
    completion_text,
    last_answer_tag,
    last_boxed,
    last_number,
)
from rl_posttrain.rewards.numbers import MAX_CHARACTERS, read_number, same_number

FINDERS = {
    "boxed": last_boxed,
    "answer_tag": last_answer_tag,
    "gsm8k": after_gsm8k_mark,
    "last_number": last_number,
}
TIMEOUT_S = 5
# Powers of powers, exponents of five digits and large factorials: a symbolic comparison would spend its time limit on
# them, and outside the main thread, where it has none, would not come back.
_EXPLODES = re.compile(r"\^\s*\{?\s*-?\s*[0-9]{5,}|[0-9]\s*\^\s*\{?\s*[0-9]+\s*\}?\s*\^|[0-9]{4,}\s*!|!\s*!|\)\s*!")


def math_accuracy(
    completions: Sequence[str | list[dict[str, Any]]],
    answer: Sequence[str | None],
    answer_in: Sequence[str] = ("boxed", "answer_tag", "gsm8k", "last_number"),
    **kwargs: Any,
) -> list[float | None]:
    r"""1.0 where the completion's answer has the gold's value, else 0.0.

    The answer is looked for in one place: the first of `answer_in` that the completion has. What it holds decides: a
    wrong box is not saved by a right number after it. Numbers are compared exactly, other answers by math-verify. A
    gold that is a number wants a number: "3 + 4", "8/4" and "6 or 7" are no answer to 7, 2 and 7, or repeating the
    question and listing guesses would pay.

    Args:
        completions: B texts or lists of chat messages; of the latter, the last message is read.
        answer: B gold answers, each the answer alone; None or blank where there is none.
        answer_in: places, in order of preference: `boxed` (the last balanced \boxed{}), `answer_tag` (the last
            <answer>...</answer>), `gsm8k` (the line after the last ####), `last_number`.

    Returns:
        B rewards, 1.0 or 0.0; None where there is no gold.

    Raises:
        RecipeError: `answer_in` names a place that is not known.
    """
    for place in answer_in:
        if place not in FINDERS:
            raise RecipeError(f"rewards.args.answer_in={place}: no such place; use some of {', '.join(FINDERS)}")
    return [
        _score(completion_text(completion), gold, answer_in)
        for completion, gold in zip(completions, answer, strict=True)
    ]


def _score(text: str, gold: str | None, answer_in: Sequence[str]) -> float | None:
    gold = "" if gold is None else str(gold).strip()
    if not gold:
        return None
    for place in answer_in:
        found = FINDERS[place](text)
        if found is not None:
            return float(_same_answer(found.strip(), gold))
    return 0.0


def _same_answer(found: str, gold: str) -> bool:
    if not found or len(found) > MAX_CHARACTERS:
        return False
    if found == gold:
        return True
    gold_number = read_number(gold)
    if gold_number is None:
        return _same_expression(found, gold)
    found = found.rpartition("=")[2]  # "x = 7" and "3 + 4 = 7" end in their answer
    found_number = read_number(found)
    if found_number is not None:
        is_unfinished = found_number.is_quotient and gold_number.value.denominator == 1
        return same_number(found_number, gold_number) and not is_unfinished
    # Not a bare number: "7 apples" or "7^\circ" still answers 7, a text with two numbers in it is not one answer.
    return len(NUMBER.findall(found)) == 1 and _same_expression(found, gold)


def _same_expression(found: str, gold: str) -> bool:
    if _EXPLODES.search(found):
        return False
    import math_verify  # brings sympy: half a second that answers which are numbers do without

    # Its time limits are alarm signals, which only the main thread can take.
    timeout_s = TIMEOUT_S if threading.current_thread() is threading.main_thread() else None
    sides = [
        math_verify.parse(
            f"${_without_math_marks(side)}$", [math_verify.LatexExtractionConfig()], parsing_timeout=timeout_s
        )
        for side in (gold, found)
    ]
    return math_verify.verify(*sides, timeout_seconds=timeout_s)


def _without_math_marks(text: str) -> str:
    return re.sub(r"\\[()\[\]]|\$", "", text)
