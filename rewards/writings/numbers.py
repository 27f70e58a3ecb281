"""Numbers: integers, decimals, fractions and percentages, written otherwise and wrongly."""

import re
from fractions import Fraction

from rl_posttrain.rewards.writings.shapes import DECIMAL, FRACTION, INTEGER, MAX_CHARACTERS, PERCENT
from rl_posttrain.rewards.writings.text import plain_number
from rl_posttrain.rewards.writings.writing import Texts

_SEPARATORS = {
    "commas": ",", "braced commas": "{,}", "LaTeX thin spaces": r"\,", "LaTeX spaces": r"\ ",
    "commas and negative spaces": r",\!", "commas, negative spaces and spaces": r",\! ",
    "spaced braced commas": "{ , }", "spaces": " ", "thin spaces": "\N{THIN SPACE}",
    "narrow spaces": "\N{NARROW NO-BREAK SPACE}", "no-break spaces": "\N{NO-BREAK SPACE}",
}  # fmt: skip
_BARE_UNITS = (r"%s\text{ cm}", "%s apples", r"%s\text{ points}", r"%s \mathrm{~kg}", "%s km", r"%s\mbox{ miles}")
_MONEY = (r"\$%s", "\N{POUND SIGN}%s", "%s \N{EURO SIGN}", "Rs. %s", "%s dollars")


def value_of(gold: str) -> Fraction | None:
    """The value of a bare gold that is an integer, a decimal or a fraction."""
    if len(gold) > MAX_CHARACTERS:
        return None
    gold = gold.replace("\N{MINUS SIGN}", "-")
    if (match := INTEGER.fullmatch(gold)) or (match := DECIMAL.fullmatch(gold)):
        return Fraction(plain_number(gold[match.end(1) :])) * (-1 if "-" in match[1] else 1)
    if match := FRACTION.fullmatch(gold):
        sign, mixed, top, short_top, bottom, short_bottom, slash_top, slash_bottom = match.groups()
        top, bottom = (top or short_top or slash_top), (bottom or short_bottom or slash_bottom)
        if int(plain_number(bottom)) == 0:
            return None
        value = Fraction(int(mixed or 0)) + Fraction(int(plain_number(top)), int(plain_number(bottom)))
        return value * (-1 if "-" in sign else 1)
    return None


def decimal_of(value: Fraction) -> str | None:
    """The decimal of a fraction that has one of at most twelve places."""
    places = next((places for places in range(13) if (value * 10**places).denominator == 1), None)
    if places is None:
        return None
    digits = str(abs(int(value * 10**places))).zfill(places + 1)
    text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}".rstrip(".")
    return f"-{text}" if value < 0 else text


def number_rewrites(gold: str, shape: str) -> Texts:
    """Other ways to write an integer, a decimal, a fraction or a percentage."""
    if shape == "percent":
        yield from _percent(gold)
        return
    value = value_of(gold)
    if value is None:
        return
    sign, size = ("-" if value < 0 else ""), abs(value)
    if shape in ("integer", "decimal"):
        plain = decimal_of(value) if shape == "decimal" else str(value)
        if plain is None or (shape == "integer" and plain != gold and not re.fullmatch(r"[-0-9].*", gold)):
            return
        yield "digits", plain
        yield from _thousands(sign, plain.lstrip("-"))
        yield from _as_power_of_ten(sign, size)
        yield "zeros behind the point", f"{plain}.0" if shape == "integer" else f"{plain}00"
        yield "assigned", f"x = {plain}"
        if not sign:
            yield "phantom", rf"\phantom{{0}}{plain}"
            yield "name and chain", f"x = 2 \\cdot {plain} - {plain} = {plain}"
            yield "plus sign", f"+{plain}"
            yield "therefore", rf"\therefore {plain}"
            for form in (*_BARE_UNITS, *_MONEY):
                yield f"unit that the gold leaves out: {form % 'N'}", form % plain
        if shape == "integer":
            yield "chain of a sum", f"{value - 3} + 3 = {plain}"
            yield "about", rf"x \approx {plain}"
        yield "in parentheses", f"({plain})"
        yield "text", rf"\text{{{plain}}}"
        yield "text before it", rf"\text{{The answer is }} {plain}"
        yield "text and colon before it", rf"\text{{Answer: }} {plain}"
        yield "upright", rf"\mathrm{{{plain}}}"
        if sign:
            yield "sign outside of parentheses", f"-({plain[1:]})"
            yield "sign outside of braces", f"-{{{plain[1:]}}}"
        if shape == "decimal":
            yield from _of_decimal(value, plain)
    if shape == "fraction":
        yield from _of_fraction(value)


def _thousands(sign: str, digits: str) -> Texts:
    whole, point, decimals = digits.partition(".")
    if len(whole) > 3 and not whole.startswith("0"):
        first = len(whole) % 3 or 3
        groups = [whole[:first], *(whole[place : place + 3] for place in range(first, len(whole), 3))]
        for name, separator in _SEPARATORS.items():
            yield f"thousands by {name}", sign + separator.join(groups) + point + decimals


