"""Cutting a text at signs that stand outside of all brackets."""

import re

from rl_posttrain.rewards.answers.numbers import read_number

_OPENING, _CLOSING = "([{", ")]}"
_CONNECTOR = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*\}|(?<![A-Za-z\\])(and|or)(?![A-Za-z])|;|,", re.IGNORECASE)


def in_one_bracket(text: str) -> bool:
    """Whether the first bracket is closed by the last character, as in "(1, 2]" and not in "(1) + (2)"."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def outside(text: str) -> list[bool]:
    """For each character, whether it stands outside of all brackets."""
    depth, flags = 0, []
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        flags.append(depth == 0)
    return flags


def pieces_of(text: str) -> tuple[list[str], set[str]]:
    """The parts between commas, semicolons, "and" and "or" outside of brackets, and the words between them.

    1,000 stays one part; of "1,000, 2,000" the commas before a space divide.
    """
    if not any(mark in text for mark in (",", ";", "and", "or", "AND", "OR", "And", "Or")):
        return [text], set()
    flags = outside(text)
    cuts = [match for match in _CONNECTOR.finditer(text) if flags[match.start()] or match.group().startswith("\\")]
    cuts = [match for match in cuts if match.group() != "," or _is_free(text, match.start())]
    cuts = [match for match in cuts if not match.group().startswith("\\") or flags[match.start()]]
    spaced = [match for match in cuts if match.group() != "," or text[match.end() : match.end() + 1].isspace()]
    if len(spaced) < len(cuts):
        parts = _cut(text, spaced)
        if all(read_number(part.strip()) is not None for part in parts):
            return parts, _words(spaced)
    return _cut(text, cuts), _words(cuts)


def _is_free(text: str, place: int) -> bool:
    return text[place - 1 : place + 2] != "{,}"


def _words(cuts: list[re.Match]) -> set[str]:
    return {(match[1] or match[2]).lower() for match in cuts if match[1] or match[2]}


def _cut(text: str, cuts: list[re.Match]) -> list[str]:
    starts = [0, *(match.end() for match in cuts)]
    ends = [*(match.start() for match in cuts), len(text)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    # "1, 2, and 3": between the comma and the word there is nothing.
    return [part for place, part in enumerate(parts) if part.strip() or not 0 < place < len(parts) - 1]
