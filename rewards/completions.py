"""The text of a completion, and the answer in that text. Every search takes time linear in the length of the text."""

import re
from typing import Any

_BOX = r"\\(?:boxed|framebox(?:\[[^\[\]{}]{0,20}\]){0,2}|fbox)(?![A-Za-z])"
_BRACE = re.compile(rf"{_BOX}\s*\{{|\\[{{}}]|[{{}}]")
_SIMPLE_BOX = re.compile(rf"{_BOX}\s*\{{([^{{}}\\]*(?:\\[A-Za-z,;! ][^{{}}\\]*)*)\}}")
# \boxed 42 and \boxed\frac12, without braces; the word behind the \boxed of "write \boxed around it" is no answer.
_BARE_BOX = re.compile(
    rf"{_BOX}\s{{0,5}}(?!{_BOX})((?=[^\s{{}}$\\]{{0,40}}[0-9]|\\[A-Za-z]|[A-Za-z](?![A-Za-z]))\\?[^\s{{}}$\\]{{1,200}})"
)
_ARGUMENTS = re.compile(r"(?:\{[^{}]{0,200}\})+")
_BOX_NAMES = (r"\boxed", r"\fbox", r"\framebox")
_TAG = re.compile(r"<\s*(/?)\s*answer(?:\s[^<>]*)?>", re.IGNORECASE)
_END_TOKEN = re.compile(
    r"<[|\uff5c][^<>\n]{1,40}[|\uff5c]>|</?s>|<(?:eos|bos|pad|unk|end_of_turn|start_of_turn|end_of_utterance)>|\[/?INST\]",
    re.IGNORECASE,
)
_TITLE = re.compile(r"(?:the )?(?:final )?(?:answer|result|solution)[\s*:]*", re.IGNORECASE)
_REASON = re.compile(r"(?<=[0-9}\])*`$]) (?:as|because|since|which|where)(?!\w)")
_SECTION = re.compile(
    r"(?:step|case|part|method|example|explanation|reasoning|question|problem)(?![a-z])", re.IGNORECASE
)


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
    r"""The content of the last box whose braces balance, or None. Of a box in a box, the inner one is read.

    A box is `\boxed{...}`, `\fbox{...}` or `\framebox{...}`; `\boxed 42` without braces is one, too. An empty box
    counts: where it is the last, "" is found.
    """
    last_start = max(map(text.rfind, _BOX_NAMES))
    if last_start < 0:
        return None
    # Most texts end in a closed box: then only that box is read.
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
        elif brace == "{" or len(brace) > 2:
            opened.append((match.end(), brace != "{"))
    for bare in _BARE_BOX.finditer(text, last[1] if last else 0):
        start, end = bare.span(1)
        # A command takes its arguments with it: \boxed\frac{1}{2}.
        arguments = _ARGUMENTS.match(text, end) if text[start] == "\\" else None
        last = (start, arguments.end() if arguments else start + len(bare[1].rstrip(".,;")))
    return text[slice(*last)] if last else None


def last_answer_tag(text: str) -> str | None:
    """The content of the last `<answer>...</answer>`, in any case of letters, with or without attributes; or None."""
    if "<" not in text:
        return None
    opening: int | None = None  # end of the last opening tag
    last: tuple[int, int] | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opening = tag.end()
        elif opening is not None and (last is None or last[0] != opening):
            last = (opening, tag.start())
    return _without_end_tokens(text[slice(*last)]) if last else None


def after_gsm8k_mark(text: str) -> str | None:
    """The first line of text after the last `####`, or None.

    Reasons ("12 because ..."), Markdown, and end tokens such as `<|im_end|>` are taken off the line. Where it only is a
    title ("Final Answer"), the next line is read. The title of another section ("Step 2: ...") is no mark.
    """
    _, mark, rest = text.rpartition("####")
    line, _, after = _without_end_tokens(rest.lstrip()).lstrip().partition("\n")
    if not mark or _SECTION.match(line.strip("*_ ")):
        return None
    if after.strip() and _TITLE.fullmatch(line.strip("*_ ")):
        line = after.lstrip().partition("\n")[0]
    return _REASON.split(line, maxsplit=1)[0].strip("*_` \t\r")


def _without_end_tokens(text: str) -> str:
    """`text` up to its first end token, such as `<|im_end|>` or `</s>`."""
    return _END_TOKEN.split(text, maxsplit=1)[0]
