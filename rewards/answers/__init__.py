"""Reading an answer and comparing two, in this process and in bounded time.

`cleaned` takes off what only changes how an answer looks, `read_answer` reads what is left, and `same_answer` compares.
What cannot be read here is left to math-verify in a worker process (`symbolic`).
"""

from rl_posttrain.rewards.answers.choices import choice_value, chosen_letter, read_choice
from rl_posttrain.rewards.answers.comparison import UndecidedError, same_answer
from rl_posttrain.rewards.answers.forms import Answer, Chain, Equation, Expression, Quantity, Words, is_only_numbers
from rl_posttrain.rewards.answers.kinds import kind_of
from rl_posttrain.rewards.answers.numbers import MAX_CHARACTERS, read_number
from rl_posttrain.rewards.answers.reading import read_answer
from rl_posttrain.rewards.answers.typography import cleaned

__all__ = [
    "MAX_CHARACTERS",
    "Answer",
    "Chain",
    "Equation",
    "Expression",
    "Quantity",
    "UndecidedError",
    "Words",
    "choice_value",
    "chosen_letter",
    "cleaned",
    "is_only_numbers",
    "kind_of",
    "read_answer",
    "read_choice",
    "read_number",
    "same_answer",
]
