"""Questions that are the same but for how they are written: in train and eval rows, or twice in one of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# 1,000 and 1{,}000 are 1000. A comma separates before three digits.
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)")
_COMMA = re.compile(r"[{},]")
# 2.50 is 2.5, and 3.0 is 3.
_ZEROS = re.compile(r"(?<![\d.])(\d+)\.(?:0+|(\d*[1-9])0+)(?![\d.])")
# $5, \$5 and $5$ are 5.
_DOLLAR = re.compile(r"\\?\$")
# All that the above take out of a text.
_TAKEN_OUT = b"0.,{}\\$"


def question_key(row: Mapping[str, Any]) -> str:
    """A row's question, in one form of writing: small letters, single spaces, numbers without commas, $ and end zeros.

    Args:
        row: with `question`, or with its prompt as text or chat messages.
    """
    text = _text(row)
    if "$" in text:
        text = _DOLLAR.sub("", text)
    if "," in text:
        text = _GROUPED.sub(lambda match: _COMMA.sub("", match[0]), text)
    if "0" in text and "." in text:
        text = _ZEROS.sub(lambda match: f"{match[1]}.{match[2]}" if match[2] else match[1], text)
    return " ".join(text.split())


def keys_among(rows: Iterable[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """For each row its `question_key`, where one of `others` has the same; else None."""
    keys = {question_key(row) for row in others}
    rough = {_rough(row) for row in others}
    # A key takes ten times as long as the rough one, which tells most questions apart.
    return [
        key if _rough(row) in rough and (key := question_key(row)) in keys else None for row in rows
    ]  # fmt: skip


def without(rows: Sequence[dict[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose questions are not among those of `others`."""
    return [row for row, key in zip(rows, keys_among(rows, others), strict=True) if key is None]


def first_of_each(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in their order, without those whose question an earlier row has."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(question_key(row), row)
    return list(first.values())


def _text(row: Mapping[str, Any]) -> str:
    # In a mixture, rows whose prompts came ready have a question of None.
    question = row["prompt"] if row.get("question") is None else row["question"]
    if not isinstance(question, str):
        question = "\n".join(str(message.get("content")) for message in question)
    return question.casefold()


def _rough(row: Mapping[str, Any]) -> bytes:
    """The question without spaces and all that a key takes out; questions with the same key have the same."""
    return "".join(_text(row).split()).encode(errors="surrogatepass").translate(None, _TAKEN_OUT)
