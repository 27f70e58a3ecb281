"""Answers that are not worked out: the question repeated as a formula, or a computation that is too large."""

import re
import unicodedata

# Operations that a question asks for. An answer may contain one only if the gold does.
_OPERATIONS = re.compile(
    r"\\(?:i{1,3}nt|oint|sum|prod|lim|[dt]?binom|choose|det|gcd|lcm|max|min|[bp]?mod|Pr|nabla)(?![a-z])"
    r"|\\[cdt]?frac\s*\{\s*(?:d|\\partial)[^a-z{}]*\}|!"
)
_FUNCTIONS = {
    "arc": re.compile(r"\\arc[a-z]+|\\(?:sin|cos|tan|cot|sec|csc)\s*\^\s*\{?\s*-"),
    "hyperbolic": re.compile(r"\\(?:sinh|cosh|tanh|coth)(?![a-z])"),
    "trigonometric": re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z]|\s*\^\s*\{?\s*-)"),
    "logarithm": re.compile(r"\\(?:log|ln|lg)(?![a-z])"),
    "absolute value": re.compile(r"\|[^|]*\|"),
}
# Exponents of five digits, towers of powers, runs of signs, large or repeated factorials. Right answers do not contain
# them, and a comparison would use up its time limit. Refusing them here saves that time.
_EXPLODES = re.compile(
    r"\^\s*\{?\s*-?\s*[0-9]{5,}|[0-9]\s*\^\s*\{?\s*[0-9]+\s*\}?\s*\^|[0-9]{4,}\s*!|!\s*!|\)\s*!|\*\s*\*"
    r"|(?:[-+]\s*){4}|(?:\^\s*\{?\s*[0-9a-z]+\s*){3}"
)
MAX_CHARACTERS = 300
MAX_NESTING = 20
_NAMES = re.compile(r"\\[A-Za-z]+|\\begin\{\w+\}|[A-Za-z]")


def leaves_undone(found: str, gold: str) -> bool:
    r"""Whether `found` contains an operation that the gold does not, such as \int_0^1 x dx where the gold is 1/2.

    Sums, integrals, limits, derivatives, binomials and factorials are checked for every gold. \sin, \log and similar
    functions are checked where the gold has no variables: \arccos(1/2) repeats a question whose gold is \pi/3.
    """
    if set(_kinds(found)) - set(_kinds(gold)):
        return True
    variables = {name for name in _NAMES.findall(gold) if len(name) == 1} - {"e", "i"}
    return not variables and any(
        function.search(found) and not function.search(gold) for function in _FUNCTIONS.values()
    )


def asks_too_much(found: str, gold: str) -> bool:
    """Whether an answer is refused unread: too long, too large to compute, nested too deep, or in non-ASCII digits."""
    return bool(
        len(found) > max(MAX_CHARACTERS, 3 * len(gold))
        or _EXPLODES.search(found)
        or r"\boxed" in found
        or (r"\ne" in found and r"\ne" not in gold)
        or _nesting(found) > MAX_NESTING
        or any(not c.isascii() and unicodedata.category(c) in ("Nd", "No", "Nl") for c in found)
    )


def _nesting(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _kinds(text: str) -> list[str]:
    found = [re.sub(r"[\s\\{}]", "", operation)[:4] for operation in _OPERATIONS.findall(text)]
    return ["!" if kind in ("bino", "choo") else kind for kind in found]  # a binomial can be written in factorials
