"""Numbers with a unit, money, times of day and numbers of another base, written otherwise and wrongly."""

import re
from collections.abc import Callable

from rl_posttrain.rewards.writings.numbers import number_rewrites, value_of
from rl_posttrain.rewards.writings.shapes import BASE, MONEY, QUANTITY, TIME, in_base, shape_of
from rl_posttrain.rewards.writings.text import plain_number
from rl_posttrain.rewards.writings.units import BASE_WORDS, known_unit
from rl_posttrain.rewards.writings.writing import Texts
from rl_posttrain.rewards.writings.wrong_numbers import changed_digits, wrong_decimals, wrong_fractions, wrong_integers

_KINDS = (
    {"cm", "m", "km", "mm", "in", "ft", "yd", "mi"}, {"g", "kg", "mg", "lb", "oz"}, {"s", "min", "h"}, {"L", "ml"},
    {"mph", "km/h", "m/s", "ft/s"},
)  # fmt: skip
_POWERS = {"2": "square", "3": "cubic"}
_BASE_FORMS = (
    "%s_%s", "%s_{%s}", "(%s)_%s", "(%s)_{%s}", "{%s}_{%s}", "%s _ {%s}", r"\text{%s}_{%s}", r"%s_{\text{%s}}",
    r"\left(%s\right)_{%s}", r"%s_{(%s)}", r"\mathrm{%s}_{%s}", r"%s_{\mathrm{%s}}", r"x = %s_{%s}",
)  # fmt: skip


def quantity_parts(gold: str) -> tuple[str, str, str]:
    """The number, the unit and its power ("", "2" or "3") of a bare quantity; degrees are the unit "degree"."""
    match = QUANTITY.fullmatch(gold)
    number, text, text_power, word, word_power, degrees = match.groups()
    unit = "degree" if degrees else " ".join((text if text is not None else word).replace("~", " ").split())
    power = "".join(re.findall("[23]", text_power or word_power or ""))
    if inner := re.fullmatch(r"(.*?)\s*\^\s*\{?([23])\}?", unit):
        unit, power = inner[1], inner[2]
    for digit, name in _POWERS.items():
        if unit.lower().startswith((f"{name} ", "sq " if digit == "2" else "cu ")):
            unit, power = unit.split(" ", 1)[1], digit
    return number.strip(), unit, power


def quantity_rewrites(gold: str) -> Texts:
    """Other ways to write a number with its unit."""
    number, unit, power = quantity_parts(gold)
    known = known_unit(unit) if "/" not in unit or not power else None
    if unit.lower() in ("degree", "degrees"):
        yield from _degrees(number)
    elif known:
        yield from _known_unit(number, *known, power)
    else:
        yield from _counted(number, unit if not power else f"{unit}^{power}")
    yield "no unit", number
    yield "assigned", rf"x = {number}"
    words = f"{_POWERS[power]} {known[2]}" if known and power else known[2] if known else unit
    if unit.lower() not in ("degree", "degrees") and (known or not power):
        yield "dollars around the number", f"${number}$ {words}"
        if "\\" not in number:
            yield "all in text", rf"\text{{{number} {words}}}"
        yield "assigned with the unit", rf"x = {number}\text{{ {words}}}"
    if shape_of(number) == "integer" and len(plain_number(number)) > 3:
        yield "digits and no unit", plain_number(number)


def _degrees(number: str) -> Texts:
    for form in (r"%s^\circ", r"%s^{\circ}", r"%s ^ \circ", "%s\N{DEGREE SIGN}", r"%s \text{ degrees}", "%s degrees"):
        yield f"degrees: {form % 'N'}", form % number
    for form in (r"%s\text{ deg}", r"%s\mathrm{~degrees}", r"%s\degree", r"%s\,^\circ", "%s\N{NO-BREAK SPACE}degrees"):
        yield f"degrees: {form % 'N'}", form % number
    yield "angle assigned", rf"\theta = {number}^\circ"


