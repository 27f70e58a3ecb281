"""Countdown: does the expression in the answer tag use each given number once, and is its value the target?"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.completions import after_thinking, completion_text, last_answer_tag

MAX_CHARACTERS = 200
MAX_DIGITS = 9
MAX_DEPTH = 20
END = ""
_TOKEN = re.compile(r"[ \t\r\n]*(?:([0-9]+)|([-+*/()]))")
_STATED = re.compile(r"[ \t\r\n]*([0-9]{1,18})[ \t\r\n]*")


def countdown_equation(
    completions: Sequence[str | list[dict[str, Any]]],
    numbers: Sequence[Sequence[int] | None],
    target: Sequence[int | None],
    partial_credit: float = 0.0,
    **kwargs: Any,
) -> list[float | None]:
    """1.0 where the last <answer> holds an expression that uses each number exactly once and has the target as value.

    The expression may hold whole numbers without a sign, + - * / and parentheses; "= target" may follow it. Values are
    computed as exact fractions. An expression with anything else, with more than 200 characters, with a number of more
    than 9 digits or with more than 20 nested parentheses is malformed and gets 0.0.

    Args:
        completions: B texts or lists of chat messages.
        numbers: B lists of the whole numbers to use.
        target: B target values, whole numbers.
        partial_credit: reward of a well-formed expression that uses exactly the numbers and has another value
            (TinyZero: 0.1). An expression that divides by zero gets 0.0.

    Returns:
        B rewards: 1.0, `partial_credit` or 0.0; None where numbers or target are None.

    Raises:
        RecipeError: `partial_credit` is not in [0, 1).
    """
    if not 0 <= partial_credit < 1:
        raise RecipeError(
            f"rewards.args.partial_credit={partial_credit}: must be 0 or more and below 1; set a share such as 0.1"
        )
    return [
        None if given is None or goal is None else _score(stated_equation(completion), given, goal, partial_credit)
        for completion, given, goal in zip(completions, numbers, target, strict=True)
    ]


def stated_equation(completion: str | list[dict[str, Any]]) -> str | None:
    """The text that `countdown_equation` reads: the last answer tag after the thinking; None without one."""
    return last_answer_tag(after_thinking(completion_text(completion)))


def _score(equation: str | None, numbers: Sequence[int], target: int, partial_credit: float) -> float:
    if equation is None or len(equation) > MAX_CHARACTERS:
        return 0.0
    expression, equals, right_side = equation.partition("=")
    stated = _STATED.fullmatch(right_side)
    if equals and stated is None:
        return 0.0
    try:
        value, used = evaluate(expression)
    except (MalformedExpressionError, ZeroDivisionError):
        return 0.0
    if sorted(used) != sorted(numbers):
        return 0.0
    is_right = value == target and (stated is None or int(stated[1]) == target)
    return 1.0 if is_right else partial_credit


class MalformedExpressionError(ValueError):
    """The text is not an expression of the grammar in `evaluate`."""


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The value of an expression, and the numbers in it from left to right.

    sum = product (("+" | "-") product)*;  product = atom (("*" | "/") atom)*;  atom = digits | "(" sum ")"

    Raises:
        MalformedExpressionError: the text does not follow the grammar, or it is too long or nested too deep.
        ZeroDivisionError: it divides by zero.
    """
    if len(expression) > MAX_CHARACTERS:
        raise MalformedExpressionError
    tokens = [*_tokens(expression), END]
    value, position = _sum(tokens, 0, 0)
    if tokens[position] != END:
        raise MalformedExpressionError
    return value, [token for token in tokens if isinstance(token, int)]


def _tokens(expression: str) -> list[int | str]:
    expression = expression.rstrip(" \t\r\n")
    tokens: list[int | str] = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None or len(match[1] or "") > MAX_DIGITS:
            raise MalformedExpressionError
        tokens.append(int(match[1]) if match[1] else match[2])
        position = match.end()
    return tokens


def _sum(tokens: list[int | str], position: int, depth: int) -> tuple[Fraction, int]:
    value, position = _product(tokens, position, depth)
    while tokens[position] in ("+", "-"):
        right, after = _product(tokens, position + 1, depth)
        value = value + right if tokens[position] == "+" else value - right
        position = after
    return value, position


def _product(tokens: list[int | str], position: int, depth: int) -> tuple[Fraction, int]:
    value, position = _atom(tokens, position, depth)
    while tokens[position] in ("*", "/"):
        right, after = _atom(tokens, position + 1, depth)
        value = value * right if tokens[position] == "*" else value / right
        position = after
    return value, position


def _atom(tokens: list[int | str], position: int, depth: int) -> tuple[Fraction, int]:
    token = tokens[position]
    if isinstance(token, int):
        return Fraction(token), position + 1
    if token != "(" or depth == MAX_DEPTH:
        raise MalformedExpressionError
    value, position = _sum(tokens, position + 1, depth + 1)
    if tokens[position] != ")":
        raise MalformedExpressionError
    return value, position + 1
