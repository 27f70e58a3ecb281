"""What a completion votes for in maj@k: its answer, written in one way."""

from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.rewards import REWARDS
from rl_posttrain.rewards.accuracy import final_answer
from rl_posttrain.rewards.answers import MAX_CHARACTERS, cleaned, read_number

RIGHT = "right"
"""The vote of every right answer, however it is written."""


def vote_of(text: str, is_right: bool, judge: RewardSpec) -> str | None:
    """The vote of a completion: `RIGHT`, or ``= `` and the wrong answer; None where there is no readable answer.

    Wrong answers with the same value as numbers, or the same text without spaces and case, are one.

    Args:
        text: of the completion.
        judge: the reward that judges answers. Of a built-in, its own reader finds the answer; of others
            `rewards.accuracy.final_answer`.
    """
    if is_right:
        return RIGHT
    built_in = REWARDS.get(judge.fn)
    if built_in is not None and built_in.reader is not None:
        found = load_object(built_in.reader, table={}, key=f"{judge.key}.fn")(text)
    else:
        places = judge.arguments.get("answer_in") if built_in is not None else None
        found = final_answer(text, places) if places else final_answer(text)
    if found is None or not found.strip() or len(found) > MAX_CHARACTERS:
        return None
    found = cleaned(found)
    number = read_number(found)
    return f"= {number.value}" if number is not None else f"= {''.join(found.split()).casefold()}"