def _as_power_of_ten(sign: str, size: Fraction) -> Texts:
    """3.5 \\times 10^5 for 350000, and 1.2 \\times 10^{-3} for 0.0012."""
    if size == 0 or (Fraction(1, 100) < size < 1000):
        return
    power = len(str(int(size))) - 1 if size >= 1 else -next(n for n in range(1, 60) if size * 10**n >= 1)
    front = decimal_of(size / Fraction(10) ** power)
    if front is None or len(front) > 5:
        return
    if front == "1":
        yield "power of ten", f"{sign}10^{{{power}}}"
        yield "named power of ten", f"x = {sign}10^{{{power}}}"
    yield "times a power of ten", rf"{sign}{front} \times 10^{{{power}}}"
    yield "dot and power of ten", rf"{sign}{front} \cdot 10^{{{power}}}"
    yield "cross and power of ten", f"{sign}{front} \N{MULTIPLICATION SIGN} 10^{{{power}}}"
    yield "e notation", f"{sign}{front}e{power}"
    yield "star and power of ten", f"{sign}{front}*10^{{{power}}}"
    yield "E notation", f"{sign}{front}E{power}"


def _of_decimal(value: Fraction, plain: str) -> Texts:
    if abs(value) < 1 and value != 0:
        yield "no zero before the point", plain.replace("0.", ".", 1)
    if value.denominator != 1:
        top, bottom = value.numerator, value.denominator
        yield "as a fraction", rf"{'-' if top < 0 else ''}\frac{{{abs(top)}}}{{{bottom}}}"
        yield "as a quotient", f"{top}/{bottom}"


def _of_fraction(value: Fraction) -> Texts:
    if value.denominator == 1:
        return
    sign, top, bottom = ("-" if value < 0 else ""), abs(value.numerator), value.denominator
    yield "frac", rf"{sign}\frac{{{top}}}{{{bottom}}}"
    yield "dfrac", rf"{sign}\dfrac{{{top}}}{{{bottom}}}"
    yield "tfrac", rf"{sign}\tfrac{{{top}}}{{{bottom}}}"
    yield "quotient", f"{sign}{top}/{bottom}"
    yield "spaced quotient", f"{sign}{top} / {bottom}"
    yield "quotient of braces", f"{sign}{{{top}}}/{{{bottom}}}"
    yield "fraction slash", f"{sign}{top}\N{FRACTION SLASH}{bottom}"
    yield "quotient in parentheses", f"{sign}({top}/{bottom})"
    yield "fraction in parentheses", rf"{sign}\left(\frac{{{top}}}{{{bottom}}}\right)"
    yield "multiple of both", rf"{sign}\frac{{{3 * top}}}{{{3 * bottom}}}"
    yield "assigned", rf"x = {sign}\frac{{{top}}}{{{bottom}}}"
    yield "chain of two fractions", rf"{sign}\frac{{{2 * top}}}{{{2 * bottom}}} = {sign}\frac{{{top}}}{{{bottom}}}"
    near = f"{float(abs(value)):.3f}"
    if (exact := decimal_of(value)) is not None:
        yield "decimal", exact
        yield "decimal and fraction", rf"{exact} = {sign}\frac{{{top}}}{{{bottom}}}"
        yield "fraction and decimal", rf"{sign}\frac{{{top}}}{{{bottom}}} = {exact}"
    else:
        yield "about", rf"{sign}\frac{{{top}}}{{{bottom}}} \approx {sign}{near}"
        yield "assigned, about", rf"x = {sign}\frac{{{top}}}{{{bottom}}} \approx {sign}{near}"
    if sign:
        yield "sign above", rf"\frac{{-{top}}}{{{bottom}}}"
        yield "sign below", rf"\frac{{{top}}}{{-{bottom}}}"
        yield "quotient of a negative", f"(-{top})/{bottom}"
    if top > bottom:
        yield "mixed number", rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}"
        if not sign:
            yield "plain mixed number", f"{top // bottom} {top % bottom}/{bottom}"


def _percent(gold: str) -> Texts:
    match = PERCENT.fullmatch(gold)
    number = plain_number(match[1])
    yield "percent sign of LaTeX", rf"{number}\%"
    yield "percent sign", f"{number}%"
    yield "percent sign apart", rf"{number} \%"
    yield "thin space before the sign", rf"{number}\,\%"
    yield "percent as a word", f"{number} percent"
    yield "percent as text", rf"{number}\text{{ percent}}"
    yield "sign as text", rf"{number}\text{{\%}}"
    yield "percent alone", number
    yield "assigned", rf"x = {number}\%"
    yield "number in bold", rf"\mathbf{{{number}\%}}"
    value = Fraction(number) / 100
    if (share := decimal_of(value)) is not None:
        yield "as a decimal", share
        yield "decimal and percentage", rf"{share} = {number}\%"
    if value.denominator != 1:
        yield "as a fraction", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
