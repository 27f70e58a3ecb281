"""Reading all of an answer: numbers, units, words, times, expressions, relations, and groups of these."""

import functools
import itertools
import re

from rl_posttrain.rewards.answers.expressions import parse
from rl_posttrain.rewards.answers.forms import (
    Answer,
    Expression,
    Group,
    Infinite,
    Matrix,
    Quantity,
    Words,
)
from rl_posttrain.rewards.answers.nodes import Node
from rl_posttrain.rewards.answers.numbers import Number, read_number
from rl_posttrain.rewards.answers.pieces import in_one_bracket, pieces_of
from rl_posttrain.rewards.answers.relations import answer_of, both_ends, node_of, read_relation, union_of, without
from rl_posttrain.rewards.answers.times import UNIT_FRACTION, read_based, read_clock, shown_text
from rl_posttrain.rewards.answers.tokens import WORDS
from rl_posttrain.rewards.answers.units import MAGNITUDES, Unit, is_known, read_unit

MAX_DEPTH = 8
_MATRIX = re.compile(
    r"[(\[|]?\s*\\begin\s*\{([pbvBV]?(?:small)?matrix|array)\}\s*(?:\{[clr| ]*\})?(.*)\\end\s*\{\1\}\s*[)\]|]?",
    re.DOTALL,
)
_CONGRUENCE = re.compile(
    r"(?:[A-Za-z]\w*\s*\\equiv(?![A-Za-z])\s*)?(.+?)\s*\(?(?:\\pmod|\\bmod|\\?mod)(?![A-Za-z])\s*\{?\s*([^{}()]+?)\s*\}?\)?"
)
_SET_BUILDER = re.compile(
    r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:[|:]|\\text\{\s*such that\s*\})(.+)", re.DOTALL
)
_CURRENCY = re.compile(
    r"(-?)\s*(\\\$|Rs\.?|INR|USD|EUR|GBP|[\u00a3\u20ac\u00a5\u20b9])\s*(?=-?[0-9.\\])",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"((?:[-+0-9.,/{}()^%\s*]|\\(?:frac|times|cdot|overline|%|\$)(?![A-Za-z])|(?<=[0-9])[eE](?=[-+]?[0-9]))+)"
    r"((?:\\text\s*\{|\\degree|[A-Za-z\u00a2\u00a3\u20ac\u00a5\u20b9]).*)"
)
_UNIT_BEHIND = re.compile(
    r"(.*?[^\s\\])(\s*)(\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?[0-9]\}?)?|(?<![\\A-Za-z])[A-Za-z]{2,}[A-Za-z /^0-9]*)"
)
_PAIR = re.compile(r"([0-9.]+)\s*(?:\\text\{\s*)?([A-Za-z]+)\}?(?:\s|,|and|\}|$)*")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
_MINUS_PLUS = re.compile(r"\\mp(?![A-Za-z])")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_SAID = {
    "all real numbers": r"\mathbb{R}", "all reals": r"\mathbb{R}", "real numbers": r"\mathbb{R}",
    "empty set": r"\emptyset", "the empty set": r"\emptyset", "infinity": r"\infty",
}  # fmt: skip
REALS = Group("()", (Infinite(-1), Infinite(1)))


@functools.lru_cache(maxsize=16384)
def read_answer(text: str, depth: int = 0) -> Answer | None:
    """Reads all of a cleaned `text`; None where it is no answer that is known here."""
    text = text.strip()
    if (number := read_number(text)) is not None:
        return Quantity(number, read_unit("dollar", is_text=True, is_apart=True) if r"\$" in text[:3] else None)
    if not text or depth > MAX_DEPTH:
        return None
    if "matrix}" in text or "array}" in text:
        return _matrix(text, depth) or read_relation(text, lambda part: read_answer(part, depth + 1))
    if (special := read_clock(text) or read_based(text) or _congruence(text, depth)) is not None:
        return special
    if (group := _group(text, depth)) is not None:
        return group
    if (relation := read_relation(text, lambda part: read_answer(part, depth + 1))) is not None:
        return relation
    if (quantity := _quantity(text)) is not None:
        return quantity
    return _plain(text)


def _plain(text: str) -> Answer | None:
    words = _words(text)
    text = _SAID.get(words, text)
    if infinite := re.fullmatch(r"([-+]?)\s*[({]?\s*\\infty\s*[)}]?", text):
        return Infinite(-1 if infinite[1] == "-" else 1)
    if text in (r"\emptyset", r"\{ \}", r"\{\}"):
        return Group("{}", ())
    if text == r"\mathbb{R}":
        return REALS
    is_text = text.startswith(r"\text")
    behind = _UNIT_BEHIND.fullmatch(text)
    if behind is not None and behind[2] and is_known(behind[3]) and (measured := _with_unit(text)) is not None:
        return measured  # 12\pi cm^2
    if text.isalpha() and text.isupper() and (len(text) > 2 or (len(text) == 2 and set(text) <= set("IVXLC"))):
        return Words(words)  # an order or a name: ACB is not ABC
    node = parse(text)
    if _WORDS.fullmatch(words) and (
        is_text or words == "no" or (len(words) >= 3 and re.search("[aeiou]", words) and _is_plain(text))
    ):
        return Words(words, None if is_text else node)
    if node is not None:
        return Expression(node)
    return _with_unit(text)