def _known_unit(number: str, short: str, singular: str, plural: str, power: str) -> Texts:
    exponent = f"^{power}" if power else ""
    for form in (r"\text{ %s}", r"\ \text{%s}", r"\,\text{%s}", r"\mathrm{~%s}", r"\;\mathrm{%s}", r"\mbox{ %s}"):
        yield f"abbreviation: {form % 'U'}", f"{number}{form % short}{exponent}"
    for form in (r"\textnormal{ %s}", r"\textrm{ %s}", r"~\text{%s}"):
        yield f"abbreviation: {form % 'U'}", f"{number}{form % short}{exponent}"
    if len(short) > 1 or power:
        yield "plain abbreviation", f"{number} {short}{exponent}"
    if power:
        yield "braced exponent", rf"{number}\text{{ {short}}}^{{{power}}}"
        yield "exponent as a character", f"{number} {short}{'²' if power == '2' else '³'}"
        yield "exponent inside", rf"{number}\,\mathrm{{{short}^{power}}}"
        plural, singular = f"{_POWERS[power]} {plural}", f"{_POWERS[power]} {singular}"
        if power == "2":
            yield "sq", rf"{number}\text{{ sq {short}}}"
    yield "words", f"{number} {plural}"
    yield "words as text", rf"{number}\text{{ {plural}}}"
    yield "words as text, apart", rf"{number} \text{{ {plural}}}"
    yield "words upright", rf"{number}\mathrm{{~{plural.replace(' ', '~')}}}"
    yield "words, singular", rf"{number}\text{{ {singular}}}"


def _counted(number: str, unit: str) -> Texts:
    forms = (
        "%s %s", r"%s\text{ %s}", r"%s \text{ %s}", r"%s\ \text{%s}", r"%s \textrm{ %s}", r"%s\mbox{ %s}",
        r"%s\textnormal{ %s}", r"%s~\text{%s}", r"%s\,\text{%s}", r"%s \textbf{ %s}", r"%s\mathrm{~%s}",
    )  # fmt: skip
    for form in forms:
        upright = unit.replace(" ", "~") if "mathrm" in form else unit
        yield f"counted: {form % ('N', 'U')}", form % (number, upright)
    if unit.endswith("s") and not unit.endswith("ss"):
        yield "counted, singular", f"{number} {unit[:-1]}"
    yield "counted, capital", rf"{number}\text{{ {unit.capitalize()}}}"
    yield "counted, in parentheses", f"{number} ({unit})"


def wrong_quantities(gold: str) -> Texts:
    """Another number with the same unit, and the same number with another unit."""
    number, unit, power = quantity_parts(gold)
    behind = (rf"\text{{ {unit}}}" if unit != "degree" else r"^\circ") + (f"^{power}" if power else "")
    yield from _with_wrong_number(number, lambda other: f"{other}{behind}")
    if value_of(number) == 0:
        return  # no length is no mass, too
    known = known_unit(unit) if "/" not in unit or not power else None
    if known:
        short = known[0]
        for other_kind in _KINDS:
            for other in sorted(other_kind - {short})[:2]:
                same = short in other_kind
                exponent = f"^{power}" if power and same else ""
                yield (
                    f"{'smaller or larger' if same else 'other'} unit {other}",
                    rf"{number}\text{{ {other}}}{exponent}",
                )
        if "/" not in short and short != "mph" and short in _KINDS[0]:
            other = {"": "2", "2": "3", "3": "2"}[power]
            yield "power of the unit", rf"{number}\text{{ {short}}}^{other}"
    elif unit.lower() in ("degree", "degrees"):
        yield "other unit", rf"{number}\text{{ cm}}"
        yield "radians", rf"{number}\text{{ radians}}"
    else:
        for other in ("kg", "hours", "dollars", "pears"):
            if other != unit:
                yield f"other unit {other}", rf"{number}\text{{ {other}}}"


def _with_wrong_number(number: str, form: Callable[[str], str]) -> Texts:
    makers = {"integer": wrong_integers, "decimal": wrong_decimals, "fraction": wrong_fractions}
    shape = shape_of(number)
    if shape not in makers or value_of(number) is None:
        return
    for rule, text in makers[shape](number):
        if re.fullmatch(r"-?[0-9.]+|-?\\frac\{[0-9]+\}\{[0-9]+\}", text):
            yield rule, form(text)
            yield f"{rule}, no unit", text


