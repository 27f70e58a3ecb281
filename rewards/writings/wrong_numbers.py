"""Wrong answers to a gold that is a number, each made so that it cannot have the gold's value."""

import re
from fractions import Fraction

from rl_posttrain.rewards.writings.numbers import decimal_of, value_of
from rl_posttrain.rewards.writings.shapes import FRACTION, PERCENT
from rl_posttrain.rewards.writings.text import plain_number
from rl_posttrain.rewards.writings.writing import Texts

# What may stand behind a number and makes another value of it; %s is the number.
_BEHIND = {
    "times x": "%sx", "times xy": "%sxy", "times x, apart": "%s x", "times pi": r"%s\pi", "times i": "%si",
    "times a root": r"%s\sqrt{2}", "plus x": "%s + x", "with a tail": "%s1", "million": "%s million",
}  # fmt: skip
# No number at all, though it holds the right one.
_RELATIONS = {
    "more than": r"x > %s", "at least": r"x \ge %s", "not equal": r"x \ne %s", "withdrawn": r"\text{not } %s",
    "or more": r"%s \text{ or more}",
}  # fmt: skip


def wrong_integers(gold: str) -> Texts:
    """Wrong answers to an integer."""
    value = int(value_of(gold))
    size, sign = abs(value), ("-" if value < 0 else "")
    digits = str(size)
    for name, other in changed_digits(digits):
        yield f"{name}", sign + other
    yield from _near(value)
    number = str(value)
    if value:
        for name, form in _BEHIND.items():
            yield name, form % number
        yield "both signs", rf"\pm {size}"
    for name, form in _RELATIONS.items():
        yield name, form % number
    yield "a list of guesses", rf"{number} \text{{ or }} {value + 1}"
    yield "plain list of guesses", f"{value - 1} or {number}"
    yield "a set of guesses", rf"\{{{number}, {value + 1}\}}"
    yield "a point", f"({number}, {value + 1})"
    yield "an interval", f"[{number}, {value + 2})"
    yield "an unworked sum", f"{value - 2} + 2"
    yield "an unworked product", rf"2 \cdot {value // 2}" if value % 2 == 0 else f"{value - 3} + 3"
    yield "a false equation", f"{number} = {value + 1}"
    if size > 1:
        yield "squared", f"{number}^2" if not sign else f"({number})^2"
        yield "inverse", rf"\frac{{1}}{{{number}}}" if not sign else rf"-\frac{{1}}{{{size}}}"
        yield "half", rf"{sign}\frac{{{size}}}{{2}}"
        yield "an exponent", f"x^{{{number}}}"
        yield "an index", f"x_{{{number}}}"
    if size > 1 and not sign:
        yield "under a root", rf"\sqrt{{{size}}}"
        yield "numerator of a fraction", rf"\frac{{{size}}}{{7}}"
        yield "denominator of a fraction", rf"\frac{{7}}{{{size}}}" if size != 7 else r"\frac{5}{7}"
    if size > 2:
        yield "factorial", f"{sign}{size}!"
    if size >= 1000:
        first = len(digits) % 3 or 3
        groups = [digits[:first], *(digits[place : place + 3] for place in range(first, len(digits), 3))]
        yield "its thousands as a list", f"{sign}{', '.join(groups)}"
        yield "a group left out", sign + ",".join(groups[:-1]) if len(groups) > 2 else sign + groups[0]
        yield "a point for a comma", sign + ".".join((groups[0], "".join(groups[1:])))
        yield "off by a ten-millionth", f"{sign}{decimal_of(Fraction(size) * (1 + Fraction(1, 10**7)))}"


