"""The answer that a text states without a box, tag or mark: what it calls its answer, or its last expression."""

import itertools
import re

from rl_posttrain.rewards.spans import Expression, expressions
from rl_posttrain.rewards.vocabulary import BEFORE, BETWEEN, LABEL, LISTS, OPENS_CLAUSE

_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\\?\w)|(?<![\w\\])[A-Za-z][0-9]+")
_VALUE = re.compile(
    r"[0-9\u00bc-\u00be\u2150-\u215e\u03c0\u221e\u221a\u2205]|(?<![A-Za-z])pi(?![A-Za-z])|\\(?:[dtc]?frac|sqrt|pi|infty|emptyset|varnothing|d?binom|"
    r"log|ln|sin|cos|tan|cot|sec|csc|arc\w+|exp|text\w*|mathrm|mathbf|begin)(?![A-Za-z])"
)
_RELATES = re.compile(
    r"[\w)}\]]\s?(?:[-+*=^<>\u00b1\u00d7\u00f7\u2212]|\\(?:cdot|times|div|pm|l[et]q?|g[et]q?|neq?|approx)(?![a-z]))"
    r"\s?[\w({\\]"
)
_OPTION = re.compile(r"[(\[][A-J][)\]]")
_CHOICE = re.compile(r"(?:[Oo]ption|[Cc]hoice)\s\(?[A-J]\)?|[(\[][A-J][)\]]")
_IMPLIES = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow|therefore|iff)(?![A-Za-z])|[\u21d2\u27f9\u2234]|=>")
_ASSIGNS = re.compile(r"[\s$(]*(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?|\([A-Za-z]\))?\s*(?:=|\\in|\\approx)[^=]*")
_LONE_NUMBER = re.compile(r"\(?[0-9]{1,4}(?:\.[0-9]+)*\)?")
_NUMBERED_LINE = re.compile(r"^[ \t*#]*([0-9]{1,2})[.)](?=\s|$)", re.MULTILINE)
_MARKS = re.compile(r"[*`]|(?<!\w)_|_(?![\w{])|(?<!\\)\$|\\[()\[\]]")

