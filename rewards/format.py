"""Does a completion have the R1-Zero form: reasoning in <think>, then the result in <answer>, and nothing else?"""

from collections.abc import Sequence
from typing import Any

from rl_posttrain.rewards.completions import completion_text

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def think_answer_format(
    completions: Sequence[str | list[dict[str, Any]]], allow_empty_thinking: bool = False, **kwargs: Any
) -> list[float]:
    """1.0 where the completion is `<think>...</think>` followed by `<answer>...</answer>`, else 0.0.

    Each tag must occur once, in this order. Thinking and answer must not be blank, and only white space may stand
    outside of the two blocks. The completion must open <think> itself: if the prompt ends in <think>, every completion
    gets 0.0.

    Args:
        completions: B texts or lists of chat messages; of the latter, the last message is read.
        allow_empty_thinking: whether thinking that is empty or blank has the form, too. False unless it is set: a model
            that is paid for empty tags learns to write them and not to think.

    Returns:
        B rewards, 1.0 or 0.0.
    """
    return [float(_is_well_formed(completion_text(completion), allow_empty_thinking)) for completion in completions]


def _is_well_formed(text: str, allow_empty_thinking: bool) -> bool:
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    before, _, rest = text.partition("<think>")
    thinking, _, rest = rest.partition("</think>")
    between, _, rest = rest.partition("<answer>")
    answer, closed, after = rest.partition("</answer>")
    # A tag out of order leaves a later partition without its tag, and in the end `closed` empty.
    is_filled = bool(answer.strip() and (thinking.strip() or allow_empty_thinking))
    return bool(closed) and is_filled and not (before + between + after).strip()
