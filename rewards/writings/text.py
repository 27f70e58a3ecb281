r"""Taking LaTeX apart as text: tokens, the parts between commas, the terms of a sum, brackets.

Nothing here knows what an answer is worth: the generator is a check on the reward's reader, and shares nothing with it.
"""

import re
from collections.abc import Callable

# The thousands of one number: 1,000, 1{,}000, 1\,000, 1,\!000 and 1,\! 000.
THOUSANDS = r"(?:,\\!\s?|\{,\}|\\,|\\ |\\!|,)"
WHOLE = rf"(?:[0-9]{{1,3}}(?:{THOUSANDS}[0-9]{{3}})+(?![0-9])|[0-9]+)"
NUMBER = rf"(?:{WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_TOKEN = re.compile(
    rf"\\(?:text\w*|mathrm|mbox|operatorname)\s*\{{[^{{}}]*\}}|\\begin\{{\w+\}}(?:\{{[clr|]*\}})?|\\end\{{\w+\}}"
    rf"|\\[A-Za-z]+|\\.|{NUMBER}|[A-Za-z]+|\s+|.",
    re.DOTALL,
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SHORT_ARGUMENT = re.compile(r"\\(?:[dtc]?frac|sqrt|binom)\s*[0-9A-Za-z\\]|\^\s*[0-9]{2}|\\frac\s*\{[^{}]*\}\s*[0-9]")
GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu",
    "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega",
)  # fmt: skip
_LETTER = re.compile(rf"\\(?:{'|'.join(GREEK)})(?![A-Za-z])|(?<![\\A-Za-z])[A-Za-z]+")
_OPENING, _CLOSING = "([{", ")]}"


def tokens(text: str) -> list[str]:
    """Commands, numbers, runs of letters, runs of white space and single characters; joined they are the text."""
    return _TOKEN.findall(text)


def spaced(text: str) -> str | None:
    """The text with a space between any two tokens; None where TeX would read it otherwise."""
    if _SHORT_ARGUMENT.search(text):
        return None
    return " ".join(token for token in tokens(text) if not token.isspace())


def compact(text: str) -> str:
    """The text without the spaces that TeX does not need. Between items of a list and before words they stay."""
    kept = ""
    parts = tokens(text)
    for place, token in enumerate(parts):
        if not token.isspace():
            kept += token
            continue
        after = parts[place + 1] if place + 1 < len(parts) else ""
        ends_a_command = place > 0 and _COMMAND.fullmatch(parts[place - 1])
        glues = kept[-1:].isalnum() and (after[:1].isalnum() or after[:1] == "(")
        if (ends_a_command and after[:1].isalpha()) or glues or kept[-1:] in ",;" or after.startswith(r"\text"):
            kept += " "
    return kept


def is_one_bracket(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth <= 0:
            return place == len(text) - 1 and bool(text)
    return False


def balanced(text: str) -> bool:
    r"""Whether every brace is closed, and \left and \begin have their ends."""
    depth = 0
    for character in text.replace(r"\{", "").replace(r"\}", ""):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    pairs = ((r"\left", r"\right"), (r"\begin", r"\end"))
    counts = [[len(re.findall(rf"\{name}(?![a-z])", text)) for name in pair] for pair in pairs]
    return depth == 0 and all(first == second for first, second in counts)


def closes(text: str) -> bool:
    """Whether as many brackets close as open, of all kinds together, and none closes first."""
    depth = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return False
    return depth == 0


def split_at(text: str, separator: str) -> list[str]:
    """The stripped parts between the matches of a regular expression outside of all brackets and environments."""
    pattern = re.compile(separator)
    parts, start, place, depth = [], 0, 0, 0
    while place < len(text):
        if depth == 0 and (match := pattern.match(text, place)) and match.end() > place:
            parts.append(text[start:place].strip())
            start = place = match.end()
            continue
        if text.startswith(r"\begin", place) or text.startswith(r"\end", place):
            depth += 1 if text.startswith(r"\begin", place) else -1
            place += 4
            continue
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
        place += 1
    return [*parts, text[start:].strip()]


def items_of(text: str) -> list[str]:
    r"""The items of a list: between commas (not those of 1,000 or 1{,}000), semicolons, and the words and, or."""
    word = r"\s*,?\s*\\text\s*\{\s*(?:and|or)\s*\}\s*|\s*,?\s+(?:and|or)\s+"
    parts = split_at(text, rf"{word}|;|,(?!\\!)")
    if len(parts) > 2 and all(re.fullmatch(r"[0-9]{3}", part) for part in parts[1:]) and not re.search(r",\s", text):
        return [text]
    return parts


def terms_of(text: str) -> list[tuple[str, str]]:
    """The sign ("+" or "-") and the text of each term of a sum; one term where it is none."""
    if "|" in text:
        return [("+", text)]
    found: list[tuple[str, str]] = []
    sign, start, depth, place = "+", 0, 0, 0
    while place < len(text):
        character = text[place]
        depth += (character in _OPENING) - (character in _CLOSING)
        before = text[start:place].strip()
        if depth == 0 and character in "+-" and not re.search(r"(\^|_|\\times|\\cdot|\*|/|\\pm|\\mp)$", before):
            if before:
                found.append((sign, before))
                sign = character
            else:
                sign = "-" if (sign == "-") != (character == "-") else "+"
            start = place + 1
        place += 1
    return [*found, (sign, text[start:].strip())]


def sum_of(terms: list[tuple[str, str]], joint: str = " ") -> str:
    """The text of a sum, from `terms_of`."""
    first, *rest = terms
    text = ("-" if first[0] == "-" else "") + first[1]
    return text + "".join(f"{joint}{sign}{joint}{term}" for sign, term in rest)


def variables_of(text: str) -> list[str]:
    """The letters that stand for something: all but those of commands, of text, of e, of i and of units."""
    text = re.sub(
        r"\\(?:text\w*|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\(?:begin|end)\{\w+\}(?:\{[clr|]*\})?", " ", text
    )
    found: dict[str, None] = {}
    for run in _LETTER.findall(text):
        found |= dict.fromkeys([run] if run.startswith("\\") else run)
    return [name for name in found if name not in ("e", "i")]


def outside_text(text: str, change: Callable[[str], str]) -> str:
    r"""`change` on all of the text but what stands in \text{...} and the names of environments."""
    kept = re.compile(r"(\\(?:text\w*|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\(?:begin|end)\{\w+\}(?:\{[clr|]*\})?)")
    return "".join(part if place % 2 else change(part) for place, part in enumerate(kept.split(text)))


def replaced(text: str, name: str, other: str) -> str:
    """The text with one variable called otherwise."""

    def change(part: str) -> str:
        if name.startswith("\\"):
            return re.sub(rf"\{name}(?![A-Za-z])", lambda _: other, part)
        return re.sub(r"\\[A-Za-z]+|[A-Za-z]", lambda match: other if match.group() == name else match.group(), part)

    return outside_text(text, change)


def plain_number(text: str) -> str:
    """A whole or decimal number without the marks of its thousands."""
    return re.sub(THOUSANDS, "", text).strip()
