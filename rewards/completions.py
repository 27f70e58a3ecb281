"""The text of a completion, and the answer in that text. Every search takes time linear in the length of the text."""

import re
from typing import Any

_BRACE = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")

_SIMPLE_BOX = re.compile(r"\\boxed\s*\{([^{}\\]*(?:\\[A-Za-z,;! ][^{}\\]*)*)\}")


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """The completion itself where it is text, or the content of its last chat message; "" where that is not text."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


def after_thinking(text: str) -> str:
    """The text after the last </think>; all of it where there are no such tags, "" where <think> is never closed."""
    _, closed, said = text.rpartition("</think>")
    return said if closed or "<think>" not in text else ""


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces balance, or None."""
    if r"\boxed" not in text:
        return None
    # Most texts end in a closed box: then only that box is read.
    last_start = text.rfind(r"\boxed")
    if (simple := _SIMPLE_BOX.match(text, last_start)) is not None:
        return simple[1]
    opened: list[tuple[int, bool]] = []  # for each open brace: start of its content, and whether it is a box
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        brace = match.group()
        if brace == "}" and opened:
            start, is_box = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, match.start())
        elif brace == "{" or brace.startswith(r"\boxed"):
            opened.append((match.end(), brace != "{"))
    return text[slice(*last)] if last else None


def last_answer_tag(text: str) -> str | None:
    """The content of the last `<answer>...</answer>`, or None."""
    last_closing = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(last_closing, 0))
    return text[start + len("<answer>") :].partition("</answer>")[0] if start >= 0 else None


def after_gsm8k_mark(text: str) -> str | None:
    """The first line of text after the last `####`, or None."""
    _, mark, rest = text.rpartition("####")
    return rest.strip().partition("\n")[0] if mark else None
