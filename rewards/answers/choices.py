"""Letters of multiple choice."""

import re

_CHOICE = re.compile(r"\(\s*([A-J])\s*\)|\[([A-J])\]|([A-J])[.):]?|([a-j])\)|\(([a-j])\)")
_LETTER_AND_VALUE = re.compile(r"(?:\(([A-J])\)|([A-J])[.)])\s+(?P<value>\S.*)")
_CHOSEN = re.compile(
    r"(?:the )?(?:correct )?(?:option|choice|answer)?\s*(?:is )?[(\[]?\s*([A-Ja-j])\s*(?:[.):\]]+(?P<rest>\s+.*)?)?",
    re.IGNORECASE | re.DOTALL,
)
# Another choice, or a word that takes the first one back.
_ANOTHER = re.compile(
    r"[(\[]\s*[A-J]\s*[)\]]|(?<![A-Za-z])[A-J](?:[.):]|\s*$)|(?<![A-Za-z])(?:or|and|nor|not|wrong|incorrect|false)(?![A-Za-z])"
)


def read_choice(gold: str) -> str | None:
    """The letter, A to J, where a cleaned gold is a multiple-choice letter, with or without its value; else None."""
    match = _CHOICE.fullmatch(_shown(gold)) or _LETTER_AND_VALUE.fullmatch(_shown(gold))
    return next(letter for letter in match.groups() if letter).upper() if match else None


def choice_value(gold: str) -> str | None:
    """The value in a gold of letter and value, such as 12 in "(B) 12"; else None."""
    match = _LETTER_AND_VALUE.fullmatch(_shown(gold))
    return match["value"] if match else None


def chosen_letter(found: str) -> str | None:
    """The letter at the start of an answer to a multiple-choice question, such as C in "(C) 12"; else None."""
    match = _CHOSEN.fullmatch(_shown(found))
    return match[1].upper() if match and not _ANOTHER.search(match["rest"] or "") else None


def _shown(text: str) -> str:
    return " ".join(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).split())
