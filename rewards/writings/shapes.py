"""What kind of answer a gold looks like, told from its text alone."""

import re

from rl_posttrain.rewards.writings.text import (
    NUMBER,
    WHOLE,
    balanced,
    closes,
    is_one_bracket,
    items_of,
    split_at,
    tokens,
)
from rl_posttrain.rewards.writings.units import BASE_WORDS, NOT_UNITS, known_unit

SIGN = "[-+\N{MINUS SIGN}]?\\s*"
INTEGER = re.compile(rf"({SIGN})({WHOLE})")
DECIMAL = re.compile(rf"({SIGN})({WHOLE}?)\.([0-9]+)")
FRACTION = re.compile(
    rf"({SIGN})(?:([0-9]+)\s*)??(?:\\[dtc]?frac\s*(?:\{{\s*(-?{WHOLE})\s*\}}|([0-9]))\s*(?:\{{\s*({WHOLE})\s*\}}|([0-9]))"
    rf"|({WHOLE})/({WHOLE}))"
)
PERCENT = re.compile(rf"({SIGN}{NUMBER})\s*\\?%")
MONEY = re.compile(
    rf"(?:(\\?\$|\N{{POUND SIGN}}|\\pounds|\N{{EURO SIGN}})\s*({NUMBER})|({NUMBER})\s*(?:\\text\{{\s*)?(dollars)\}}?)"
)
TIME = re.compile(
    r"([0-9]{1,2})\s*(?::|\\text\{:\}|\{:\})\s*([0-9]{2})(?:\s*(?:\\text\s*\{)?\s*([ap])\.?\s*m\.?\s*\}?)?",
    re.IGNORECASE,
)
BASE = re.compile(r"\(?\s*([0-9A-F]+)\s*\)?_\s*(?:\{\s*(?:\\text\{)?\s*([0-9]+|[a-z]+)\s*\}?\s*\}|([0-9]))")
CHOICE = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?\(?(?:\\(?:text|textbf)\s*\{)?\(?([A-J])\)?\}?\)?\}?[.,]?"
)
_TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*)\}"
QUANTITY = re.compile(
    rf"({SIGN}(?:{NUMBER}|(?:[0-9]+\s*)?\\[dt]?frac\s*\{{{WHOLE}\}}\{{{WHOLE}\}}))\s*(?:\\[,; ]|~)*\s*"
    rf"(?:{_TEXT}((?:\s*\^\s*\{{?[23]\}}?)?)|([A-Za-z]{{2,}}(?:[ /][A-Za-z]+)*)((?:\s*\^\s*\{{?[23]\}}?)?)"
    r"|(\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|\N{DEGREE SIGN}|\\degree))"
)
WORDS = re.compile(r"[A-Za-z]+(?:[ '\-][A-Za-z]+)*")
EMPTY = re.compile("\\\\emptyset|\\\\varnothing|\N{EMPTY SET}")
MATRIX = re.compile(
    r"(?:\\left\s*[(\[])?\s*\\begin\{([pb]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}\s*(?:\\right\s*[)\]])?",
    re.DOTALL,
)
RELATION = r"\\(?:leqslant|geqslant|leq?|geq?|lt|gt)(?![a-z])|[<>\u2264\u2265]"
_MAX_WORDS = 5
MAX_CHARACTERS = 300
_MATHEMATICS = {
    "frac", "dfrac", "tfrac", "cfrac", "sqrt", "pi", "left", "right", "cdot", "times", "sin", "cos", "tan", "cot",
    "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "exp", "binom", "circ", "pm", "infty", "mathrm", "sinh",
    "cosh", "tanh", "lfloor", "rfloor", "phantom", "overline", "bar", "vec", "div", "quad",
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma", "tau", "phi", "omega",
}  # fmt: skip


def bare(gold: str) -> str:
    """A gold without the dollar signs around all of it, and without a full stop or comma behind it."""
    gold = " ".join(gold.split())
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = gold[len(opening) : len(gold) - len(closing)]
        if len(gold) > len(opening + closing) and gold == opening + inner + closing and "$" not in inner:
            return bare(inner)
    return gold if re.search(r"[ap]\.\s?m\.$|[A-Z]\.[A-Z]\.$", gold, re.IGNORECASE) else gold.rstrip(".,; ").strip()


def shape_of(gold: str) -> str:
    """The kind of a bare gold: integer, decimal, fraction, percent, money, time, base, quantity, choice, word, matrix,
    equation, inequality, interval, set, point, list, expression, or other."""
    if len(gold) > MAX_CHARACTERS or not gold.isprintable() or not balanced(gold):
        return "other"
    for shape, pattern in _WHOLE_PATTERNS.items():
        if (match := pattern.fullmatch(gold)) and _CHECKS.get(shape, bool)(match):
            return shape
    text = re.fullmatch(_TEXT, gold)
    words = (text[1] if text else gold).strip()
    if WORDS.fullmatch(words) and (text or _is_word(gold)) and len(words.split()) <= _MAX_WORDS:
        return "word"
    if re.fullmatch(r"[^=]*[^=<>!\\:]=[^=]+", gold) and len(items_of(gold)) == 1 and not re.search(RELATION, gold):
        return "equation" if len(split_at(gold, "=")) == 2 and all(split_at(gold, "=")) else "other"
    if re.search(RELATION, gold):
        return "inequality" if _is_inequality(gold) else "other"
    return _bracket_shape(gold)


