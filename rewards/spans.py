r"""The answer-shaped expressions of a text: numbers, formulas, quantities and lists of them, each one whole.

A text is cut into tokens. Neighbouring tokens that can stand in one formula make a run; a word, a full stop or the end
of a line ends it. What stands in $...$, \(...\) and the like is one token. Every search takes time linear in the
length of the text.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from rl_posttrain.rewards.vocabulary import COMMON, FUNCTIONS, IS_HALF_DAY, SPACES, UNIT

_ROWS = ("align", "aligned", "gather", "gathered", "split", "equation")
_TABLES = ("matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "Vmatrix", "smallmatrix", "array", "cases")
# What lies between these is a formula. "$" is another matter: it is a currency, too.
_CLOSING = {"$$": "$$", r"\[": r"\]", r"\(": r"\)"} | {
    rf"\begin{{{name}{star}}}": rf"\end{{{name}{star}}}" for name in _ROWS + _TABLES for star in ("", "*")
}
_LETTER = "A-Za-z\u0370-\u03ff"
_TOKEN = re.compile(
    rf"""
      (?P<space>[^\S\n]+)
    | (?P<end>\n | https?://\S+
        | </?[A-Za-z][\w:-]*(?:\s[^<>=]*=[^<>]*)?/?> | <[|\uff5c][^<>\s]*[|\uff5c]>  # a tag, an end token
        | [-=]{{1,3}}> | [\u2190-\u21ff] | \\(?:Rightarrow|implies|therefore)(?![A-Za-z])  # what follows is new
        | \\\\ | \\(?:boxed|fbox|framebox|item|q?quad)(?![A-Za-z])
        | (?<![\w.])[0-9]+(?:\.[0-9]+)?-[A-Za-z]{{3,}}                               # a 3-digit number
        | (?<!\w)\#[0-9]+)                                                           # #3
    | (?P<math>{"|".join(re.escape(opening) for opening in _CLOSING)})
    | (?P<dollar>\$)
    | (?P<soft>\*\*(?!(?<=[\w)]\*\*)[\w(]) | (?<!\*)\*(?!\*|(?<=[\w)}}]\*)[\w(\\]|(?<=\s\*)\s) | `+
        | (?<![\w)}}])_+ | _+(?![\w{{\\]))                                           # Markdown's emphasis
    | (?P<operand>[0-9]+(?:[.,:/][0-9]+)*[{_LETTER}0-9]* | (?<!\w)\.[0-9]+
        | [\u00bc-\u00be\u2150-\u215e\u221e\u2205\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]
        | (?<![A-Za-z])pi(?![A-Za-z])
        | \|(?=\S)[^|\n]{{0,60}}(?<=\S)\|
        | (?<!\w)(?:[Oo]ption|[Cc]hoice)\ \(?[A-J](?!\w)\)?)
    | (?P<variable>(?<![^\W\d_])[{_LETTER}](?![^\W\d_])[0-9]*(?:['\u2032]+(?!\w))?)
    | (?P<name>(?:{FUNCTIONS})(?=\s?[(^\\0-9_]|\s[{_LETTER}](?![{_LETTER}])))
    | (?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*\w*)
    | (?P<command>\\[A-Za-z]+|\\[{{}},;:!|%$\ ])
    | (?P<opening>[(\[{{]) | (?P<closing>[)\]}}])
    | (?P<dash>[-\u2010-\u2015\u2212])
    | (?P<sign>\*\* | [+*/=<>^_~\u00b1\u00d7\u00f7\u00b7\u2044\u2215\u221a\u2208\u222a\u2229\u2248\u2260\u2264\u2265]
        | (?<=\d[ ]):(?=[ ]\d) | (?<=\w)\.\.\.(?=\w) | (?<=[0-9])'(?=[0-9]))
    | (?P<postfix>[%\u00b0] | !(?=\s?[-+*/=^)!]|\s[a-z]))
    | (?P<currency>[\u20ac\u00a3\u00a5\u20b9])
    | (?P<comma>[,;])
    | (?P<other>.)
    """,
    re.VERBOSE,
)
_OPERANDS = {"operand", "variable", "closing", "formula", "postfix", "unit", "currency"}
_BINARY = set("+*/^\u00d7\u00f7\u00b7")
_RELATED_WORD = re.compile(r"\s?[+=^<>]")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])")
_SET = re.compile(r"\{(?=[^{}\n]{0,200}\})[^{}\n]{0,200}?[0-9\\]")
_NUMBERED = re.compile(r"\([0-9]{1,2}\) +[^\s+*/^=<>,.]")
_PARENTHESIS = re.compile(r"\([^()\n]{0,80}=")


class Expression(NamedTuple):
    """Where an expression lies in the text, and how it reads without delimiters and Markdown."""

    start: int
    end: int
    text: str


class _Token(NamedTuple):
    kind: str
    start: int
    end: int
    text: str


def expressions(text: str, start: int, end: int) -> list[Expression]:
    """Everything between two places of `text` that reads like an expression, in order; single letters too."""
    return [
        expression for run, follows_word in _runs(text, start, end) for expression in _whole(run, follows_word, text)
    ]


def _runs(text: str, position: int, end: int) -> Iterator[tuple[list[_Token], bool]]:
    """Tokens that may stand in one formula, and whether a word stands before the first."""
    run: list[_Token] = []
    brackets: list[str] = []
    follows_word = was_word = False
    absent: set[str] = set()  # delimiters that do not close any more
    while position < end:
        match = _TOKEN.match(text, position, end)
        token = _Token(match.lastgroup, position, match.end(), match.group())
        if token.kind in ("math", "dollar"):
            token = _formula(text, token, end, absent)
        previous = run[-1].kind if run else ""
        if token.kind in ("word", "variable") and previous in _OPERANDS - {"unit", "variable"}:
            unit = UNIT.match(text, position, end)
            if unit and (token.kind == "word" or IS_HALF_DAY.match(unit.group())):
                token = _Token("unit", position, unit.end(), unit.group())
        position = token.end
        if token.kind in ("space", "soft"):
            continue
        if _belongs(token, run, brackets, text, end):
            if not run:
                follows_word = was_word
            run.append(token)
            if token.kind == "opening":
                brackets.append(token.text)
            elif token.kind == "closing" and brackets:
                brackets.pop()
        else:
            if run:
                yield run, follows_word
            run, brackets = [], []
            if token.kind == "dash" and _belongs(token, run, brackets, text, end):
                run, follows_word = [token], False  # the sign of what follows
        was_word = token.kind == "word"
    if run:
        yield run, follows_word


def _belongs(token: _Token, run: list[_Token], brackets: list[str], text: str, end: int) -> bool:
    """Whether a token can go on the run."""
    kind, start = token.kind, token.start
    is_after_operand = bool(run) and run[-1].kind in _OPERANDS
    is_attached = bool(run) and run[-1].end == start
    if brackets and brackets[-1] == "{":
        return kind != "end"
    if kind == "word":
        after = text[token.end : token.end + 1]
        is_short = len(token.text) <= 3 and not COMMON.fullmatch(token.text)
        follows_sign = bool(run) and run[-1].kind == "sign"
        return (after != "" and after in "^_(") or (
            is_short and (follows_sign or _RELATED_WORD.match(text, token.end, end) is not None)
        )
    if kind in ("comma", "closing"):
        return bool(brackets)
    if token.text == "{":
        is_argument = is_attached and (run[-1].kind in ("command", "closing") or run[-1].text in ("^", "_"))
        return is_argument or _SET.match(text, start, end) is not None
    if kind == "opening":
        # "42 (6 * 7 = 42)": a remark.
        is_remark = is_after_operand and text[start - 1].isspace() and _PARENTHESIS.match(text, start, end)
        return not is_remark
    if kind == "dash":
        before, after = text[start - 1 : start], text[token.end : token.end + 1]
        if token.text in "\u2014\u2015" or not run:
            is_free = not run or before.isspace()
            return (
                is_free
                and not (before.isalnum() or before in (")", "}"))
                and (after.isalnum() or after in tuple("$\\(.\u221a"))
            )
        if not is_after_operand:
            return True
        if before.isspace() and not after.isspace():  # "5 -2" is one formula, "a -2" is not
            return run[-1].kind != "variable"
        return before.isspace() or not after.isspace()
    return kind not in ("end", "other")


def _formula(text: str, token: _Token, end: int, absent: set[str]) -> _Token:
    """The formula that a delimiter opens; the delimiter alone, as a currency or as nothing, where it opens none."""
    opening, start = token.text, token.end
    closing = _CLOSING.get(opening, "$")
    close = -1 if closing in absent else text.find(closing, start, end)
    while close > 0 and closing == "$" and text[close - 1] == "\\":
        close = text.find(closing, close + 1, end)
    if close < 0:
        absent.add(closing)
    elif opening != "$" or _is_formula(text, start, close):
        content, after = text[start:close], close + len(closing)
        is_table = opening.startswith(r"\begin") and opening[7:].rstrip("*}") in _TABLES
        return _Token("formula", token.start, after, text[token.start : after] if is_table else _rows(content))
    is_price = opening == "$" and (
        text[start : start + 1].isdecimal() or text[token.start - 1 : token.start].isdecimal()
    )
    return token._replace(kind="currency" if is_price or text[start : start + 1] == "." else "soft")


def _is_formula(text: str, start: int, close: int) -> bool:
    """Whether two dollar signs enclose a formula, and not the text between two prices."""
    if start == close:
        return False
    if text[start].isspace():
        return not _PROSE.search(text, start, close)
    return not text[close - 1].isspace() and not text[close + 1 : close + 2].isdecimal()


def _rows(content: str) -> str:
    """A formula on one line; of aligned rows the last one, with those before it that it goes on from."""
    content = " ".join(content.split()).strip(" .,;")
    if not any(rf"\begin{{{name}" in content for name in _ROWS) and not re.search(r"(?<!\\)&.*\\\\", content):
        return content
    if any(rf"\begin{{{name}" in content for name in _TABLES):
        return content
    content = re.sub(r"\\(?:begin|end)\{\w+\*?\}|(?<!\\)&", " ", content)
    rows = [row.strip(" .,;") for row in content.split(r"\\") if row.strip()]
    first = len(rows) - 1
    while first > 0 and re.match(r"[=<>]|\\(?:approx|le|ge|leq|geq|equiv)(?![a-z])", rows[first]):
        first -= 1
    return " ".join(" ".join(rows[max(first, 0) :]).split())


def _whole(run: list[_Token], follows_word: bool, text: str) -> Iterator[Expression]:
    """The expressions of a run: it is cut at brackets without a partner, and loose ends fall off."""
    if follows_word and run[0].text in _BINARY:
        # "price + 2 = 7": its left side is a word, so only what is after the equals sign is whole.
        run = run[next((place for place, token in enumerate(run) if token.text == "="), len(run)) :]
    if run and _NUMBERED.match(text, run[0].start) and _starts_line(text, run[0].start):
        run = run[3:]
    partners: set[int] = set()
    open_places: list[int] = []
    for place, token in enumerate(run):
        if token.kind == "opening":
            open_places.append(place)
        elif token.kind == "closing" and open_places:
            partners |= {place, open_places.pop()}
    piece: list[_Token] = []
    for place, token in enumerate(run):
        if token.kind in ("opening", "closing") and place not in partners:
            yield from _trimmed(piece, text)
            piece = []
        else:
            piece.append(token)
    yield from _trimmed(piece, text)


def _starts_line(text: str, place: int) -> bool:
    before = text[max(0, place - 8) : place]
    return not before.rpartition("\n")[2].strip(" \t*#-") and ("\n" in before or place <= 8)


def _trimmed(piece: list[_Token], text: str) -> Iterator[Expression]:
    first, last = 0, len(piece)
    while first < last:
        token, following = piece[first], piece[first + 1] if first + 1 < last else None
        is_loose = token.kind in ("comma", "postfix") or token.text in SPACES
        is_loose |= (
            token.kind == "sign"
            and token.text not in "\u00b1\u221a"
            and (token.text != "+" or _apart(token, following))
        )
        is_loose |= token.kind == "dash" and following is None
        is_loose |= (
            token.kind == "variable"
            and following is not None
            and following.kind in _OPERANDS
            and _apart(token, following)
        )
        if not is_loose:
            break
        first += 1
    while first < last:
        token, before = piece[last - 1], piece[last - 2] if last - 1 > first else None
        is_loose = token.kind in ("sign", "dash", "comma", "name") or token.text in SPACES
        is_loose |= token.kind == "currency" and before is None
        if token.kind == "variable" and before is not None and _apart(before, token):
            is_loose |= before.kind == "unit" or (before.kind in _OPERANDS and token.text in ("a", "A", "I"))
        if not is_loose:
            break
        last -= 1
    kept = piece[first:last]
    if kept:
        words = [kept[0].text]
        for place, (before, token) in enumerate(itertools.pairwise(kept), 1):
            words.append(" " if any(map(str.isspace, text[before.end : token.start])) else "")
            words.append("\u00d7" if _is_times(kept, place) else token.text)
        yield Expression(kept[0].start, kept[-1].end, "".join(words))


def _is_times(tokens: list[_Token], place: int) -> bool:
    """Whether a token is the x of "6 x 8"."""
    if tokens[place].text not in ("x", "X") or place + 1 == len(tokens):
        return False
    before, after = tokens[place - 1], tokens[place + 1]
    return before.kind == after.kind == "operand" and _apart(before, tokens[place]) and _apart(tokens[place], after)


def _apart(token: _Token, following: _Token | None) -> bool:
    return following is None or token.end < following.start
