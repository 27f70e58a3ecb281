"""Times of day, ratios and numbers to a base; and what text and units say without the commands around them."""

import re

from rl_posttrain.rewards.answers.forms import Based, Clock, Group, Quantity
from rl_posttrain.rewards.answers.numbers import read_number

_CLOCK = re.compile(
    r"([0-9]{1,2})(?:\s*:\s*([0-5][0-9]))?(?::([0-5][0-9]))?\s*([ap]\s?\.?\s?m\b\s?\.?|o'?clock|noon)?", re.IGNORECASE
)
_BASED = re.compile(
    r"[({]?\s*([0-9A-Fa-f]+)\s*[)}]?\s*(?:_\s*(?:\{(.*)\}|([0-9]|\\text\{[^{}]*\}))|\(?\s*\\?(?:text\{)?\s*(base\b.*))"
)
_BASE_NAMES = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen",
]  # fmt: skip
_BASES = {name: base for base, name in enumerate(_BASE_NAMES, start=2)} | {"binary": 2, "octal": 8, "hexadecimal": 16}
UNIT_FRACTION = re.compile(r"\\frac\s*\{(\\text\{[^{}]*\}[^{}]*)\}\s*\{(\\text\{[^{}]*\}[^{}]*)\}")
_SIGNS = str.maketrans({
    "\u00a2": " cent ", "\u00a3": " sterling ", "\u20ac": " euro ", "\u00a5": " yen ", "\u20b9": " rupee ",
})  # fmt: skip


def shown_text(text: str) -> str:
    """What text and units say, without the commands around them."""
    text = UNIT_FRACTION.sub(r" \1/\2", text).translate(_SIGNS)
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).replace(r"\degree", " degree ")


def read_clock(text: str) -> Clock | Group | None:
    if text in ("noon", "midnight", "12 noon", "12 midnight"):
        return Clock(12 * 3600, "pm" if "noon" in text else "am")
    if ":" not in text and text.rstrip(" .}")[-1:] not in "mMkn":
        return None
    shown = " ".join(shown_text(text).split()).rstrip(".")
    if (match := _CLOCK.fullmatch(shown)) and (match[2] or match[4]) and int(match[1]) <= 24:
        half = (match[4] or "").lower().replace(".", "").replace(" ", "")
        half = half if half in ("am", "pm") else ""
        return Clock(int(match[1]) * 3600 + int(match[2] or 0) * 60 + int(match[3] or 0), half)
    if ":" in shown:
        items = [read_number(part) for part in shown.split(":")]
        return None if None in items else Group(":", tuple(Quantity(item) for item in items))
    return None


def read_based(text: str) -> Based | None:
    match = _BASED.fullmatch(re.sub(r"^\\text\{(\w+)\}", r"\1", text)) if "_" in text or "base" in text else None
    if match is None:
        return None
    base = shown_text(match[2] or match[3] or match[4]).lower().replace("base", " ").strip(" ()}{-.")
    number = _BASES.get(base, int(base) if base.isdecimal() and base[0] != "0" and len(base) < 3 else 0)
    digits = match[1].upper().lstrip("0") or "0"
    fits = (
        2 <= number <= 36
        and all(int(digit, 36) < number for digit in digits)
        and (match[1][0].isdecimal() or (number > 10 and match[1].isupper()))
    )
    return Based(digits, number) if fits else None