_LEAD_IN = re.compile(
    r"(?<!\w)(?:answers?|ans\.?|correct (?:option|choice|letter|one))(?: (?:choice|option))?"
    r"(?: (?:to|for|of|in)(?!\w)[^.:\n=$]{0,80}?)?[*_`\s]{0,8}"
    r"(?:(?<!\w)(?:is|are|was|will be|would be|should be|must be)(?!\w)|[:=])[*_`:\s]{0,8}"
    r"(?:(?:therefore|thus|then|hence|so|simply|just|clearly|indeed|given by|equal to|option|choice)(?!\w)"
    r"[*_`:,\s]{0,8})*"
    r"|<answer(?:\s[^<>]{0,80})?>",
    re.IGNORECASE,
)
_REVERSED = re.compile(r"(?<!\w)([A-J]|\([A-J]\)) is (?:therefore )?(?:the )?(?:correct|right|best|answer)(?!\w)")
_SENTENCE_END = re.compile(r"[.!?](?=[\"')*\]_`$]{0,8}(?:\s|$))|\n|<[/|]|$")
# "B, since ..." states B; "A, B, C or D" states none.
_OTHER_LETTER = r"\s*(?:and\s|or\s)?[(\[]?(?:[A-J](?![A-Za-z'])|[a-j](?=\W*$|\W+[a-j](?!\w)))"
_LETTER = re.compile(rf"[(\[]?([A-Ja-j])(?:[)\]][.:]?|[.:]|$|(?=,(?!{_OTHER_LETTER})|\s(?:because|since|as)\s))")
_VERDICTS = "yes|no|true|false|impossible|none"
_VERDICT = re.compile(
    rf"({_VERDICTS})(?!\s+\w|\w|,\s*(?:or\s)?(?:{_VERDICTS})(?!\w))|(yes|no|true|false)(?=,? (?:because|since|as) )",
    re.I,
)
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\u2019-][^\W\d_]+){0,4}")
_ENDS_SENTENCE = re.compile(r"[*_`$ ]*(?:[.,;:!?)\n<]|$|(?:because|since|as|is)\s)")
_IS_SUBJECT = re.compile(r"[*`$]* (?:is|are|was|were|has|have|remains?|equals?)(?!\w)")
_CONDITION = re.compile(
    r"(?:(?<!\w)where|, (?:for(?: all| any| every| each)?|with|when|whenever|if|provided|assuming|given))(?: that)?"
    r"[ $*]*$"
)
_INEQUALITY = re.compile(r"[<>\u2264\u2265\u2260\u2208]|\\(?:[lg](?:t|eq?|eqslant)|neq?|in)(?![A-Za-z])")
_TAKEN_BACK = re.compile(r"[*`$\s]{0,4}(?:is|are|was|were)\s(?:not|wrong|incorrect|false|too|impossible)(?!\w)")
_COUNTED = re.compile(r"[0-9] (?!and )[a-z]{3,}")
_NO_ANSWER = re.compile(
    r"(?:(?:indeed|also|therefore|thus|not|now|in)\s)*(?:correct|right|wrong|incorrect|valid|invalid|reasonable|clear|"
    r"obvious|consistent|confirmed|verified|above|below|as follows|found|given|unclear|unknown|complete|simplified|"
    r"simplest form|the box|box|boxed|that|this|it)(?:\s\w+)*|not",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# The square of 7 is not said to be 7.
_SAYS = re.compile(
    r"(?:=|:|(?<![A-Za-z])(?:is|are|was|were|equals?|equal to|be|becomes?|gives?|has|have|had|gets?|got|needs?|makes?"
    r"|made|earns?|earned|sold|spends?|spent|pays?|paid|costs?|takes?|took|uses?|used|won|saves?|saved|owes?"
    r"|left with|total of|answer)(?: (?:a total of|exactly|now|still|only|therefore|thus|then))?)[\s$(]*$",
    re.IGNORECASE,
)
_CODE = re.compile(r"[?;@#]|__|['\"]\)|\(['\"]")
_TAKES_BACK = re.compile(
    r"(?<![\\A-Za-z])(?:not|no|never|none|neither|nor|or|either|maybe|perhaps|if|wrong|incorrect|isn|aren|don|doesn|cannot|"
    r"more|less|fewer|greater|smaller|larger|least|most|than|over|under|above|below|between|about|around|nearly|almost|"
    r"roughly|minus|plus|times|divided|squared|cubed|except|unless|but|instead|assume|suppose|let|find|compute|could|might|"
    r"may be|would|possibly|probably|guess|think|believe)(?![A-Za-z])",
    re.IGNORECASE,
)
MAX_CHARACTERS = 20_000
_NEAR_END = 500
# "The answer is found by a sum" tells no answer.
_REMARK = re.compile(
    r"(?<!\w)(?:a|an|the|and|or|but|both|by|of|in|on|to|for|from|with|at|as|that|which|if|when|also|very|quite|more|most|"
    r"less|satisfied|obtained|slightly|straightforward|simple|simply|easy|equal|same|similar)(?!\w)",
    re.IGNORECASE,
)
_PARAGRAPH_END = re.compile(r"answer(?: is)?[*_`:#\s]*$", re.IGNORECASE)


def last_expression(text: str) -> str | None:
    r"""The last answer that the text states, whole: its last expression, or the words that it calls its answer.

    Numbers, formulas, quantities, dates, times, and lists of these are expressions. A list of guesses is one ("6 or
    7"), and so is a formula that is not worked out ("3 + 4"). "The answer is X", "Answer: X" and the like may also
    state words or a letter, if no expression follows later. A text of a few words only is an answer, too. Of a longer
    text the last 20,000 characters are read.
    """
    text = _near_end(text)
    end = len(text)
    while end > 0:
        paragraph = text.rfind("\n\n", 0, end) + 1
        # What decides mostly stands near the end: then only that is read.
        for start in (max(paragraph, _cut(text[:end], end - _NEAR_END)), paragraph):
            found = _stated(text, start, end)
            if found is not None:
                return found
            if start == paragraph:
                break
        end = len(text[:paragraph].rstrip())
    return None


def _cut(text: str, place: int) -> int:
    """The first start of a line, sentence or word soon behind a place; 0 where the text starts later."""
    if place <= 0:
        return 0
    starts = (text.find(mark, place, place + 200) + len(mark) for mark in ("\n", ". ", " "))
    return next((start for start in starts if start > place), place)


def stated(text: str) -> str | None:
    """As `last_expression`, for a single line or sentence: "42 apples" of "She has 42 apples left."."""
    text = _near_end(text)
    return _stated(text, 0, len(text))


def said_in(text: str) -> str | None:
    """The expression in a sentence that a box or a tag holds ("She has 42 apples left."); None if it takes it back.

    A sentence has three words or more beside the expression. One that asks, denies, compares or guesses ("more than 7",
    "not 7", "7 or more") says no answer.
    """
    text = _TEXT.sub(r" \1 ", text)
    if _CODE.search(text) or _TAKES_BACK.search(text) or len(_WORD.findall(text)) < 3:
        return None
    found = stated(text)
    if found is None:
        return None
    before = text[: text.rfind(found)]
    return found if _SAYS.search(before) else None


def _near_end(text: str) -> str:
    text = text.rstrip()
    return text[_cut(text, len(text) - MAX_CHARACTERS) :]


def _stated(text: str, start: int, end: int) -> str | None:
    found = _last_whole(text, start, end)
    lead_in = None
    for lead_in in _LEAD_IN.finditer(text, start, end):  # noqa: B007  the last match is the one wanted
        pass
    if lead_in is not None:
        value_end = _SENTENCE_END.search(text, lead_in.end(), end).start()
        # An expression in a later sentence is the last word. A closing formula holds none.
        if found is None or found.start < value_end:
            value = _value(text, lead_in.end(), value_end, found)
            if value is not None:
                return value
    if found is not None:
        return found.text
    reversed_statement = _REVERSED.search(text, start, end)
    return reversed_statement[1] if reversed_statement else _bare_words(text, start, end)


def _last_whole(text: str, start: int, end: int) -> Expression | None:
    """The last answer-shaped expression, with the others that it is one list, sum or range with; or None."""
    found = expressions(text, start, end)
    numbered: set[int] | None = None
    while found:
        last = found[-1]
        if _is_line_number(last, text):
            numbered = numbered or {int(match[1]) for match in _NUMBERED_LINE.finditer(text)}
            number = int(last.text)
            if (number - 1 if number > 1 else 2) not in numbered:
                break
        elif _is_answer(last, text) and not (len(found) > 1 and _is_condition(last, text)):
            break
        found.pop()
    if not found:
        return None
    items = [found.pop()]
    while found and _are_one(found[-1], items[-1], text):
        items.append(found.pop())
    items.reverse()
    if any("=" in item.text and not _ASSIGNS.fullmatch(item.text) for item in items):
        # Steps, and not a list of solutions: what follows the last comma counts.
        pairs = enumerate(itertools.pairwise(items), 1)
        items = items[max((place for place, (a, b) in pairs if LISTS.search(text[a.end : b.start])), default=0) :]
    first, last = items[0], items[-1]
    before = BEFORE.search(text, max(start, first.start - 40), first.start)
    begin = before.start() if before else first.start
    pieces = [text[begin : first.start]]
    for item, following in zip(items, [*items[1:], None], strict=True):
        pieces.append(item.text)
        pieces.append(_MARKS.sub("", text[item.end : following.start]) if following else "")
    if text.startswith(")", last.end) and "".join(pieces).count("(") > "".join(pieces).count(")"):
        pieces.append(")")  # 3 (mod 7)
    whole = _IMPLIES.split("".join(pieces))[-1]
    left, _, right = whole.rpartition("=")
    # "3 apples + 4 apples = 7 apples"
    return Expression(begin, last.end, (right if _COUNTED.search(left) else whole).strip())


def _is_answer(expression: Expression, text: str) -> bool:
    """Whether an expression can be an answer: it has a value or a relation, and it is no label such as "step 3"."""
    if _TAKEN_BACK.match(text, expression.end):
        return False
    if _LONE_NUMBER.fullmatch(expression.text):
        return not LABEL.search(text, max(0, expression.start - 20), expression.start)
    options = _OPTION.findall(expression.text)
    if options or _CHOICE.match(expression.text):
        # More of them repeat the question; "(B) From" starts a part of the text.
        return len(options) < 2 and (not options or _ENDS_SENTENCE.match(text, expression.end) is not None)
    bare = _SUBSCRIPT.sub("", expression.text)
    return (_VALUE.search(bare) or _RELATES.search(bare)) is not None


def _is_condition(expression: Expression, text: str) -> bool:
    """Whether the expression only says for which values the one before it holds, as in "7, where x > 0"."""
    leads = _CONDITION.search(text, max(0, expression.start - 30), expression.start)
    return leads is not None and _INEQUALITY.search(expression.text) is not None


def _is_line_number(expression: Expression, text: str) -> bool:
    """Whether the expression is the number that a line starts with, as in "2. Add them."."""
    if not (
        expression.text.isdecimal() and len(expression.text) <= 2 and text[expression.end : expression.end + 1] in ".)"
    ):
        return False
    line_start = text.rfind("\n", max(0, expression.start - 10), expression.start) + 1
    before = text[line_start if line_start else max(0, expression.start - 10) : expression.start]
    return not before.strip(" \t*#(") and (line_start > 0 or expression.start < 10)


def _are_one(first: Expression, second: Expression, text: str) -> bool:
    gap = text[first.end : second.start]
    if len(gap) > 40 or "\n" in gap or not BETWEEN.fullmatch(gap) or not _is_answer(first, text):
        return False
    if "," not in gap:
        return True
    # "Of 12, 5 are red", "it equals 12, and 12 is even"
    opens_clause = OPENS_CLAUSE.search(text, max(0, first.start - 60), first.start)
    return opens_clause is None and not _IS_SUBJECT.match(text, second.end)


def _value(text: str, start: int, end: int, found: Expression | None) -> str | None:
    """What "the answer is" states, unless that is the expression `found`; None where it states nothing."""
    plain = _MARKS.sub("", text[start:end]).strip(" \t.,:;\"'")
    if verdict := _VERDICT.match(plain):
        return verdict.group()
    has_expression = found is not None and found.end > start
    if letter := _LETTER.match(plain):
        is_value_behind = has_expression and plain in (found.text, f"{letter.group()} {found.text}")
        return plain if is_value_behind else letter.group()
    if has_expression:
        return None
    if _WORDS.fullmatch(plain):
        return None if _NO_ANSWER.fullmatch(plain) or _REMARK.search(plain) else plain
    candidates = expressions(text, start, end)
    return candidates[0].text if len(candidates) == 1 and candidates[0].text == plain else None


def _bare_words(text: str, start: int, end: int) -> str | None:
    """The words of a text that has no others, or what its last line has in bold; else None."""
    line = text[max(start, text.rfind("\n", start, end) + 1) : end].strip()
    plain = _MARKS.sub("", line).strip(" \t.,!\"'")
    if plain.count(" ") > 2 or not _WORDS.fullmatch(plain.strip("()[]")):
        return None
    is_alone = not text[:start].strip() and len(line) == len(text.strip())
    is_answer = (
        is_alone or re.fullmatch(r"\(?[A-J]\)?", plain) or (line.startswith("**") and line.rstrip(".!").endswith("**"))
    )
    is_answer = is_answer or _PARAGRAPH_END.search(text, max(0, start - 40), len(text[:start].rstrip()))
    return plain if is_answer else None
