"""Reading numbers as people and models write them, exactly and in bounded time."""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_CHARACTERS = 1_000  # below Python's own limit on the digits of an int
_DIGITS = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
# At most three digits of exponent: 1e999 takes little memory, 1e999999999 does not.
_DECIMAL = re.compile(rf"([-+]?)({_DIGITS})?(\.[0-9]*)?(?:[eE]([-+]?[0-9]{{1,3}}))?(%?)")
_TIMES = r"(?:\\times|\\cdot|\*|\u00d7)"
_POWER_OF_TEN = re.compile(
    rf"([-+]?)(?:(?=[0-9.])({_DIGITS})?(\.[0-9]+)?{_TIMES})?10\^(?:[{{(]([-+]?[0-9]{{1,3}})[)}}]|(-?[0-9]{{1,3}}))(%?)"
)
_SIGNED = rf"([-+]?)({_DIGITS})"
_QUOTIENT = re.compile(rf"([-+]?)(?:({_DIGITS}) )?(?:({_DIGITS})|\({_SIGNED}\))/(?:({_DIGITS})|\({_SIGNED}\))(%?)")
_PART = rf"\s*(?:\{{{_SIGNED}\}}|([0-9]))"
_LATEX_FRACTION = re.compile(rf"([-+]?)({_DIGITS})?\s*\\[cdt]?frac{_PART}{_PART}(%?)")
_REPEATING = re.compile(r"([-+]?)([0-9]+)?\.([0-9]*)\s*\\(?:overline|bar|dot)\s*(?:\{([0-9]+)\}|([0-9]))(%?)")
# Marks that do not change a number's value: dollar signs, LaTeX spaces, and LaTeX's forms of , and %.
_CLEANED = {r"\$": "", "$": "", r"\!": "", r"\,": "", r"\ ": "", "{,}": ",", r"\%": "%", "\N{MINUS SIGN}": "-"}
_MARK = re.compile("|".join(map(re.escape, _CLEANED)))
_OPERATOR = re.compile(r"\s*([-+/%*\u00d7]|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\^)\s*|(?<=[{(])\s+|\s+(?=[})])")


class Number(NamedTuple):
    """The value of a number, and how it was written."""

    value: Fraction
    is_percent: bool  # value is already divided by 100
    is_quotient: bool  # written as a division


def read_number(text: str) -> Number | None:
    r"""Reads all of `text` as one number; None where it is not one.

    Reads integers, decimals, thousands separators, 1e5, 3 \times 10^4, fractions (3/4, \frac{3}{4}, \frac{3}{-4},
    1\frac{3}{4}, 1 3/4), repeating decimals (0.\overline{3}), percent, and these in parentheses, with a sign before.
    Refuses more than 1,000 characters, and exponents of more than three digits.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if text.isascii() and text.isdecimal():  # most of them
        return Number(Fraction(int(text)), False, False)
    if not any(character in "0123456789" for character in text):
        return None
    text = _MARK.sub(lambda match: _CLEANED[match.group()], text)
    text = _OPERATOR.sub(lambda match: match[1] or "", text.strip()).removesuffix(".")
    if (text[:1] == "(" or text[:2] in ("-(", "+(")) and (text[-1] == ")" or text.endswith(")%")):
        return _in_parentheses(text)
    if (match := _DECIMAL.fullmatch(text)) and (match[2] or len(match[3] or "") > 1):
        return _decimal(*match.groups())
    if match := _POWER_OF_TEN.fullmatch(text):
        sign, whole, decimals, braced, bare, percent = match.groups()
        return _decimal(sign, whole or ("0" if decimals else "1"), decimals, braced or bare, percent)
    if match := _QUOTIENT.fullmatch(text):
        sign, whole, top, top_sign, signed_top, bottom, bottom_sign, signed_bottom, percent = match.groups()
        if whole and (top_sign or bottom_sign):
            return None
        signs = (sign, top_sign, bottom_sign)
        return _quotient(signs, whole or "0", top or signed_top, bottom or signed_bottom, percent)
    if match := _LATEX_FRACTION.fullmatch(text):
        sign, whole, top_sign, top, bare_top, bottom_sign, bottom, bare_bottom, percent = match.groups()
        if whole and (top_sign or bottom_sign):
            return None
        return _quotient((sign, top_sign, bottom_sign), whole or "0", top or bare_top, bottom or bare_bottom, percent)
    if match := _REPEATING.fullmatch(text):
        sign, whole, decimals, braced, bare, percent = match.groups()
        return _repeating(sign, whole, decimals, braced or bare, percent)
    return None


def same_number(a: Number, b: Number) -> bool:
    """Whether two numbers are equal. Where only one of them has a percent sign, 50% equals both 50 and 1/2."""
    if a.value == b.value:
        return True
    if a.is_percent == b.is_percent:
        return False
    return (a.value * 100 == b.value) if a.is_percent else (a.value == b.value * 100)


def _in_parentheses(text: str) -> Number | None:
    """(7), (-7), -(1/6) and (1/3)%; not -(-7), where the sign is left to be worked out."""
    if text.endswith("%"):
        number = _in_parentheses(text[:-1])
        return None if number is None or number.is_percent else Number(number.value / 100, True, number.is_quotient)
    sign, inner = (text[0], text[2:-1]) if text[0] in "+-" else ("", text[1:-1])
    if (inner[:1] == "(" and inner[-1:] == ")") or "," in inner or (sign and inner[:1] in ("-", "+")):
        return None  # (1,234) is a point
    number = read_number(inner)
    return number._replace(value=-number.value) if number is not None and sign == "-" else number


def _int(digits: str) -> int:
    return int(digits.replace(",", ""))


def _decimal(sign: str, whole: str | None, decimals: str | None, exponent: str | None, percent: str) -> Number:
    decimals = (decimals or ".")[1:]
    value = Fraction(int((whole or "0").replace(",", "") + decimals), 10 ** len(decimals))
    value *= Fraction(10) ** int(exponent or 0)
    return Number((-value if sign == "-" else value) / (100 if percent else 1), bool(percent), False)


def _quotient(signs: tuple, whole: str, numerator: str, denominator: str, percent: str) -> Number | None:
    if _int(denominator) == 0:
        return None
    value = _int(whole) + Fraction(_int(numerator), _int(denominator))
    value = -value if signs.count("-") % 2 else value
    return Number(value / (100 if percent else 1), bool(percent), True)


def _repeating(sign: str, whole: str | None, decimals: str, repeated: str, percent: str) -> Number:
    value = Fraction(int(whole or 0)) + Fraction(int(decimals or 0), 10 ** len(decimals))
    value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(decimals))
    value = -value if sign == "-" else value
    return Number(value / (100 if percent else 1), bool(percent), False)