def wrong_decimals(gold: str) -> Texts:
    """Wrong answers to a decimal."""
    value = value_of(gold)
    number = decimal_of(value)
    if number is None:
        return
    for name, other in changed_digits(number.lstrip("-")):
        yield name, ("-" if value < 0 else "") + other
    yield from _near(value)
    if value:
        for name, form in _BEHIND.items():
            if name != "with a tail":
                yield name, form % number
        yield "a digit more", f"{number}{'7' if '.' in number else '.7'}"
        yield "both signs", rf"\pm {number.lstrip('-')}"
        yield "off by a ten-millionth", decimal_of(value * (1 + Fraction(1, 10**7))) or f"{number}0000001"
        yield "off by a trillionth", f"{number}{'' if '.' in number else '.'}0000000000001"
    for name, form in _RELATIONS.items():
        yield name, form % number
    if "." in number:
        whole, _, decimals = number.partition(".")
        yield "no point", f"{whole}{decimals}" if value and whole.strip("-0") else f"{number}3"
        yield "a comma for the point", f"{whole},{decimals}" if len(decimals) != 3 else f"{number}9"
        yield "cut", whole
        yield "its parts as a list", f"{whole}, {decimals}"
    yield "a list of guesses", rf"{number} \text{{ or }} {decimal_of(value + 1)}"
    yield "an unworked sum", f"{decimal_of(value - 2)} + 2"
    yield "an interval", f"[{number}, {decimal_of(value + 1)}]"


def wrong_fractions(gold: str) -> Texts:
    """Wrong answers to a fraction in lowest terms or not, or to a mixed number."""
    value = value_of(gold)
    if value is None or value.denominator == 1:
        return
    sign, top, bottom = ("-" if value < 0 else ""), abs(value.numerator), value.denominator

    def fraction(above: int, below: int, front: str = sign) -> str:
        return rf"{front}\frac{{{above}}}{{{below}}}"

    for name, other in changed_digits(str(top)):
        yield f"numerator: {name}", rf"{sign}\frac{{{other}}}{{{bottom}}}"
    for name, other in changed_digits(str(bottom)):
        if int(other):
            yield f"denominator: {name}", rf"{sign}\frac{{{top}}}{{{other}}}"
    yield "sign", fraction(top, bottom, "" if sign else "-")
    yield "both signs", rf"\pm\frac{{{top}}}{{{bottom}}}"
    yield "numerator alone", f"{sign}{top}"
    yield "denominator alone", f"{sign}{bottom}"
    yield "numerator and denominator as a list", f"{sign}{top}, {bottom}"
    yield "numerator and denominator as a point", f"({sign}{top}, {bottom})"
    yield "numerator and denominator as digits", f"{sign}{top}{bottom}"
    if top != bottom:
        yield "inverse", fraction(bottom, top) if top != 1 else f"{sign}{bottom}"
        yield "inverse quotient", f"{sign}{bottom}/{top}"
    yield "numerator one more", fraction(top + 1, bottom)
    yield "denominator one more", fraction(top, bottom + 1)
    yield "twice", fraction(2 * top, bottom)
    yield "half", fraction(top, 2 * bottom)
    yield "one more", fraction(top + bottom, bottom)
    yield "one less", rf"1 - {fraction(top, bottom)}" if value != Fraction(1, 2) else fraction(3, 2)
    yield "times x", f"{fraction(top, bottom)}x"
    yield "times pi", rf"{fraction(top, bottom)}\pi"
    yield "squared", rf"\left({fraction(top, bottom)}\right)^2"
    yield "under a root", rf"{sign}\sqrt{{\frac{{{top}}}{{{bottom}}}}}"
    yield "a root above", rf"{sign}\frac{{\sqrt{{{top}}}}}{{{bottom}}}" if top > 1 else fraction(1, bottom + 2)
    yield "binomial", rf"{sign}\binom{{{top}}}{{{bottom}}}"
    yield "a list of guesses", rf"{fraction(top, bottom)} \text{{ or }} {fraction(top + 1, bottom)}"
    yield "more than", rf"x > {fraction(top, bottom)}"
    yield "an unworked sum", rf"{fraction(top + bottom, bottom)} - 1" if not sign else fraction(top, bottom + 3)
    if decimal_of(value) is None:
        yield "rounded to three places", f"{sign}{float(abs(value)):.3f}"
        yield "rounded to six places", f"{sign}{float(abs(value)):.6f}"
    yield "off by a ten-millionth", fraction(top * 10**7 + top, bottom * 10**7)
    if top > bottom and top % bottom:
        yield "mixed number with another whole", rf"{sign}{top // bottom + 1}\frac{{{top % bottom}}}{{{bottom}}}"
        yield "proper part alone", fraction(top % bottom, bottom)
    if FRACTION.fullmatch(gold)[2] is None and top > 9:
        yield "first digit alone", f"{sign}{str(top)[0]}"