def _words(text: str) -> str:
    """The words of an answer in small letters, with single spaces; "" where commands are among them."""
    shown = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    if "\\" in shown:
        return ""
    return " ".join(re.sub(r"(?<=[A-Za-z])-(?=[A-Za-z])", " ", shown).replace('"', " ").split()).lower().rstrip(".!")


def _is_plain(text: str) -> bool:
    """Whether words are no names of functions such as sin x."""
    return WORDS.isdisjoint(text.split())


def _with_unit(text: str) -> Expression | None:
    """An expression with a unit behind it: 2\\sqrt{3}\\text{ inches}, 12\\pi cm^2."""
    match = _UNIT_BEHIND.fullmatch(text)
    if match is None:
        return None
    is_text = match[3].startswith(r"\text")
    unit = read_unit(shown_text(match[3]), is_text=is_text, is_apart=bool(match[2]))
    node = parse(match[1])
    return None if unit is None or node is None else Expression(node, unit)


def _quantity(text: str) -> Quantity | Expression | None:
    """A number with a unit, a magnitude or a currency."""
    unit, rest = None, UNIT_FRACTION.sub(r"\1/\2", text)
    if currency := _CURRENCY.match(text):
        name = shown_text(currency[2]).strip().lower().rstrip(".")
        unit = read_unit("dollar" if name == r"\$" else name, is_text=True, is_apart=True)
        rest = currency[1] + rest[currency.end() :].strip()
        if (number := read_number(rest)) is not None:
            return Quantity(number, unit)
    if pairs := _pairs(rest):
        return pairs
    match = _QUANTITY.fullmatch(rest)
    number = read_number(match[1].rstrip(" (")) if match is not None else None
    if number is None:
        node = parse(rest) if unit is not None else None
        return None if node is None else Expression(node, unit)
    shown = " ".join(shown_text(match[2]).split()).replace("per cent", "percent")
    if match[1].rstrip().endswith("("):
        if not shown.endswith(")"):
            return None
        shown = shown[:-1]  # 9 (apples)
    word, _, after = shown.partition(" ")
    is_text, is_apart = match[2].startswith(r"\text"), match[1][-1].isspace()
    if word.lower() in MAGNITUDES:
        number, shown, is_apart = Number(number.value * MAGNITUDES[word.lower()], False, False), after, True
    elif word.lower() in ("percent", "pct", "percentage") and not number.is_percent:
        number, shown, is_apart = Number(number.value / 100, True, number.is_quotient), after, True
    if not shown:
        return Quantity(number, unit)
    own = read_unit(shown, is_text=is_text, is_apart=is_apart or match[2].startswith(r"\degree"))
    product = parse(text) if not is_text and len(shown) <= 4 else None
    return None if own is None else Quantity(number, _joined(unit, own), product)


def _joined(currency: Unit | None, unit: Unit) -> Unit:
    """The unit of $5 per hour; of $5 dollars, dollars."""
    if currency is None or unit.dimensions == currency.dimensions:
        return unit
    return Unit(currency.factor * unit.factor, tuple(sorted((*currency.dimensions, *unit.dimensions))))


def _pairs(text: str) -> Quantity | None:
    """5 feet 6 inches as one length."""
    pairs = _PAIR.findall(text)
    if len(pairs) < 2 or _PAIR.sub("", text).strip():
        return None
    units = [read_unit(name, is_text=False, is_apart=True) for _, name in pairs]
    numbers = [read_number(number) for number, _ in pairs]
    if None in units or None in numbers or len({unit.dimensions for unit in units}) != 1:
        return None
    if any(before.factor <= after.factor for before, after in itertools.pairwise(units)):
        return None
    total = sum(number.value * unit.factor for number, unit in zip(numbers, units, strict=True))
    return Quantity(Number(total / units[0].factor, False, False), units[0])


def _congruence(text: str, depth: int) -> Group | None:
    match = _CONGRUENCE.fullmatch(text) if "mod" in text and "begin" not in text else None
    items = [read_answer(part, depth + 1) for part in match.groups()] if match else [None]
    return None if None in items else Group("mod", tuple(items))


