"""Questions that are the same but for how they are written: in train and eval rows, or twice in one of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# 1,000 and 1{,}000 are 1000. A comma separates before three digits.
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)")
_COMMA = re.compile(r"[{},]")
# 2.50 is 2.5, and 3.0 is 3.
_ZEROS = re.compile(r"(?<![\d.])(\d+)\.(?:0+|(\d*[1-9])0+)(?![\d.])")
# $5, \$5 and $5$ are 5.
_DOLLAR = re.compile(r"\\?\$")


def question_key(row: Mapping[str, Any]) -> str:
    """A row's question, in one form of writing: small letters, single spaces, numbers without commas, $ and end zeros.

    Args:
        row: with `question`, or with its prompt as text or chat messages.
    """
    question = row["question"] if "question" in row else row["prompt"]
    if not isinstance(question, str):
        question = "\n".join(str(message.get("content")) for message in question)
    text = question.casefold()
    if "$" in text:
        text = _DOLLAR.sub("", text)
    if "," in text:
        text = _GROUPED.sub(lambda match: _COMMA.sub("", match[0]), text)
    if "0" in text and "." in text:
        text = _ZEROS.sub(lambda match: f"{match[1]}.{match[2]}" if match[2] else match[1], text)
    return " ".join(text.split())


def without(rows: Iterable[dict[str, Any]], others: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose questions are not among those of `others`."""
    keys = {question_key(row) for row in others}
    return [row for row in rows if question_key(row) not in keys]


def first_of_each(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in their order, without those whose question an earlier row has."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(question_key(row), row)
    return list(first.values())