def wrong_percents(gold: str) -> Texts:
    """Wrong answers to a percentage. Neither 50 nor 0.5 is one: both are paid for 50 %."""
    number = plain_number(PERCENT.fullmatch(gold)[1])
    value = Fraction(number)
    if value == 0:
        return
    for name, other in changed_digits(number.lstrip("-")):
        changed = ("-" if value < 0 else "") + other
        if Fraction(changed) not in (value, value / 100, value * 100):
            yield name, rf"{changed}\%"
            yield f"{name}, no sign", changed
    yield "sign", rf"{decimal_of(-value)}\%"
    yield "sign, as a decimal", decimal_of(-value / 100)
    yield "ten times", rf"{decimal_of(value * 10)}\%"
    yield "a tenth", rf"{decimal_of(value / 10)}\%"
    yield "a hundred times", rf"{decimal_of(value * 100)}\%"
    yield "a hundredth", rf"{decimal_of(value / 100)}\%"
    yield "a thousandth as a decimal", decimal_of(value / 1000)
    yield "twice", rf"{decimal_of(value * 2)}\%"
    yield "one more", rf"{decimal_of(value + 1)}\%"
    yield "one less", rf"{decimal_of(value - 1)}\%"
    yield "a hundredth more", rf"{decimal_of(value + Fraction(1, 100))}\%"
    if value != 50:
        yield "the rest", rf"{decimal_of(100 - value)}\%"
    yield "times x", rf"{number}x\%"
    yield "a list of guesses", rf"{number}\% \text{{ or }} {decimal_of(value + 1)}\%"
    yield "more than", rf"x > {number}\%"
    yield "two signs", rf"{number}\%\%"
    yield "off by a ten-millionth", rf"{decimal_of(value * (1 + Fraction(1, 10**7)))}\%"
    yield "an unworked sum", rf"{decimal_of(value - 2)} + 2"


def changed_digits(digits: str) -> Texts:
    """Each digit of a number replaced by the next, one digit left out, and two neighbours swapped."""
    for place, digit in enumerate(digits[:12]):
        if digit.isdecimal():
            yield f"digit {place + 1} changed", f"{digits[:place]}{(int(digit) + 1) % 10}{digits[place + 1 :]}"
    for place in range(len(digits[:12]) - 1):
        first, second = digits[place : place + 2]
        if first != second and first.isdecimal() and second.isdecimal():
            yield f"digits {place + 1} and {place + 2} swapped", digits[:place] + second + first + digits[place + 2 :]
            break
    if re.fullmatch(r"[1-9][0-9]+", digits):
        yield "last digit left out", digits[:-1]
        yield "last digit twice", digits + digits[-1]
        yield "a zero behind", f"{digits}0"


def _near(value: Fraction | int) -> Texts:
    def text(number: Fraction | int) -> str:
        return decimal_of(Fraction(number))

    if value:
        yield "sign", text(-value)
        yield "twice", text(2 * value)
        yield "ten times", text(10 * value)
    yield "one more", text(value + 1)
    yield "one less", text(value - 1)
    yield "a tenth more", text(Fraction(value) + Fraction(1, 10))
