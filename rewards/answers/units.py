"""Units of measure as answers write them, and words that look like units and are not."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit as a product of powers.

    Attributes:
        factor: its size in base units.
        dimensions: pairs of what is measured (``length``, or a word that is in no table) and its power, in order.
    """

    factor: Fraction
    dimensions: tuple[tuple[str, int], ...]


# The base unit comes first. Names are singular: a plural s is removed before the look-up.
_TABLE = {
    "length": "m meter metre=1 km kilometer kilometre=1000 cm centimeter centimetre=1/100 dm decimeter=1/10 "
    "mm millimeter millimetre=1/1000 in inch inche=254/10000 ft foot feet=3048/10000 "
    "yd yard=9144/10000 mi mile=1609344/1000",
    "mass": "g gram=1 kg kilogram kilo=1000 mg milligram=1/1000 lb pound=45359237/100000 "
    "oz ounce=45359237/1600000 ton=907184740/1000 tonne=1000000",
    "time": "s sec second=1 ms millisecond=1/1000 min minute=60 h hr hour=3600 day=86400 week=604800",
    "calendar": "month=1 year yr=12",
    "money": "dollar usd buck=1 cent=1/100",
    "euro": "euro eur=1",
    "sterling": "sterling gbp=1 penny pence=1/100",
    "rupee": "rupee rs inr=1",
    "yen": "yen jpy=1",
    "angle": "degree deg=1",
    "temperature": "kelvin=1",
}
_KNOWN = {
    name: Unit(Fraction(factor), ((kind, 1),))
    for kind, row in _TABLE.items()
    for names, factor in re.findall(r"([a-z ]+)=([0-9/]+)", row)
    for name in names.split()
}
_KNOWN |= {name: Unit(Fraction(1, 1000), (("length", 3),)) for name in ("l", "liter", "litre")}
_KNOWN |= {name: Unit(Fraction(1, 10**6), (("length", 3),)) for name in ("ml", "milliliter", "millilitre", "cc")}
_KNOWN |= {"gallon": Unit(Fraction(3785411784, 10**12), (("length", 3),))}
_KNOWN |= {name: Unit(Fraction(1609344, 3600000), (("length", 1), ("time", -1))) for name in ("mph",)}
_KNOWN |= {name: Unit(Fraction(1000, 3600), (("length", 1), ("time", -1))) for name in ("kph", "kmph", "kmh")}
_KINDS = {*_TABLE, "newton", "joule", "watt", "pascal", "volt", "ampere", "hertz", "mole", "coulomb"}
MAGNITUDES = {
    "dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "quadrillion": 10**15, "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
# These words change the value of a number before them, or withdraw it. Text that contains one is not a unit.
_NOT_UNITS = {
    "factorial", "half", "halve", "third", "quarter", "fourth", "fifth", "sixth", "tenth", "hundredth", "thousandth",
    "score", "pair", "gross", "over", "minus", "plus", "times", "divided", "mod", "modulo", "percent",
    "negative", "power", "root", "and", "or", "not", "no", "is", "are", "isn", "than", "between", "about", "either",
    "maybe", "if", "to", "the", "else", "but", "base", "more", "les", "less", "sqrt", "sin", "cos", "tan", "log", "ln",
    "exp", "pi", "max", "gcd", "lcm", "theta", "alpha", "beta", "infty", "wrong", "remainder",
    "below", "above", "zero", "out", "doubled", "twice", "tripled", "inverse", "fewer", "ago", "off", "short", "early",
    "late", "earlier", "later", "remaining", "least", "most", "maximum", "minimum", "excluding", "including",
    "multiplied", "added", "guess", "unknown", "bn", "mn", "mil", "zeros", "tens", "one", "two", "three", "four",
    "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
}  # fmt: skip
# An eighth, two twentieths.
_PART = re.compile(
    r"(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)tie|hundred|thousand"
    r"|\w+illion)th"
)
# Symbols of physics, with a prefix: these keep their case. M is mega and m is milli.
_PREFIXES = {"": Fraction(1), "k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9), "m": Fraction(1, 1000),
             "\u03bc": Fraction(1, 10**6), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}  # fmt: skip
_SYMBOLS = {
    prefix + symbol: Unit(factor, ((kind, 1),))
    for symbol, kind in {
        "N": "newton", "J": "joule", "W": "watt", "Pa": "pascal", "V": "volt", "A": "ampere", "Hz": "hertz",
        "K": "kelvin", "mol": "mole", "C": "coulomb", "eV": "electronvolt", "T": "tesla", "F": "farad", "H": "henry",
    }.items()
    for prefix, factor in _PREFIXES.items()
}  # fmt: skip
_SYMBOLS |= {
    name: Unit(Fraction(10**6), ((kind, 1),)) for kind, name in [("mass", "Mg"), ("length", "Mm"), ("time", "Ms")]
}
_TEMPERATURES = re.compile(r"degrees?\s*(c|f|celsius|fahrenheit)(?![a-z])", re.IGNORECASE)
_SQUARE, _CUBIC = {"square", "sq"}, {"cubic", "cu"}
_POWERS = {"squared": 2, "cubed": 3}
MAX_WORDS = 6
_TOKEN = re.compile(r"\s*(?:([A-Za-z\u03bc]+)|(?:\^\s*\{?\s*|(?<=[a-z]))(-?[1-4])\s*\}?|(/)|(?:\\cdot|\*|-))")
# A word behind a number and a space; letters in the order of a product (ab, xyz, abc) are none.
_SHORT_WORD = re.compile("[b-df-hj-np-tv-z][aeiou][b-df-hj-np-tv-z]|egg|ant|ace|tea|pie|bee|toe|eye|inn|oar|ounce")


def read_unit(text: str, *, is_text: bool, is_apart: bool) -> Unit | None:
    """`text` as a unit; None where it is not one.

    Args:
        text: what stands behind a number, without commands for fonts.
        is_text: whether the answer marks it as text: then words of no table are units, too.
        is_apart: whether a space stands between the number and `text`: "7 m" has a unit, "7m" is a product.
    """
    text = _TEMPERATURES.sub(_temperature, text.strip().replace(".", ""))
    pieces = _pieces(text)
    if pieces is None:
        return None
    words = [word for word, _ in pieces]
    spelled = {word.lower() for word in (*words, *re.findall("[A-Za-z]+", text))}
    if not words or len(words) > MAX_WORDS or spelled & _NOT_UNITS or not spelled.isdisjoint(MAGNITUDES):
        return None
    if any(_PART.fullmatch(word.removesuffix("s")) for word in spelled):
        return None
    if words[:-1].count("point") or (len(words) == 1 and len(words[0]) == 1 and not (is_text or is_apart)):
        return None
    unknown: list[str] = []
    factor, dimensions = Fraction(1), {}
    for word, power in pieces:
        known = _SYMBOLS.get(word) if len(word) > 1 or is_text else None
        # 7 M is no 7 m.
        known = known or (_KNOWN.get(word.lower()) if len(word) > 1 or word.islower() or word == "L" else None)
        if known is None:
            if not (is_text or _is_word(word, is_apart)):
                return None
            unknown.append(word)
            dimensions[word] = dimensions.get(word, 0) + power
            continue
        factor *= known.factor**power
        for kind, own in known.dimensions:
            dimensions[kind] = dimensions.get(kind, 0) + own * power
    if any(len(word) == 1 for word in unknown):
        return None  # cm^2x
    return Unit(factor, tuple(sorted((kind, power) for kind, power in dimensions.items() if power)))


def _pieces(text: str) -> list[tuple[str, int]] | None:
    """Words with their powers: miles per hour, cm^2, square centimeters, m/s^2; None where something else is there."""
    pieces: list[tuple[str, int]] = []
    sign, ahead, place = 1, 1, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.end() == place:
            return None
        word, power, slash = match.groups()
        place = match.end()
        if slash or (word and word.lower() in ("per", "an", "a", "each")):
            sign = -1
        elif word and word.lower() in _SQUARE | _CUBIC:
            ahead = 2 if word.lower() in _SQUARE else 3
        elif power or (word and word.lower() in _POWERS):
            if not pieces or abs(pieces[-1][1]) != 1:
                return None
            pieces[-1] = (pieces[-1][0], pieces[-1][1] * (_POWERS[word.lower()] if word else int(power)))
        elif word:
            keeps_case = word in _SYMBOLS or len(word) == 1
            pieces.append((word if keeps_case else _singular(word.lower()), sign * ahead))
            ahead = 1
    return pieces


def _temperature(match: re.Match) -> str:
    return "celsius" if match[1].lower() in ("c", "celsius") else "fahrenheit"


def is_known(text: str) -> bool:
    """Whether a text of two letters or more is a unit of the table, with its power: cm, cm^2, inches."""
    word = re.match("[A-Za-z]{2,}", text)
    return word is not None and (word.group() in _SYMBOLS or _singular(word.group().lower()) in _KNOWN)


def _is_word(word: str, is_apart: bool) -> bool:
    if len(word) > 3:
        return re.search("[aeiouy]", word) is not None and "".join(sorted(word)) != word
    return is_apart and _SHORT_WORD.fullmatch(word) is not None


def _singular(word: str) -> str:
    if len(word) == 3 and word.endswith("s") and word[:-1] in _KNOWN:
        return word[:-1]  # lbs
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def same_quantity(a: Fraction, a_unit: Unit, b: Fraction, b_unit: Unit) -> bool:
    """Whether two numbers with units are equal."""
    return same_dimensions(a_unit, b_unit) and a * a_unit.factor == b * b_unit.factor


def same_dimensions(a: Unit, b: Unit) -> bool:
    """Whether two units measure the same. Of words in no table, one may say more: 7 years old, 7 red apples."""
    if a.dimensions == b.dimensions:
        return True
    (known, words), (other_known, other_words) = _parts(a), _parts(b)
    if known != other_known or not (known or (words and other_words)):
        return False
    return words <= other_words or other_words <= words


def _parts(unit: Unit) -> tuple[set, set]:
    known = {dimension for dimension in unit.dimensions if dimension[0] in _KINDS}
    return known, set(unit.dimensions) - known
