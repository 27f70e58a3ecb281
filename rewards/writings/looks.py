r"""Rules that change how a text looks and never what it says: spaces, fonts, delimiters, symbols, its place.

They hold for right answers and for wrong ones, so any of them may follow another rule.
"""

import re
from collections.abc import Callable

from rl_posttrain.rewards.writings.shapes import CHOICE, shape_of
from rl_posttrain.rewards.writings.text import balanced, compact, outside_text, spaced
from rl_posttrain.rewards.writings.writing import Place, Texts, Writing

_SYMBOLS = {
    r"\pi": "\N{GREEK SMALL LETTER PI}", r"\infty": "\N{INFINITY}", r"\le": "\N{LESS-THAN OR EQUAL TO}",
    r"\leq": "\N{LESS-THAN OR EQUAL TO}", r"\ge": "\N{GREATER-THAN OR EQUAL TO}",
    r"\geq": "\N{GREATER-THAN OR EQUAL TO}", r"\times": "\N{MULTIPLICATION SIGN}", r"\cdot": "\N{MIDDLE DOT}",
    r"\cup": "\N{UNION}", r"\theta": "\N{GREEK SMALL LETTER THETA}", r"\alpha": "\N{GREEK SMALL LETTER ALPHA}",
    r"\pm": "\N{PLUS-MINUS SIGN}", r"\emptyset": "\N{EMPTY SET}",
}  # fmt: skip
_VULGAR = {
    "1/2": "\N{VULGAR FRACTION ONE HALF}", "1/3": "\N{VULGAR FRACTION ONE THIRD}",
    "2/3": "\N{VULGAR FRACTION TWO THIRDS}", "1/4": "\N{VULGAR FRACTION ONE QUARTER}",
    "3/4": "\N{VULGAR FRACTION THREE QUARTERS}", "1/5": "\N{VULGAR FRACTION ONE FIFTH}",
    "5/6": "\N{VULGAR FRACTION FIVE SIXTHS}", "3/8": "\N{VULGAR FRACTION THREE EIGHTHS}",
}  # fmt: skip
_SIMPLE_FRACTION = re.compile(r"\\([dtc]?)frac\s*\{\s*([^{}\\]*)\s*\}\s*\{\s*([^{}\\]*)\s*\}")
_ROOT = re.compile(r"\\sqrt\s*(?:\{\s*([0-9a-z])\s*\}|([0-9a-z])(?![0-9]))")
_DEGREE = re.compile(r"\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})")
_AS_WORDS = ("word", "choice", "time", "money", "quantity", "base", "other")


def looks(text: str) -> Texts:
    r"""The same text for a box or a tag, written otherwise.

    Texts that hold \begin, \text or words keep clear of rules for formulas.
    """
    shape = shape_of(text) if text else "other"
    has_words = (
        shape in _AS_WORDS or re.search(r"[A-Za-z]{4,}|\\text|Rs\.", re.sub(r"\\[A-Za-z]+", "", text)) is not None
    )
    yield from _around(text, has_words)
    if has_words or r"\text" in text:
        return
    yield from _spacing(text)
    yield from _signs(text)
    yield from _symbols(text)
    yield from _fractions(text)
    yield from _powers(text)


def placed(rule: str, text: str, shape: str) -> list[Writing]:
    """A text in every place that suits it."""
    found = [Writing(f"{rule}, in a tag", text, "tag")]
    found += [Writing(f"{rule}, in a display", text, "display"), Writing(f"{rule}, behind another box", text, "long")]
    is_a_sentence = shape == "other" and len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", text)) > 2
    if "$" not in text.replace(r"\$", "") and "\n" not in text and not is_a_sentence:
        found += [Writing(f"{rule}, dollars in a tag", f"${text}$", "tag")]
        found += [Writing(f"{rule}, parentheses of LaTeX in a tag", rf"\({text}\)", "tag")]
        found += [Writing(f"{rule}, fbox", text, "fbox")] if shape not in ("word", "choice") else []
        said = CHOICE.fullmatch(text)[1] if shape == "choice" else text
        found += [
            Writing(f"{rule}, {name}", form.replace("%s", said), place) for name, form, place in _sentences(shape)
        ]
    if shape in ("integer", "decimal", "fraction", "percent", "choice", "word"):
        found += [
            Writing(f"{rule}, stars in a tag", f"**{text}**", "tag"),
            Writing(f"{rule}, after ####", text, "gsm8k"),
        ]
        found += [Writing(f"{rule}, stars after ####", f"**{text}**", "gsm8k")]
        found += [Writing(f"{rule}, end token", f"{text}<|endoftext|>", "gsm8k")]
    return found