def money_rewrites(gold: str) -> Texts:
    """Other ways to write an amount."""
    sign, number = _amount(gold)
    plain = plain_number(number)
    yield "amount alone", plain
    yield "assigned", f"x = {plain}"
    forms = (r"\$%s", "$%s", r"\$ %s", r"\$\,%s", r"\text{\$}%s", r"\text{\$%s}", r"%s\text{ dollars}", "%s dollars",
             r"%s \text{ dollars}", r"%s\$", "USD %s", "%s USD", r"\textdollar %s", r"%s\ \text{dollars}")  # fmt: skip
    if sign == "pound":
        forms = ("\N{POUND SIGN}%s", r"\pounds %s", r"\pounds%s", "\N{POUND SIGN} %s", "\\text{\N{POUND SIGN}}%s")
    elif sign == "euro":
        forms = ("\N{EURO SIGN}%s", "%s\N{EURO SIGN}", "%s \N{EURO SIGN}", "%s euros", r"%s\text{ euros}")
    for form in forms:
        yield f"amount: {form.replace('%s', 'N')}", form.replace("%s", plain)
    if "." not in plain:
        yield "cents that are none", f"{forms[0].replace('%s', plain)}.00"
    elif len(plain.partition(".")[2]) == 1:
        yield "two places", f"{forms[0].replace('%s', plain)}0"
    for rule, text in number_rewrites(plain, shape_of(plain)):
        if rule.startswith("thousands"):
            yield rule, forms[0].replace("%s", text)


def _amount(gold: str) -> tuple[str, str]:
    before, after_sign, alone, _ = MONEY.fullmatch(gold).groups()
    if before in ("\N{POUND SIGN}", r"\pounds"):
        return "pound", after_sign
    return ("euro" if before == "\N{EURO SIGN}" else "dollar"), after_sign or alone


def plain_amount(gold: str) -> str:
    """The amount of a bare gold that is money, without its currency."""
    return plain_number(_amount(gold)[1])


def wrong_money(gold: str) -> Texts:
    """Another amount, or the same in another currency."""
    sign, number = _amount(gold)
    plain = plain_number(number)
    front = {"dollar": r"\$", "pound": "\N{POUND SIGN}", "euro": "\N{EURO SIGN}"}[sign]
    yield from _with_wrong_number(plain, lambda other: f"{front}{other}")
    for name, other in (("dollar", r"\$"), ("pound", "\N{POUND SIGN}"), ("euro", "\N{EURO SIGN}")):
        if name != sign:
            yield f"currency {name}", f"{other}{plain}"
    yield "kilograms", rf"{plain}\text{{ kg}}"
    if sign == "dollar":
        yield "cents", rf"{plain}\text{{ cents}}"
    yield "millions", rf"{front}{plain}\text{{ million}}"


def time_rewrites(gold: str) -> Texts:
    """Other ways to write a time of day."""
    hour, minute, half = TIME.fullmatch(gold).groups()
    clock = f"{hour}:{minute}"
    if not half:
        for form in (r"%s:%s", r"%s\text{:}%s", r"%s{:}%s", r"\text{%s:%s}", r"%s\!:\!%s", r"%s : %s", r"t = %s:%s"):
            yield f"clock: {form % ('H', 'M')}", form % (hour, minute)
        return
    letter = half.lower()
    forms = (" %sm", r"\text{ %sm}", r"\text{ %s.m.}", " %s.m.", "%sm", r" \text{ %sm}", r"\,\text{%s.m.}",
             r"\mathrm{~%sm}", r"\ \text{%sm}", " %s. m.", r"\text{ %s.m}", r"\textrm{ %sm}")  # fmt: skip
    for form in forms:
        yield f"half of the day:{form % 'x'}", clock + form % letter
        if "." not in form and "mathrm" not in form:
            yield (
                f"half of the day, capitals:{form % 'x'}",
                clock + (form.replace("m}", "M}") if form.endswith("m}") else form[:-1] + "M") % letter.upper(),
            )
    yield "capitals with points", f"{clock} {letter.upper()}.M."
    yield "all in text", rf"\text{{{clock} {letter}m}}"
    yield "colon in text", rf"{hour}\text{{:}}{minute}\text{{ {letter}.m.}}"


