r"""The gold in what data sets call an answer: a whole solution, a number, a list, an object, or the answer alone."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from rl_posttrain.rewards.completions import after_gsm8k_mark, last_boxed

# Where an object has the gold, by the names that published data sets have; the first one that is there is taken.
KEYS = ("ground_truth", "final_answer", "answer", "solution", "gold", "target", "label", "value")
# What a table writes in an empty cell.
_MISSING = {"nan", "<na>", "nat", "null"}
_MAX_DEPTH = 4
_ITEM = r"""(?:'[^']*'|"[^"]*")"""
# ['12', '13'], ["\\frac{1}{2}"], and numpy's ['12' '13']. [1, 2] without quotes is an interval.
_LIST = re.compile(rf"(?:array\()?[\[(]\s*{_ITEM}(?:\s*,?\s*{_ITEM})*\s*,?\s*[\])](?:,\s*dtype=[^)]*)?\)?")
_LONE_BACKSLASH = re.compile(r"(?<!\\)\\(?!\\)")
_OBJECT = re.compile(r"\{\s*['\"]\w+['\"]\s*:")


def gold_of(value: Any) -> str | None:
    r"""The gold as text; None where there is none.

    - Of a text with `####` or a box, what the last of these marks holds.
    - Of a list, its golds in their order, joined with ", ". A text such as `['12', '13']` is a list, too; `[1, 2]` is
      an interval.
    - Of an object, the gold under the first of `KEYS` that it has. A text such as `{"ground_truth": "12"}` is an
      object.
    - Of any other text, the text without white space around it. Bytes are text in UTF-8.
    - A number as it is written without rounding; a whole float has no point: 18.0 is "18". Arrays and tensors count as
      lists, or as numbers if they have no dimension.

    No gold: None, NaN and infinity, pandas' NA and NaT; blank texts, and the texts nan, NaN, NaT, <NA> and null, which
    tables have in empty cells (None is a word); empty lists, and lists in which one item is no gold; objects without
    these keys; a text whose last mark is followed by nothing; and any other value.

    Args:
        value: as a file or a data set has it.
    """
    return _gold(value, 0)


def _gold(value: Any, depth: int) -> str | None:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", errors="replace")
    if isinstance(value, str):
        return _of_text(value.strip(), depth) or None
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, Real | Decimal):
        return _of_number(value)
    if isinstance(value, Mapping):
        key = next((key for key in KEYS if key in value), None)
        return None if key is None else _gold(value[key], depth + 1)
    if isinstance(value, Sequence):
        golds = [_gold(item, depth + 1) for item in value]
        return ", ".join(golds) if golds and None not in golds else None
    if hasattr(value, "tolist"):  # an array or a tensor
        return _gold(value.tolist(), depth + 1)
    return None


def _of_text(text: str, depth: int) -> str | None:
    if text.lower() in _MISSING:
        return None
    if _LIST.fullmatch(text):
        return _gold([_unescaped(item[1:-1]) for item in re.findall(_ITEM, text)], depth + 1)
    if _OBJECT.match(text) and (found := _object(text)) is not None:
        return _gold(found, depth + 1)
    mark = text.rfind("####")
    box = max(map(text.rfind, (r"\boxed", r"\fbox", r"\framebox")))
    if mark > box and (line := after_gsm8k_mark(text)) is not None:
        return line
    return text if box < 0 else (last_boxed(text) or "").strip()


def _unescaped(item: str) -> str:
    r"""An item of a list that was written as code or JSON: `\\frac` is `\frac` there."""
    return item if _LONE_BACKSLASH.search(item) else item.replace("\\\\", "\\")


def _object(text: str) -> dict | None:
    """The object that a text writes in JSON or as Python does; None if it writes none."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, dict) and any(key in found for key in KEYS) else None
    return None


def _of_number(number: Real | Decimal) -> str | None:
    if isinstance(number, Integral):
        return str(int(number))
    if not math.isfinite(number):
        return None
    return str(int(number)) if number == int(number) else str(number)
