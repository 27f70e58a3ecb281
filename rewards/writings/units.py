"""Units of measure by their names; the generator's own table, not that of the reward's reader."""

# Abbreviation, singular, plural.
UNITS = (
    ("cm", "centimeter", "centimeters"), ("m", "meter", "meters"), ("km", "kilometer", "kilometers"),
    ("mm", "millimeter", "millimeters"), ("in", "inch", "inches"), ("ft", "foot", "feet"), ("yd", "yard", "yards"),
    ("mi", "mile", "miles"), ("g", "gram", "grams"), ("kg", "kilogram", "kilograms"),
    ("mg", "milligram", "milligrams"), ("lb", "pound", "pounds"), ("oz", "ounce", "ounces"),
    ("s", "second", "seconds"), ("min", "minute", "minutes"), ("h", "hour", "hours"), ("L", "liter", "liters"),
    ("ml", "milliliter", "milliliters"), ("mph", "mile per hour", "miles per hour"),
    ("km/h", "kilometer per hour", "kilometers per hour"), ("m/s", "meter per second", "meters per second"),
    ("ft/s", "foot per second", "feet per second"),
)  # fmt: skip


# The bases that people spell.
BASE_WORDS = {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 11: "eleven",
    12: "twelve", 16: "sixteen",
}  # fmt: skip
# Words behind a number that change its value, withdraw it, or say more than a unit does.
NOT_UNITS = {
    "dozen", "hundred", "thousand", "million", "billion", "trillion", "half", "halves", "third", "thirds", "quarter",
    "quarters", "fourth", "fourths", "fifth", "fifths", "tenth", "tenths", "squared", "cubed", "factorial", "percent",
    "score", "pair", "pairs", "over", "more", "less", "times", "mod", "modulo", "base", "not", "or", "and", "is", "to",
    "than", "approx", "twice", "point", "negative", "minus", "plus", "divided", "remainder", "if",
}  # fmt: skip


def known_unit(unit: str) -> tuple[str, str, str] | None:
    """Abbreviation, singular and plural of a unit that is in the table."""
    unit = " ".join(unit.split()).rstrip(".")
    return next((row for row in UNITS if unit in row or unit.lower() in row), None)