def _sentences(shape: str) -> list[tuple[str, str, Place]]:
    forms: list[tuple[str, str, Place]] = [
        ("sentence in a tag", "The answer is $%s$.", "tag"),
        ("the closing line of Minerva", "Final Answer: The final answer is $%s$. I hope it is correct.", "sentence"),
        ("last formula", "Adding up, the final answer is $%s$.", "sentence"),
        ("bold heading", "**Final Answer:** $%s$", "sentence"),
        ("display formula", "Therefore, the answer is\n\\[%s\\]", "sentence"),
        ("so, in a tag", "So, the final answer is $%s$.", "tag"),
    ]
    if shape in ("integer", "decimal", "fraction", "choice", "word"):
        forms += [("answer and colon in a tag", "Answer: %s", "tag")]
        forms += [("plain sentence in a tag", "The answer is %s.", "tag")]
        forms += [("plain last sentence", "Therefore, the answer is %s.", "sentence")]
        forms += [("answer and colon", "Answer: %s", "sentence")]
    if shape in ("choice", "word"):
        forms = [form for form in forms if "$" not in form[1] and "\\[" not in form[1]]
    if shape == "choice":
        forms += [("correct answer in brackets", "The correct answer is (%s).", "sentence")]
        forms += [("bold letter", "**%s**", "sentence"), ("bold answer", "**Answer: %s**", "sentence")]
    return forms


def _around(text: str, has_words: bool) -> Texts:
    if not balanced(text):
        return
    yield "braces around", f"{{{text}}}"
    yield "white space around", f" {text}\n"
    yield "stars", f"**{text}**"
    if "_" not in text and "*" not in text:
        yield "one star", f"*{text}*"
    if "$" not in text:
        yield "dollars inside", f"${text}$"
        yield "parentheses of LaTeX inside", rf"\({text}\)"
    if not text.endswith((".", "?")):
        yield "full stop", f"{text}."
        yield "comma behind", f"{text},"
        yield "semicolon behind", f"{text};"
    yield "display style", rf"\displaystyle {text}"
    yield "quad before", rf"\quad {text}"
    yield "thin space before", rf"\,{text}"
    yield "large", rf"\large {text}"
    yield "colour", rf"\color{{red}}{{{text}}}"
    yield "coloured text", rf"\textcolor{{blue}}{{{text}}}"
    yield "underlined", rf"\underline{{{text}}}"
    yield "box in the box", rf"\boxed{{{text}}}"
    if has_words or "\\begin" in text:
        return
    yield "bold", rf"\mathbf{{{text}}}"
    yield "bold symbol", rf"\boldsymbol{{{text}}}"
    yield "bm", rf"\bm{{{text}}}"
    yield "bf in braces", rf"{{\bf {text}}}"
    yield "bf", rf"\bf{{{text}}}"


def _spacing(text: str) -> Texts:
    if "\\begin" not in text and (apart := spaced(text)) not in (None, text):
        yield "spaces between all", apart
    if (close := compact(text)) != text:
        yield "no spaces", close
    if "\\left" not in text and re.search(r"[(\[]|\\\{", text) and _brackets_match(text):
        tall = re.sub(r"\\\{|[(\[]", lambda match: rf"\left{match.group()}", text)
        yield "left and right", re.sub(r"\\\}|[)\]]", lambda match: rf"\right{match.group()}", tall)
    if re.search(r" [-+=] ", text):
        yield "thin spaces", re.sub(r" ([-+=]) ", r"\\, \1 \\, ", text)
    if re.search(r", ?[^0-9 !}]", text) and "\\begin" not in text:
        yield "wide spaces behind commas", re.sub(r",(?![0-9!\\}]) ?(?=[^0-9 !\\}])", r",\\ ", text)


def _brackets_match(text: str) -> bool:
    r"""Whether \left and \right would pair: as many open as close, and none closes first; no root has an index."""
    depth = 0
    for match in re.finditer(r"\\[{}]|[()\[\]]", text):
        depth += 1 if match.group() in (r"\{", "(", "[") else -1
        if depth < 0:
            return False
    return depth == 0 and r"\sqrt[" not in text and "\\begin" not in text and "_" not in text


def _signs(text: str) -> Texts:
    if "-" in text and "\\begin" not in text:
        yield "true minus", text.replace("-", "\N{MINUS SIGN}")
        yield "en dash", text.replace("-", "\N{EN DASH}")
        yield "hyphen that does not break", text.replace("-", "\N{NON-BREAKING HYPHEN}")
        if text.startswith("-") and len(text) > 1:
            yield "sign apart", f"- {text[1:].strip()}"


