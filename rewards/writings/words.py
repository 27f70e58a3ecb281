"""Words and the letters of multiple choice, written otherwise and wrongly."""

import re

from rl_posttrain.rewards.writings.shapes import CHOICE
from rl_posttrain.rewards.writings.writing import Texts

_OPPOSITES = {
    "yes": "no", "no": "yes", "true": "false", "false": "true", "even": "odd", "odd": "even",
    "increasing": "decreasing",
    "converges": "diverges", "convergent": "divergent", "none": "all", "always": "never", "never": "always",
}  # fmt: skip
_OTHERS = ("Tuesday", "circle", "red", "blue", "north", "ellipse", "sometimes")
_LETTERS = "ABCDEFGHIJ"
_CHOICE_FORMS = (
    "%s", "(%s)", r"\text{%s}", r"\text{(%s)}", r"\textbf{%s}", r"\textbf{(%s)}", r"\mathrm{%s}", r"\mathbf{%s}",
    r"(\text{%s})", r"(\textbf{%s})", "%s.", "%s)", "**%s**", "**(%s)**", "option %s", "Option %s", r"\text{Option %s}",
    "choice %s", r"\mathrm{(%s)}", r"\textbf{(%s)}\ ", r"\text{%s.}", r"\boxed{%s}", "(%s).", "Answer: %s", "[%s]",
    "%s) 42", r"(%s) 12 \text{ cm}", r"\text{%s. } 42", r"\textbf{(%s) } 42", "%s: 42", r"\text{(%s) yes}",
)  # fmt: skip


def word_of(gold: str) -> str:
    """The words of a bare gold, without the font around them."""
    match = re.fullmatch(r"\\\w+\s*\{([^{}]*)\}", gold)
    return " ".join((match[1] if match else gold).split())


def word_rewrites(gold: str) -> Texts:
    """Other ways to write a word or a phrase: its case, its font, marks around it."""
    word = word_of(gold)
    cases = {
        "as it is": word,
        "small": word.lower(),
        "capitals": word.upper(),
        "title": word.title(),
        "first large": word.capitalize(),
    }
    for name, text in cases.items():
        yield f"{name}, plain", text
        for font in ("text", "textbf", "textit", "mathrm", "textrm", "mbox"):
            if font != "mathrm" or " " not in text:
                yield f"{name}, {font}", rf"\{font}{{{text}}}"
        yield f"{name}, full stop", f"{text}."
        yield f"{name}, text with a stop", rf"\text{{{text}.}}"
    yield "stars", f"**{word}**"
    yield "quotation marks", f'"{word}"'
    yield "spaces in the text", rf"\text{{ {word} }}"


def wrong_words(gold: str) -> Texts:
    """Wrong answers to a word: denied, its opposite, another word, letters changed, two at once."""
    word = word_of(gold)
    other = next(name for name in _OTHERS if name.lower() != word.lower())
    yield "denied", f"not {word}"
    yield "denied in text", rf"\text{{not {word}}}"
    yield "denied behind", f"{word} is wrong"
    yield "or another", f"{word} or {other}"
    yield "or another in text", rf"\text{{{word} or {other}}}"
    yield "and another", f"{word} and {other}"
    yield "a list", f"{word}, {_OPPOSITES.get(word.lower(), other)}"
    if (opposite := _OPPOSITES.get(word.lower())) is not None:
        yield "opposite", opposite
        yield "opposite in text", rf"\text{{{opposite}}}"
    for wrong in _OTHERS:
        if wrong.lower() != word.lower():
            yield f"another word {wrong}", rf"\text{{{wrong}}}"
    yield "a number", "7"
    yield "nought", "0"
    yield "first letter left out", word[1:]
    yield "first letter alone", word[0]
    yield "a letter before", f"x{word}"
    yield "letters turned around", word[::-1] if word.lower() != word[::-1].lower() else f"{word}x"
    yield "two letters swapped", f"{word[1]}{word[0]}{word[2:]}" if word[0].lower() != word[1].lower() else f"q{word}"
    yield "with a prefix", f"non{word}"
    yield "a set of two", rf"\{{\text{{{word}}}, \text{{{other}}}\}}"
    if " " in word:
        yield "first word left out", word.split(" ", 1)[1]
        yield "last word left out", word.rsplit(" ", 1)[0]


def letter_of(gold: str) -> str:
    """The letter of a bare gold of multiple choice."""
    return CHOICE.fullmatch(gold)[1]


def choice_rewrites(gold: str) -> Texts:
    """Other ways to write a letter of multiple choice."""
    for form in _CHOICE_FORMS:
        yield f"choice: {form.replace('%s', 'L')}", form.replace("%s", letter_of(gold))
    yield "small letter", letter_of(gold).lower()
    yield "small letter in parentheses", f"({letter_of(gold).lower()})"


def wrong_choices(gold: str) -> Texts:
    """Wrong answers to multiple choice: every other letter, two letters, the letter in a word."""
    letter = letter_of(gold)
    others = [other for other in _LETTERS[:6] if other != letter]
    for other in others:
        for form in ("%s", "(%s)", r"\text{%s}", r"\textbf{(%s)}", "%s)", "**%s**"):
            yield f"another letter: {form.replace('%s', 'L')}", form.replace("%s", other)
    first = others[0]
    yield "two with or", f"{letter} or {first}"
    yield "two with a comma", f"{letter}, {first}"
    yield "two with and", rf"\text{{{letter} and {first}}}"
    yield "two letters", f"{letter}{first}"
    yield "either", rf"\text{{({letter}) or ({first})}}"
    yield "denied", f"not {letter}"
    yield "other first", f"({first}) {letter}"
    yield "a word", f"{letter}ob"
    yield "its place", str(_LETTERS.index(letter) + 1)
    yield "another with its text", f"({first}) 42"
    yield "another option", f"option {first}"
