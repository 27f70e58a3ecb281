"""Answers that are compared without a mathematics library: numbers, units, words, choices, and groups of these."""

import re
from typing import NamedTuple

from rl_posttrain.rewards.numbers import Number, read_number, same_number
from rl_posttrain.rewards.units import MAGNITUDES, normalized_unit, same_quantity

MAX_DEPTH = 8
# Spacing, delimiters and display commands: they change how an answer looks and not what it says.
_TYPOGRAPHY = re.compile(
    r"(?<!\\)\\[(),;:! ]|\\(?:left|right|displaystyle|textstyle|limits|q?quad)(?![a-z])|(?<!\\)\$|~"
)
# 1\,000 and 1{,}000, as LaTeX sets thousands.
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\\[,; ]|~|\{,\})(?=[0-9]{3}(?![0-9]))")
_SYMBOLS = str.maketrans({
    "\N{MINUS SIGN}": "-", "\u00a0": " ", "\u00b2": "^2", "\u00b3": "^3", "\N{GREEK SMALL LETTER PI}": r"\pi ",
    "\N{INFINITY}": r"\infty ", "\N{LESS-THAN OR EQUAL TO}": r"\le ", "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
    "\N{MIDDLE DOT}": r"\cdot ", "\N{MULTIPLICATION SIGN}": r"\times ", "\N{UNION}": r"\cup ",
})  # fmt: skip
_FONTS = re.compile(
    r"\\(text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mbox|operatorname|boldsymbol)\s*\{"
)
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree(?![a-z])|\N{DEGREE SIGN}")
_ASSIGNMENT = re.compile(r"([A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?)\s*(?:=|\\in(?![a-z]))\s*(.+)", re.DOTALL)
_LEAD_IN = re.compile(
    r"(?:the )?(?:final )?answer(?: is|:)\s*|\\approx(?![a-z])\s*|\\therefore(?![a-z])\s*", re.IGNORECASE
)
_QUANTITY = re.compile(
    r"((?:[-+0-9.,/{}()^%\s\u00d7]|\\(?:[cdt]?frac|times|cdot)(?![a-z])|(?<=[0-9])[eE](?=[-+]?[0-9]))+)([A-Za-z].*)"
)
_CHOICE = re.compile(r"\(([A-J])\)|\[([A-J])\]|([A-J])[.):]?|([a-j])\)|\(([a-j])\)")
_CHOSEN = re.compile(r"(?:option|choice|answer)?\s*\(?([A-Ja-j])(?:[.):]+(?:\s+.*)?)?", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_RELATION = r"(<=?|>=?|\\[lg](?:t|eq?|eqslant)(?![a-z]))"
_RANGE = re.compile(rf"(?:([^<>]+?)\s*{_RELATION}\s*)?([A-Za-z])\s*(?:{_RELATION}\s*([^<>]+))?")
_OPENING, _CLOSING = "([{", ")]}"


class Quantity(NamedTuple):
    """A number with its unit; a bare number has none."""

    number: Number
    unit: str | None


class Infinite(NamedTuple):
    sign: int


class Words(NamedTuple):
    text: str


class Group(NamedTuple):
    """Items in brackets. `brackets` is "" for a list without brackets and "{}" for a set; the order of both is free."""

    brackets: str
    items: tuple


class Matrix(NamedTuple):
    rows: tuple


class Assigned(NamedTuple):
    variable: str
    value: object


Answer = Quantity | Infinite | Words | Group | Matrix | Assigned


def cleaned(text: str) -> str:
    r"""An answer without typography: no math delimiters, \left and \right, LaTeX spaces; symbols as commands."""
    text = _THOUSANDS.sub("", text.replace(r"\!", "").translate(_SYMBOLS))
    text = " ".join(_TYPOGRAPHY.sub(" ", text).split()).removesuffix(".").strip()
    boxed = text.startswith(r"\boxed{") and _closing_brace(text, len(r"\boxed{")) == len(text) - 1
    return text[len(r"\boxed{") : -1].strip() if boxed else text


def read_answer(text: str, depth: int = 0) -> Answer | None:
    """Reads all of a cleaned `text`; None where only a mathematics library can read it."""
    text = text.strip()
    if (number := read_number(text)) is not None:
        return Quantity(number, "dollar" if text.startswith((r"\$", r"-\$")) else None)
    if not text or depth > MAX_DEPTH:
        return None
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix[2], depth)
    if assignment := _ASSIGNMENT.fullmatch(text):
        items = _split(assignment[2])
        if len(items) == 1 or assignment[2][0] in _OPENING + "\\":
            value = read_answer(assignment[2], depth + 1)
            return None if value is None else Assigned(assignment[1].replace(" ", ""), value)
    plain, is_text = _without_fonts(text)
    plain = _LEAD_IN.sub("", _DEGREES.sub(" degree ", plain), count=1).strip()
    if (number := read_number(plain)) is not None:
        return Quantity(number, None)
    if (infinite := re.fullmatch(r"([-+]?)\s*\\infty", plain)) is not None:
        return Infinite(-1 if infinite[1] == "-" else 1)
    if (quantity := _quantity(plain)) is not None:
        return quantity
    # Three letters with a vowel are a word; "xy" and "pqr" may be products.
    if _WORDS.fullmatch(plain) and (is_text or (len(plain) >= 3 and re.search("[aeiou]", plain.lower()))):
        return Words(" ".join(plain.lower().replace("-", " ").split()))
    return _inequality(plain) or _group(text, depth)