def _symbols(text: str) -> Texts:
    for command, symbol in _SYMBOLS.items():
        pattern = re.compile(rf"\{command}(?![A-Za-z])\s?")
        if pattern.search(text):
            yield f"{command} as a symbol", pattern.sub(symbol, text)
    if _DEGREE.search(text):
        yield "degree sign", _DEGREE.sub("\N{DEGREE SIGN}", text)
        yield "degrees braced", _DEGREE.sub(r"^{\\circ}", text)
    for command, other in (
        ("le", "leq"),
        ("leq", "le"),
        ("ge", "geq"),
        ("geq", "ge"),
        ("le", "leqslant"),
        ("ge", "geqslant"),
    ):
        pattern = re.compile(rf"\\{command}(?![A-Za-z])")
        if pattern.search(text):
            yield f"{command} as {other}", pattern.sub(rf"\\{other}", text)
    if re.search(r"\\(?:cdot|times)(?![A-Za-z])", text):
        yield "star for times", re.sub(r"\s*\\(?:cdot|times)(?![A-Za-z])\s*", " * ", text)
    if re.search(r"(?<![A-Za-z\\])e\^", text):
        yield "upright e", re.sub(r"(?<![A-Za-z\\])e\^", r"\\mathrm{e}^", text)


def _fractions(text: str) -> Texts:
    names = re.compile(r"\\[dtc]?frac(?![A-Za-z])")
    if names.search(text):
        for name in ("frac", "dfrac", "tfrac"):
            if (other := names.sub(rf"\\{name}", text)) != text:
                yield name, other
    simple = _SIMPLE_FRACTION
    if not simple.search(text):
        return

    def change(form: Callable[[str, str], str | None]) -> str:
        return outside_text(text, lambda part: simple.sub(lambda match: form(match[2], match[3]) or match[0], part))

    def short(top: str, bottom: str) -> str | None:
        return rf"\frac{top}{bottom}" if top.isdecimal() and bottom.isdecimal() and len(top + bottom) == 2 else None

    def braced(top: str, bottom: str) -> str:
        return rf"\frac{{ {top} }}{{ {bottom} }}"

    def slashed(top: str, bottom: str) -> str:
        return f"({_in_brackets(top)}/{_in_brackets(bottom)})"

    if (other := change(short)) != text:
        yield "fraction without braces", other
    yield "spaces in the braces", change(braced)
    yield (
        "first braces left out",
        change(lambda top, bottom: rf"\frac{top}{{{bottom}}}" if top.isdecimal() and len(top) == 1 else None),
    )
    yield (
        "second braces left out",
        change(lambda top, bottom: rf"\frac{{{top}}}{bottom}" if bottom.isdecimal() and len(bottom) == 1 else None),
    )
    yield "fraction spaced out", change(lambda top, bottom: rf"\frac {{{top}}} {{{bottom}}}")
    # After a power, a function or a whole number, a slash would bind otherwise.
    if not re.search(r"(?:[\^_]\s*\{?|[0-9]\s*)\\[dtc]?frac", text):
        yield "slash in brackets", change(slashed)
    if (other := change(lambda top, bottom: _VULGAR.get(f"{top}/{bottom}"))) != text and not re.search(
        r"[0-9^]\s*\\[dt]?frac", text
    ):
        yield "fraction as a character", other


def _in_brackets(part: str) -> str:
    part = part.strip()
    return part if re.fullmatch(r"[0-9]+|[A-Za-z]", part) else f"({part})"


def _powers(text: str) -> Texts:
    if re.search(r"\^\{[0-9a-z]\}", text):
        yield "exponent without braces", re.sub(r"\^\{([0-9a-z])\}(?![0-9])", r"^\1", text)
    if re.search(r"\^\{[0-9a-z+*-]{2,}\}", text):
        yield "exponent in parentheses", re.sub(r"\^\{([0-9a-z+*-]{2,})\}", r"^(\1)", text)
    if re.search(r"\^[0-9a-z](?![0-9])", text):
        yield "exponent braced", re.sub(r"\^([0-9a-z])(?![0-9])", r"^{\1}", text)
    if re.search(r"[a-z)]\^\{?[23]\}?(?![0-9])", text):
        squares = {"2": "\N{SUPERSCRIPT TWO}", "3": "\N{SUPERSCRIPT THREE}"}
        yield (
            "exponent as a character",
            re.sub(r"(?<=[a-z)])\^(?:\{([23])\}|([23])(?![0-9]))", lambda match: squares[match[1] or match[2]], text),
        )
    if _ROOT.search(text):
        yield "root without braces", _ROOT.sub(lambda match: rf"\sqrt {match[1] or match[2]}", text)
        yield "square root with its index", _ROOT.sub(lambda match: rf"\sqrt[2]{{{match[1] or match[2]}}}", text)
        yield "root spelled", _ROOT.sub(lambda match: f"sqrt({match[1] or match[2]})", text)
        yield "root braced", _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
        yield "root as a power", _ROOT.sub(lambda match: rf"({match[1] or match[2]})^{{1/2}}", text)
        if not re.search(r"\\sqrt\s*\{?[0-9a-z]\}?\s*[0-9A-Za-z]", text):
            yield "root as a character", _ROOT.sub(lambda match: f"\N{SQUARE ROOT}{match[1] or match[2]}", text)
