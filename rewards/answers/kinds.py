"""The kind of a gold, for tables that count golds."""

from rl_posttrain.rewards.answers.choices import read_choice
from rl_posttrain.rewards.answers.forms import (
    Answer,
    Based,
    Chain,
    Clock,
    Equation,
    Expression,
    Group,
    Inequality,
    Infinite,
    Matrix,
    Quantity,
    Range,
    Words,
)
from rl_posttrain.rewards.answers.reading import read_answer
from rl_posttrain.rewards.answers.typography import cleaned

KINDS = (
    "integer", "decimal", "fraction", "percent", "quantity", "time", "base", "expression", "equation", "inequality",
    "interval", "point", "set", "list", "matrix", "word", "choice", "unread",
)  # fmt: skip
_BY_TYPE = {
    Clock: "time", Based: "base", Expression: "expression", Equation: "equation", Chain: "equation",
    Inequality: "inequality", Range: "inequality", Matrix: "matrix", Words: "word", Infinite: "expression",
}  # fmt: skip
_BY_BRACKETS = {"": "list", "{}": "set", "u": "interval", ":": "time", "mod": "equation", "[)": "interval",
                "(]": "interval", "[]": "interval"}  # fmt: skip


def kind_of(gold: str) -> str:
    """The kind of a gold, one of `KINDS`; "unread" where only math-verify may read it."""
    text = cleaned(gold)
    return "choice" if read_choice(text) is not None else _kind(read_answer(text))


def _kind(answer: Answer | None) -> str:
    if answer is None:
        return "unread"
    if isinstance(answer, Quantity):
        number = answer.number
        if answer.unit is not None:
            return "quantity"
        if number.is_percent:
            return "percent"
        return "fraction" if number.is_quotient else "integer" if number.value.denominator == 1 else "decimal"
    if isinstance(answer, Group):
        if answer.brackets == "()":
            return "interval" if any(isinstance(item, Infinite) for item in answer.items) else "point"
        return _BY_BRACKETS[answer.brackets]
    return _BY_TYPE[type(answer)]
