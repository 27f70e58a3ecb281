"""Units of measure as answers write them, and words that look like units and are not."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """What is measured, and the size of this unit in its base unit."""

    kind: str
    factor: Fraction


# The base unit comes first. Names are singular: a plural s is removed before the look-up.
_TABLE = {
    "length": "m meter metre=1 km kilometer kilometre=1000 cm centimeter centimetre=1/100 "
    "mm millimeter millimetre=1/1000 in inch inche=254/10000 ft foot feet=3048/10000 "
    "yd yard=9144/10000 mi mile=1609344/1000",
    "mass": "g gram=1 kg kilogram=1000 mg milligram=1/1000 lb pound=45359237/100000 oz ounce=45359237/1600000",
    "time": "s sec second=1 min minute=60 h hr hour=3600 day=86400 week=604800",
    "volume": "l liter litre=1 ml milliliter millilitre=1/1000",
    "money": "dollar usd=1 cent=1/100",
    "angle": "degree deg=1",
}
KNOWN = {
    name: Unit(kind, Fraction(factor))
    for kind, row in _TABLE.items()
    for names, factor in re.findall(r"([a-z ]+)=([0-9/]+)", row)
    for name in names.split()
}
MAGNITUDES = {
    "dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
# These words change the value of a number before them, or withdraw it. Text that contains one is not a unit.
_NOT_UNITS = {
    "squared", "cubed", "factorial", "half", "halve", "third", "quarter", "fourth", "fifth", "sixth", "tenth",
    "hundredth", "thousandth", "score", "pair", "gross", "over", "minus", "plus", "times", "divided", "mod",
    "modulo", "percent", "negative", "point", "power", "root", "and", "or", "not", "no", "is", "are", "isn", "than",
    "between", "about", "either", "maybe", "if", "to", "the", "else", "but", "base", "more", "less", "sqrt",
}  # fmt: skip
MAX_WORDS = 4


def normalized_unit(text: str) -> str | None:
    """`text` as a unit, spelled in one way; None where it is not a unit of at most four words."""
    text = re.sub(r"\s*\^\s*\{?([23])\}?", r"^\1", text.replace(".", ""))
    words = [_singular(word) for word in text.lower().split()]
    spelled = " ".join(words)
    if not 0 < len(words) <= MAX_WORDS or not re.fullmatch(r"[a-z]+(?:[ /][a-z]+)*(?:\^?[23])?", spelled):
        return None
    parts = re.findall("[a-z]+", spelled)
    if any(part in _NOT_UNITS or part in MAGNITUDES for part in parts):
        return None
    return None if len(spelled) == 1 and spelled not in KNOWN else spelled


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def same_quantity(a: Fraction, a_unit: str, b: Fraction, b_unit: str) -> bool:
    """Whether two numbers with units are equal. An unknown unit is equal only to a unit of the same name."""
    if a_unit == b_unit:
        return a == b
    if a_unit in KNOWN and b_unit in KNOWN:
        first, second = KNOWN[a_unit], KNOWN[b_unit]
        return first.kind == second.kind and a * first.factor == b * second.factor
    return False