def read_choice(gold: str) -> str | None:
    """The letter, A to J, where the gold is a multiple-choice letter; else None."""
    match = _CHOICE.fullmatch(_without_fonts(gold)[0].strip())
    return next(letter for letter in match.groups() if letter).upper() if match else None


def chosen_letter(found: str) -> str | None:
    """The letter at the start of an answer to a multiple-choice question, such as C in "(C) 12"; else None."""
    match = _CHOSEN.fullmatch(_without_fonts(found)[0].strip())
    return match[1].upper() if match else None


def same_answer(found: Answer, gold: Answer, in_group: bool = False) -> bool:
    """Whether two answers are the same. "8/4" is not the same as 2: the division is left undone."""
    if isinstance(found, Assigned) and isinstance(gold, Assigned):
        return found.variable == gold.variable and same_answer(found.value, gold.value, in_group)
    if isinstance(found, Assigned) or isinstance(gold, Assigned):
        found, gold = (side.value if isinstance(side, Assigned) else side for side in (found, gold))
        return same_answer(found, gold, in_group)
    if isinstance(gold, Quantity) and isinstance(found, Group) and len(found.items) == 1:
        found = found.items[0]  # \{7\} and (7)
    if type(found) is not type(gold):
        return False
    if isinstance(gold, Quantity):
        return _same_quantity(found, gold)
    if isinstance(gold, Matrix):
        return [len(row) for row in found.rows] == [len(row) for row in gold.rows] and all(
            same_answer(a, b, True)
            for found_row, gold_row in zip(found.rows, gold.rows, strict=True)
            for a, b in zip(found_row, gold_row, strict=True)
        )
    if isinstance(gold, Group):
        return _same_group(found, gold)
    return found == gold


def _same_quantity(found: Quantity, gold: Quantity) -> bool:
    a, b = found.number, gold.number
    if a.is_quotient and b.value.denominator == 1:
        return False
    if found.unit is None or gold.unit is None:
        return same_number(a, b)
    return same_quantity(a.value, found.unit, b.value, gold.unit)


def _same_group(found: Group, gold: Group) -> bool:
    unordered = {"", "{}"}
    if gold.brackets not in unordered or found.brackets not in unordered:
        return (
            found.brackets == gold.brackets
            and len(found.items) == len(gold.items)
            and all(same_answer(a, b, True) for a, b in zip(found.items, gold.items, strict=True))
        )
    gold_items, found_items = list(gold.items), list(found.items)
    # "1, 2" answers "x = 1 or x = 2". It does not answer "x = 1, y = 2": it does not say which is which.
    variables = {item.variable for item in gold_items if isinstance(item, Assigned)}
    if len(variables) > 1 and not all(isinstance(item, Assigned) for item in found_items):
        return False
    covered = [any(same_answer(item, wanted, True) for wanted in gold_items) for item in found_items]
    return all(covered) and all(any(same_answer(item, wanted, True) for item in found_items) for wanted in gold_items)


def _without_fonts(text: str) -> tuple[str, bool]:
    r"""`text` without \text{...}, \mathbf{...} and the like around its parts, and whether one \text held all of it."""
    whole = re.fullmatch(r"\\text\w*\s*\{([^{}]*)\}|\\mbox\s*\{([^{}]*)\}", text)
    while match := _FONTS.search(text):
        end = _closing_brace(text, match.end())
        if end is None:
            break
        text = f"{text[: match.start()]} {text[match.end() : end]} {text[end + 1 :]}"
    return " ".join(text.split()), whole is not None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return None


