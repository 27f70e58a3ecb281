"""Countdown: does the expression in the answer tag use each given number once, and is its value the target?"""

import re
from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.completions import after_thinking, completion_text, last_answer_tag

MAX_CHARACTERS = 200
MAX_DIGITS = 9
MAX_DEPTH = 20
END = ""
FRACTION = "fraction"
_TOKEN = re.compile(r"[ \t\r\n]*(?:(0(?![0-9])|[1-9][0-9]*)|(\\[dt]?frac(?![A-Za-z]))|([-+*/()\[\]{}]))")
_STATED = re.compile(r"[ \t\r\n]*(-?[0-9]{1,18})[ \t\r\n]*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SIGNS = str.maketrans({
    "\N{MULTIPLICATION SIGN}": "*", "\N{MIDDLE DOT}": "*", "\N{DOT OPERATOR}": "*", "\N{BULLET OPERATOR}": "*",
    "\N{ASTERISK OPERATOR}": "*", "\N{DIVISION SIGN}": "/", "\N{DIVISION SLASH}": "/", "\N{FRACTION SLASH}": "/",
    "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{FIGURE DASH}": "-", "\N{HYPHEN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-", "\N{SMALL HYPHEN-MINUS}": "-", "\N{FULLWIDTH HYPHEN-MINUS}": "-",
    "\N{FULLWIDTH PLUS SIGN}": "+",
})  # fmt: skip
_COMMANDS = {
    "times": "*",
    "cdot": "*",
    "ast": "*",
    "div": "/",
    "left": "",
    "right": "",
    "big": "",
    "bigl": "",
    "bigr": "",
}
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])|\\[,;:! ]")
_DELIMITER = re.compile(r"\$|\\[()\[\]]")
_WRAPPERS = ((r"\boxed{", "}"), ("**", "**"), ("`", "`"))
_NUMBERS = re.compile(r"[\[({]?\s*([0-9]+(?:\.0+)?(?:\s*[,;\s]\s*[0-9]+(?:\.0+)?)*)\s*,?\s*[\])}]?")


def countdown_equation(
    completions: Sequence[str | list[dict[str, Any]]],
    numbers: Sequence[Any],
    target: Sequence[Any],
    partial_credit: float = 0.0,
    **kwargs: Any,
) -> list[float | None]:
    r"""1.0 where the last <answer> holds an expression that uses each number exactly once and has the target as value.

    The expression may hold whole numbers without a sign, + - * / and parentheses; "= target" may follow it. Values are
    computed as exact fractions. The operators may be written in LaTeX or Unicode (`\times`, `\div`, `\cdot`, the signs
    of multiplication, division and minus), a quotient as `\frac{8}{4}`, parentheses as brackets or braces. What only
    wraps the expression is taken off: dollar signs, `\left` and `\right`, a box, Markdown, a full stop. An expression
    with anything else, with a number such as 07, with more than 200 characters, with a number of more than 9 digits or
    with more than 20 nested parentheses is malformed and gets 0.0.

    Args:
        completions: B texts or lists of chat messages.
        numbers: B lists, arrays or tensors of the whole numbers to use, or texts such as "[1, 2, 3]" and "1,2,3".
        target: B target values: whole numbers, also as whole floats or as text; or exact fractions.
        partial_credit: reward of a well-formed expression that uses exactly the numbers and has another value
            (TinyZero: 0.1). An expression that divides by zero gets 0.0.

    Returns:
        B rewards: 1.0, `partial_credit` or 0.0; None where numbers or target are None, NaN or blank.

    Raises:
        RecipeError: `partial_credit` is not in [0, 1), or numbers or a target cannot be read.
    """
    if not 0 <= partial_credit < 1:
        raise RecipeError(
            f"rewards.args.partial_credit={partial_credit}: must be 0 or more and below 1; set a share such as 0.1"
        )
    rewards: list[float | None] = []
    for completion, given, goal in zip(completions, numbers, target, strict=True):
        if _is_missing(given) or _is_missing(goal):
            rewards.append(None)
        else:
            rewards.append(_score(stated_equation(completion), read_numbers(given), read_target(goal), partial_credit))
    return rewards


