r"""The gold answer in what data sets call an answer: a whole solution, a number, a list, or the answer alone."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from rl_posttrain.rewards.completions import after_gsm8k_mark, last_boxed

# Solutions of MATH also have \fbox{4}, and \boxed 4 without braces.
_BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$]+)")


def gold_of(value: Any) -> str | None:
    r"""The gold as text; None where there is none.

    - Of a text with `####` or `\boxed{}`, what the last of these marks holds.
    - Of any other text, the text without white space around it.
    - A number as it is written without rounding; a whole float has no point: 18.0 is "18".
    - A list of several golds is joined with ", ", in its order.

    Args:
        value: as a file or a data set has it. None, NaN, blank texts and empty lists hold no gold, and neither does a
            text whose last mark is followed by nothing.
    """
    if isinstance(value, str):
        return _of_text(value.strip()) or None
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, (Real, Decimal)):
        return _of_number(value)
    if isinstance(value, Sequence):
        golds = [gold_of(item) for item in value]
        return ", ".join(golds) if golds and None not in golds else None
    return None


def _of_text(text: str) -> str:
    mark = text.rfind("####")
    box = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if max(mark, box) < 0:
        return text
    if mark > box:
        return after_gsm8k_mark(text) or ""
    text = text.replace(r"\fbox", r"\boxed")
    bare = _BARE_BOX.match(text, text.rfind(r"\boxed"))
    return (bare[1].rstrip(".,;") if bare else last_boxed(text) or "").strip()


def _of_number(number: Real | Decimal) -> str | None:
    if isinstance(number, Integral):
        return str(int(number))
    if not math.isfinite(number):
        return None
    return str(int(number)) if number == int(number) else str(number)