def _matrix(text: str, depth: int) -> Matrix | None:
    before, begin, rest = text.partition(r"\begin")
    factor = before.rstrip("([| ").rstrip()
    match = _MATRIX.fullmatch(before[len(factor) :].strip() + begin + rest)
    scale = parse("-1" if factor == "-" else factor) if factor else None
    if match is None or (factor and scale is None):
        return None
    rows = [row.split("&") for row in re.sub(r"\\hline", "", match[2]).split(r"\cr") if row.strip()]
    read = tuple(tuple(read_answer(entry, depth + 1) for entry in row) for row in rows)
    if not read or any(entry is None for row in read for entry in row):
        return None
    return Matrix(read) if scale is None else _scaled(scale, read)


def _scaled(scale: Node, rows: tuple) -> Matrix | None:
    """A number or expression times a matrix."""
    nodes = [[node_of(entry) for entry in row] for row in rows]
    if any(node is None for row in nodes for node in row):
        return None
    return Matrix(tuple(tuple(answer_of(Node(("*", scale, node))) for node in row) for row in nodes))


def _group(text: str, depth: int) -> Answer | None:
    """A list, set, point, interval or union; None where the text is none of them."""
    if (union := _union(text, depth)) is not None:
        return union
    brackets, inner = "", text
    if text.startswith(r"\{") and text.endswith(r"\}") and in_one_bracket(text[1:-2] + "}"):
        brackets, inner = "{}", text[2:-2]
        if builder := _SET_BUILDER.fullmatch(inner):
            return read_answer(builder[2], depth + 1)
    elif text.startswith(r"\langle") and text.endswith(r"\rangle"):
        brackets, inner = "()", text[len(r"\langle") : -len(r"\rangle")]
    elif text[0] in "([" and text[-1] in ")]" and in_one_bracket(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    if not brackets and ":" in text and (ratio := _ratio(text, depth)) is not None:
        return ratio
    pieces, connectors = pieces_of(inner)
    if brackets in ("()", "[]", "(]", "[)") and len(pieces) == 1:
        if re.fullmatch(r"-?[0-9]+(,[0-9]+)+", pieces[0].strip()):
            pieces = pieces[0].split(",")  # (1,234) is a point
        elif brackets == "()" and r"\pm" not in inner:
            # (7), (x+1): parentheses around one answer.
            return read_answer(inner, depth + 1) if read_number(inner) is None else None
        else:
            return None
    if not brackets and len(pieces) < 2 and r"\pm" not in text and r"\mp" not in text:
        return None
    items: list[Answer | None] = []
    for piece in pieces:
        if r"\pm" not in piece and r"\mp" not in piece:
            items.append(read_answer(piece, depth + 1))
        elif brackets not in ("", "{}"):
            return None
        else:
            items += [read_answer(signed, depth + 1) for signed in _all_signs(piece)]
    if any(item is None for item in items):
        return None
    if not brackets and (between := both_ends(items)) is not None and "or" not in connectors:
        return between
    if not brackets and connectors == {"or"} and (union := union_of(items)) is not None:
        return union
    return Group(brackets, tuple(items))


def _ratio(text: str, depth: int) -> Group | None:
    r"""\sqrt{3}:1 and a:b."""
    items = tuple(read_answer(part, depth + 1) for part in text.split(":"))
    return Group(":", items) if all(isinstance(item, Quantity | Expression) for item in items) else None


def _all_signs(text: str) -> list[str]:
    """1 \\pm \\sqrt{2} as two values; \\pm 1 \\pm \\sqrt{2} as four; a \\mp goes with the \\pm before it."""
    if r"\mp" in text or len(_PLUS_MINUS.findall(text)) < 2:
        return [_signed(text, "+", "-"), _signed(text, "-", "+")]
    first = [_PLUS_MINUS.sub(sign, text, count=1) for sign in ("+", "-")]
    return [signed for part in first for signed in (_all_signs(part) if r"\pm" in part else [part])][:8]


def _signed(text: str, plus_minus: str, minus_plus: str) -> str:
    return _MINUS_PLUS.sub(minus_plus, _PLUS_MINUS.sub(plus_minus, text))


def _union(text: str, depth: int) -> Group | None:
    """A union of intervals, or the real numbers without some."""
    if r"\setminus" in text or re.search(r"\\mathbb\{R\}\s*-", text):
        match = re.fullmatch(r"\\mathbb\{R\}\s*(?:\\setminus|-)\s*(\\\{.*\\\})", text)
        left_out = read_answer(match[1], depth + 1) if match else None
        return without(left_out.items) if isinstance(left_out, Group) else None
    parts = re.split(r"\\cup(?![A-Za-z])", text) if r"\cup" in text else ()
    if len(parts) < 2:
        return None
    read = [read_answer(part, depth + 1) for part in parts]
    return None if not all(isinstance(part, Group) for part in read) else Group("u", tuple(read))
