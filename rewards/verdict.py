"""What `math_accuracy` decides about an answer."""

from typing import Literal, NamedTuple


class Verdict(NamedTuple):
    """The reward of a completion, and how it was decided. The reward is None where the gold cannot be read.

    `exact`: by its text or by exact arithmetic. `symbolic`: as an expression, by its value at a point or by
    math-verify. `timeout`: not decided within the time or memory limit. `unparseable`: the answer cannot be read.
    `missing`: there is no answer in any place of `answer_in`.
    """

    reward: float | None
    decided: Literal["exact", "symbolic", "timeout", "unparseable", "missing"]