_WHOLE_PATTERNS = {
    "choice": CHOICE, "integer": INTEGER, "decimal": DECIMAL, "fraction": FRACTION, "percent": PERCENT, "money": MONEY,
    "time": TIME, "base": BASE, "matrix": MATRIX, "quantity": QUANTITY,
}  # fmt: skip


def _is_in_base(match: re.Match) -> bool:
    """Whether the base is 2 to 16 and has all the digits."""
    base = in_base(match)[1]
    return base.isdecimal() and 2 <= int(base) <= 16 and max(int(digit, 16) for digit in match[1]) < int(base)


def in_base(match: re.Match) -> tuple[str, str]:
    """The digits and the base, as digits, of a match of `BASE`."""
    digits, base, short = match.groups()
    numbers = {word: str(number) for number, word in BASE_WORDS.items()}
    return digits, numbers.get(base or short, base or short)


def _is_quantity(match: re.Match) -> bool:
    """Whether letters behind a number are a unit: text, degrees, a known unit, or words behind a space."""
    text, word = match[2], match[4]
    if set(re.findall("[a-z]+", (text or word or "").lower())) & NOT_UNITS:
        return False
    if word is None:
        return True
    is_apart = match[0][match.end(1) : match.start(4)].isspace()
    return known_unit(word) is not None or (is_apart and all(map(_is_word, re.split("[ /]", word))))


_CHECKS = {"quantity": _is_quantity, "base": _is_in_base}


def _is_word(text: str) -> bool:
    words = re.split("[ '-]", text)
    return min(map(len, words)) >= 2 and max(map(len, words)) >= 3 and re.search("[aeiou]", text.lower()) is not None


def _is_inequality(gold: str) -> bool:
    sides = split_at(gold, RELATION)
    variable = re.compile(r"[A-Za-z]|\\(?:theta|alpha|lambda|mu)")
    if len(sides) != len(re.findall(RELATION, gold)) + 1:
        return False
    if any(len(items_of(side)) > 1 or "=" in side or not closes(side) for side in sides):
        return False
    return len(sides) in (2, 3) and all(sides) and sum(variable.fullmatch(side) is not None for side in sides) == 1


def _bracket_shape(gold: str) -> str:
    flat = re.sub(r"\\(?:left|right)\s*", "", gold)
    if not flat:
        return "other"
    if EMPTY.fullmatch(flat):
        return "set"
    pieces = split_at(flat, "\\\\cup(?![a-z])|\N{UNION}")
    if len(pieces) > 1:
        return "interval" if all(_interval(piece, in_union=True) for piece in pieces) else "other"
    if flat.startswith(r"\{") and flat.endswith(r"\}"):
        inner = flat[2:-2].strip()
        is_one = is_one_bracket(flat[1:].replace(r"\}", "}").replace(r"\{", "{"))
        return "set" if is_one and inner and all(map(_is_item, items_of(inner.replace(r"\pm", "-")))) else "other"
    if flat[0] in "([" and flat[-1] in ")]" and is_one_bracket(flat):
        if _interval(flat):
            return "interval"
        items = items_of(flat[1:-1])
        if len(items) > 1:
            return "point" if flat[0] + flat[-1] == "()" and all(map(_is_item, items)) else "other"
        return _expression(gold)
    if len(items_of(gold)) > 1 or r"\pm" in gold:
        return "list" if all(map(_is_item, items_of(gold.replace(r"\pm", "-")))) else "other"
    return _expression(gold)


def _is_item(item: str) -> bool:
    """Whether a part between commas is an item of a list, and not a part of a sentence."""
    return bool(item) and shape_of(item) != "other" and not re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,} ", item)


def _interval(text: str, in_union: bool = False) -> bool:
    """Whether brackets hold two ends, and are not those of a point; in a union there are no points."""
    if not re.fullmatch(r"[(\[].*[)\]]", text) or not is_one_bracket(text):
        return False
    ends = items_of(text[1:-1])
    if len(ends) != 2 or not all(map(_is_item, ends)):
        return False
    return in_union or text[0] + text[-1] != "()" or "\\infty" in text or "\N{INFINITY}" in text


def _expression(gold: str) -> str:
    if not re.search("[0-9A-Za-z]", gold):
        return "other"
    for token in tokens(gold):
        name = token[1:] if token.startswith("\\") else ""
        if name.isalpha() and name not in _MATHEMATICS:
            return "other"
        if token.isalpha() and len(token) > 5:
            return "other"
    return "expression" if not re.search(r"[,;:?\"']|\s[A-Za-z]{3,}\s", gold) else "other"