def read_numbers(value: Any) -> list[int]:
    """The numbers of a puzzle: from a list, an array, a tensor, or a text such as "[1, 2, 3]" or "1,2,3".

    Raises:
        RecipeError: it is something else, or one of the numbers is not whole or has a sign.
    """
    items = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(items, str):
        match = _NUMBERS.fullmatch(items.strip())
        items = re.split(r"[,;\s]+", match[1]) if match else None
    read = [_whole(item) for item in items] if isinstance(items, Sequence) else [None]
    if any(number is None or number < 0 for number in read):
        raise RecipeError(
            f"numbers={value!r:.80}: these are not the numbers of a puzzle; give a list of whole numbers without "
            'signs, such as [1, 2, 3] or "1, 2, 3"'
        )
    return [int(number) for number in read]


def read_target(value: Any) -> Fraction:
    """The target of a puzzle, from a whole number, an exact fraction, a whole float, or text such as "24".

    Raises:
        RecipeError: it is something else.
    """
    read = _whole(value.tolist() if hasattr(value, "tolist") else value)
    if read is None:
        raise RecipeError(f"target={value!r:.80}: this is not the target of a puzzle; give a whole number, such as 24")
    return read


def _whole(value: Any) -> Fraction | None:
    """The whole number or exact fraction that a value is, or that a text writes; else None."""
    if isinstance(value, str):
        match = re.fullmatch(r"([-+]?[0-9]{1,18})(?:\.0+)?", value.strip().translate(_SIGNS))
        return Fraction(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, Rational | float):
        return None
    return Fraction(value) if isinstance(value, Rational) or value.is_integer() else None


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def stated_equation(completion: str | list[dict[str, Any]]) -> str | None:
    """The text that `countdown_equation` reads: the last answer tag after the thinking; None without one."""
    return last_answer_tag(after_thinking(completion_text(completion)))


def _score(equation: str | None, numbers: Sequence[int], target: Fraction, partial_credit: float) -> float:
    if equation is None or len(equation) > MAX_CHARACTERS:
        return 0.0
    expression, equals, right_side = _unwrapped(equation).partition("=")
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


def _unwrapped(equation: str) -> str:
    """An equation with the operators of `evaluate`, without what only wraps it or sets its spaces."""
    text, before = _DELIMITER.sub(" ", equation), ""
    while text != before:
        before = text
        text = text.strip(" \t\r\n").removesuffix(".").rstrip(" \t\r\n")
        for opening, closing in _WRAPPERS:
            if text.startswith(opening) and text.endswith(closing):
                text = text[len(opening) : -len(closing)]
    return _COMMAND.sub(lambda command: _COMMANDS.get(command[1] or "", " ") + " ", text).translate(_SIGNS)


class MalformedExpressionError(ValueError):
    """The text is not an expression of the grammar in `evaluate`."""


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    r"""The value of an expression, and the numbers in it from left to right.

    sum = product (("+" | "-") product)*;  product = atom (("*" | "/") atom)*
    atom = digits | "(" sum ")" | "[" sum "]" | "{" sum "}" | "\frac" "{" sum "}" "{" sum "}"

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
        tokens.append(int(match[1]) if match[1] else FRACTION if match[2] else match[3])
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
    if depth == MAX_DEPTH:
        raise MalformedExpressionError
    if token == FRACTION:
        top, position = _in_brackets(tokens, position + 1, depth, "{")
        bottom, position = _in_brackets(tokens, position, depth, "{")
        return top / bottom, position
    return _in_brackets(tokens, position, depth, "([{")


def _in_brackets(tokens: list[int | str], position: int, depth: int, openings: str) -> tuple[Fraction, int]:
    opening = tokens[position]
    if isinstance(opening, int) or opening == END or opening not in openings:
        raise MalformedExpressionError
    value, position = _sum(tokens, position + 1, depth + 1)
    if tokens[position] != _CLOSING[opening]:
        raise MalformedExpressionError
    return value, position + 1
