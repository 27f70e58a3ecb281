"""Reading numbers as people and models write them, exactly and in bounded time."""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_CHARACTERS = 1_000  # below Python's own limit on the digits of an int
_DIGITS = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
# At most three digits of exponent: 1e999 takes little memory, 1e999999999 does not.
_DECIMAL = re.compile(rf"([-+]?)({_DIGITS})?(\.[0-9]*)?(?:[eE]([-+]?[0-9]{{1,3}}))?(%?)")
_POWER_OF_TEN = re.compile(
    rf"([-+]?)(?:({_DIGITS})(\.[0-9]+)?(?:\\times|\\cdot|\u00d7))?10\^(?:\{{([-+]?[0-9]{{1,3}})\}}|([0-9]))(%?)"
)
_QUOTIENT = re.compile(rf"([-+]?)(?:({_DIGITS}) )?({_DIGITS})/({_DIGITS})")
_LATEX_FRACTION = re.compile(
    rf"([-+]?)({_DIGITS})?\s*\\[cdt]?frac\s*(?:\{{([-+]?)([0-9]+)\}}|([0-9]))\s*(?:\{{([0-9]+)\}}|([0-9]))"
)
_REPEATING = re.compile(r"([-+]?)([0-9]+)?\.([0-9]*)\\(?:overline|bar)\{([0-9]+)\}")
# Marks that do not change a number's value: dollar signs, LaTeX spaces, and LaTeX's forms of , and %.
_CLEANED = {r"\$": "", "$": "", r"\!": "", r"\,": "", r"\ ": "", "{,}": ",", r"\%": "%", "\N{MINUS SIGN}": "-"}
_MARK = re.compile("|".join(map(re.escape, _CLEANED)))
_OPERATOR = re.compile(r"\s*([-+/%\u00d7]|\\times|\\cdot)\s*")


class Number(NamedTuple):
    """The value of a number, and how it was written."""

    value: Fraction
    is_percent: bool  # value is already divided by 100
    is_quotient: bool  # written as a division


def read_number(text: str) -> Number | None:
    r"""Reads all of `text` as one number; None where it is not one.

    Reads integers, decimals, thousands separators, 1e5, 3 \times 10^4, fractions (3/4, \frac{3}{4}, 1\frac{3}{4},
    1 3/4), repeating decimals (0.\overline{3}) and percent. Refuses more than 1,000 characters, and exponents of more
    than three digits.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if text.isascii() and text.isdigit():  # most of them
        return Number(Fraction(int(text)), False, False)
    text = _MARK.sub(lambda match: _CLEANED[match.group()], text)
    text = _OPERATOR.sub(r"\1", text.strip()).removesuffix(".")
    if (match := _DECIMAL.fullmatch(text)) and (match[2] or len(match[3] or "") > 1):
        return _decimal(*match.groups())
    if match := _POWER_OF_TEN.fullmatch(text):
        sign, whole, decimals, braced, bare, percent = match.groups()
        return _decimal(sign, whole or "1", decimals, braced or bare, percent)
    if match := _QUOTIENT.fullmatch(text):
        return _quotient(match[1] == "-", match[2] or "0", match[3], match[4])
    if match := _LATEX_FRACTION.fullmatch(text):
        sign, whole, inner_sign, numerator, bare_numerator, denominator, bare_denominator = match.groups()
        if whole and inner_sign:
            return None
        is_negative = (sign == "-") != (inner_sign == "-")
        return _quotient(is_negative, whole or "0", numerator or bare_numerator, denominator or bare_denominator)
    if match := _REPEATING.fullmatch(text):
        return _repeating(*match.groups())
    return None


def same_number(a: Number, b: Number) -> bool:
    """Whether two numbers are equal. Where only one of them has a percent sign, 50% equals both 50 and 1/2."""
    if a.value == b.value:
        return True
    if a.is_percent == b.is_percent:
        return False
    return (a.value * 100 == b.value) if a.is_percent else (a.value == b.value * 100)


def _int(digits: str) -> int:
    return int(digits.replace(",", ""))


def _decimal(sign: str, whole: str | None, decimals: str | None, exponent: str | None, percent: str) -> Number:
    decimals = (decimals or ".")[1:]
    value = Fraction(int((whole or "0").replace(",", "") + decimals), 10 ** len(decimals))
    value *= Fraction(10) ** int(exponent or 0)
    return Number((-value if sign == "-" else value) / (100 if percent else 1), bool(percent), False)


def _quotient(is_negative: bool, whole: str, numerator: str, denominator: str) -> Number | None:
    if _int(denominator) == 0:
        return None
    value = _int(whole) + Fraction(_int(numerator), _int(denominator))
    return Number(-value if is_negative else value, False, True)


def _repeating(sign: str, whole: str | None, decimals: str, repeated: str) -> Number:
    value = Fraction(int(whole or 0)) + Fraction(int(decimals or 0), 10 ** len(decimals))
    value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(decimals))
    return Number(-value if sign == "-" else value, False, False)