def _quantity(text: str) -> Quantity | None:
    is_money = text.startswith((r"\$", r"-\$"))
    match = _QUANTITY.fullmatch(text.replace(r"\$", "", 1) if is_money else text)
    if match is None:
        return None
    number, rest = read_number(match[1]), match[2].strip()
    if number is None:
        return None
    word, _, after = rest.partition(" ")
    if word.lower() in MAGNITUDES:
        number, rest = Number(number.value * MAGNITUDES[word.lower()], False, False), after
    elif word.lower() in ("percent", "pct") and not number.is_percent:
        number, rest = Number(number.value / 100, True, number.is_quotient), after
    if not rest:
        return Quantity(number, "dollar" if is_money else None)
    unit = normalized_unit(rest)
    # "7x" and "7m" are products; "7cm" and "7 m" are not.
    is_product = not match[1][-1].isspace() and len(unit or "") < 2 and rest == match[2].strip()
    return None if unit is None or is_product else Quantity(number, unit)


def _inequality(text: str) -> Assigned | None:
    """The interval that an inequality describes: 1 < x <= 2, x > 2 or 2 > x."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    left, first, variable, second, right = match.groups()
    sides = [(read_number(left.strip()), first, True)] if left else []
    sides += [(read_number(right.strip()), second, False)] if right else []
    ends: dict[str, tuple[Answer, str]] = {}
    for number, relation, number_is_left in sides:
        if number is None:
            return None
        is_lower = ("<" in relation or relation.startswith(r"\l")) == number_is_left
        is_closed = relation not in ("<", ">", r"\lt", r"\gt")
        if ("lower" if is_lower else "upper") in ends:
            return None
        ends["lower" if is_lower else "upper"] = Quantity(number, None), ("([" if is_lower else ")]")[is_closed]
    lower, opening = ends.get("lower", (Infinite(-1), "("))
    upper, closing = ends.get("upper", (Infinite(1), ")"))
    return Assigned(variable, Group(opening + closing, (lower, upper))) if ends else None


def _matrix(body: str, depth: int) -> Matrix | None:
    rows = [row.split("&") for row in body.replace(r"\hline", "").split(r"\\") if row.strip()]
    read = tuple(tuple(read_answer(entry, depth + 1) for entry in row) for row in rows)
    return None if not read or any(entry is None for row in read for entry in row) else Matrix(read)


def _group(text: str, depth: int) -> Group | None:
    brackets, inner = "", text
    if text.startswith(r"\{") and text.endswith(r"\}"):
        brackets, inner = "{}", text[2:-2]
    elif text[0] in "([" and text[-1] in ")]" and _is_one_bracket(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    pieces = _split(inner)
    if not brackets and len(pieces) < 2 and r"\pm" not in text:
        return None
    if brackets and len(pieces) == 1 and re.fullmatch(r"[0-9]+(,[0-9]+)+", pieces[0].strip()):
        pieces = pieces[0].split(",")  # (1,234) is a point
    items: list[Answer | None] = []
    for piece in pieces:
        sign, mark, rest = piece.partition(r"\pm")
        if not mark:
            items.append(read_answer(piece, depth + 1))
        elif brackets not in ("", "{}"):
            return None
        else:
            items += [read_answer(f"{sign}{rest}", depth + 1), read_answer(f"{sign}-{rest.strip()}", depth + 1)]
    return None if any(item is None for item in items) else Group(brackets, tuple(items))


def _is_one_bracket(text: str) -> bool:
    """Whether the first bracket is closed by the last character, as in "(1, 2]" and not in "(1) + (2)"."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """The parts between commas, semicolons, "and" and "or" outside of brackets; 1,000 stays one part."""
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}|\s(?:and|or)\s|;", " , ", text)
    commas, depth = [], 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0 and text[place - 1 : place + 2] != "{,}":
            commas.append(place)
    spaced = [place for place in commas if text[place + 1 : place + 2].isspace()]
    if len(spaced) < len(commas):
        # 1,000, 2,000: split at the commas before a space, if every part then is a number.
        parts = _cut(text, spaced)
        if all(read_number(part.strip()) is not None for part in parts):
            return parts
    return _cut(text, commas)


def _cut(text: str, places: list[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *(p + 1 for p in places)], [*places, len(text)], strict=True)]


def is_only_numbers(answer: Answer) -> bool:
    """Whether an answer consists of numbers alone."""
    if isinstance(answer, Assigned):
        return is_only_numbers(answer.value)
    if isinstance(answer, Group):
        return all(is_only_numbers(item) for item in answer.items)
    if isinstance(answer, Matrix):
        return all(is_only_numbers(entry) for row in answer.rows for entry in row)
    return isinstance(answer, Quantity | Infinite)