def wrong_times(gold: str) -> Texts:
    """Another hour, another minute, the other half of the day, a part alone."""
    hour, minute, half = TIME.fullmatch(gold).groups()
    behind = f" {half.lower()}m" if half else ""
    for rule, other in (
        ("an hour later", int(hour) % 12 + 1), ("an hour earlier", (int(hour) - 2) % 12 + 1),
        ("two hours later", (int(hour) + 1) % 12 + 1), ("five hours later", (int(hour) + 4) % 12 + 1),
        ("six hours later", (int(hour) + 5) % 12 + 1),
    ):  # fmt: skip
        yield rule, f"{other}:{minute}{behind}"
    for later in (1, 2, 5, 10, 15, 20, 30, 45, 59):
        yield f"{later} minutes more", f"{hour}:{(int(minute) + later) % 60:02d}{behind}"
    if half:
        other = "a" if half.lower() == "p" else "p"
        for rule, form in (
            ("plain", " %sm"),
            ("text", r"\text{ %sm}"),
            ("points", r"\text{ %s.m.}"),
            ("apart", " %s.m."),
        ):
            yield f"other half of the day: {rule}", f"{hour}:{minute}{form % other}"
        yield "other half of the day: capitals", f"{hour}:{minute} {other.upper()}M"
    if minute.strip("0"):
        yield "hour alone", f"{hour}{behind}"
        yield "minutes alone", minute
        yield "as a decimal", f"{hour}.{minute}"
    yield "as a point", f"({hour}, {minute})"
    yield "as digits", f"{hour}{minute}"
    yield "a list of guesses", rf"{hour}:{minute}{behind} \text{{ or }} {int(hour) % 12 + 1}:{minute}{behind}"


def base_rewrites(gold: str) -> Texts:
    """Other ways to write a number of another base."""
    digits, base = in_base(BASE.fullmatch(gold))
    for form in _BASE_FORMS:
        if form not in ("%s_%s", "(%s)_%s") or len(base) == 1:
            yield f"base: {form % ('N', 'B')}", form % (digits, base)
    if word := BASE_WORDS.get(int(base)):
        for form in (r"%s_{\text{%s}}", r"(%s)_{\text{%s}}", r"%s_\text{%s}", r"%s_{\mathrm{%s}}", r"{%s}_{\text{%s}}"):
            yield f"base as a word: {form % ('N', 'B')}", form % (digits, word)
    if len(digits) > 4 and digits.isdecimal():
        yield "negative spaces", rf"{digits[:-3]}\!{digits[-3:]}_{{{base}}}"


def wrong_bases(gold: str) -> Texts:
    """Other digits in the same base, and the same digits in another."""
    digits, base = in_base(BASE.fullmatch(gold))
    if not digits.isdecimal():
        return
    for other in range(2, 17):
        if other != int(base) and other > max(map(int, digits)):
            yield f"base {other}", f"{digits}_{{{other}}}"
            if word := BASE_WORDS.get(other):
                yield f"base {other} as a word", rf"{digits}_{{\text{{{word}}}}}"
    for rule, other in changed_digits(digits):
        if int(other) != int(digits) and max(map(int, other)) < int(base):
            yield rule, f"{other}_{{{base}}}"
            yield f"{rule}, in parentheses", f"({other})_{{{base}}}"
    for place, digit in enumerate(digits):
        other = f"{digits[:place]}{(int(digit) + 1) % int(base)}{digits[place + 1 :]}"
        if int(other) != int(digits):
            yield f"digit {place + 1} changed within the base", f"{other}_{{{base}}}"
    if digits != digits[::-1] and not digits.endswith("0"):
        yield "digits turned around", f"{digits[::-1]}_{{{base}}}"
    yield "sign", f"-{digits}_{{{base}}}"
    yield "a one before", f"1{digits}_{{{base}}}"
    yield "a one behind", f"{digits}1_{{{base}}}"
    yield "times x", f"{digits}_{{{base}}}x"
    yield "a list of guesses", rf"{digits}_{{{base}}} \text{{ or }} {digits}1_{{{base}}}"
