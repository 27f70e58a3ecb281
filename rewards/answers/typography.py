r"""One way to write an answer: what only changes how it looks is taken off, and symbols become LaTeX commands.

`cleaned` is all that the readers see. Of the commands for text only `\text{...}` is left, of the fractions `\frac`, of
the relations `<`, `>`, `\le`, `\ge`, `\ne`, `\approx`; degrees are `\degree`; thousands are not set apart.
"""

import functools
import re

MAX_CHARACTERS = 1_000
_MAX_WRAPPERS = 12

_SUPERSCRIPTS = dict(zip("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a\u207f",
                         "0123456789-+n", strict=True))  # fmt: skip
_SUBSCRIPTS = dict(zip("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789", strict=True))
_VULGAR = {
    "\u00bd": "12", "\u2153": "13", "\u2154": "23", "\u00bc": "14", "\u00be": "34", "\u2155": "15", "\u2156": "25",
    "\u2157": "35", "\u2158": "45", "\u2159": "16", "\u215a": "56", "\u2150": "17", "\u215b": "18", "\u215c": "38",
    "\u215d": "58", "\u215e": "78", "\u2151": "19",
}  # fmt: skip
_GREEK = {
    "alpha": "\u03b1", "beta": "\u03b2", "gamma": "\u03b3", "delta": "\u03b4", "epsilon": "\u03b5", "zeta": "\u03b6",
    "eta": "\u03b7", "theta": "\u03b8", "lambda": "\u03bb", "mu": "\u03bc\u00b5", "nu": "\u03bd", "xi": "\u03be",
    "pi": "\u03c0", "rho": "\u03c1", "sigma": "\u03c3", "tau": "\u03c4", "phi": "\u03c6\u03d5", "chi": "\u03c7",
    "psi": "\u03c8", "omega": "\u03c9", "Delta": "\u0394\u2206", "Omega": "\u03a9",
}  # fmt: skip
_COMMANDS = {
    "\u221e": "infty", "\u2264": "le", "\u2a7d": "le", "\u2265": "ge", "\u2a7e": "ge", "\u2260": "ne",
    "\u2248": "approx", "\u2243": "approx", "\u222a": "cup", "\u2229": "cap", "\u2208": "in", "\u2205": "emptyset",
    "\u00b0": "degree", "\u00b1": "pm", "\u2213": "mp", "\u00d7": "times", "\u22c5": "cdot", "\u00b7": "cdot",
    "\u2219": "cdot", "\u2022": "cdot", "\u221a": "surd", "\u27e8": "langle", "\u27e9": "rangle", "\u2211": "sum",
    "\u222b": "int", "\u2212": "-", "\u211d": "mathbb{R}", "\u2124": "mathbb{Z}", "\u2115": "mathbb{N}",
    "\u2234": "therefore", "\u21d2": "implies", "\u2261": "equiv", "\u2220": "angle", "\u230a": "lfloor",
    "\u230b": "rfloor", "\u2308": "lceil", "\u2309": "rceil", "\u2227": "land", "\u2228": "lor",
}  # fmt: skip
# Spaces of all widths; not those of no width, which can hide a sign.
_SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t\r\n"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"
_SYMBOLS = str.maketrans(
    {mark: f"\\{name} " for mark, name in _COMMANDS.items()}
    | {mark: f"\\{name} " for name, marks in _GREEK.items() for mark in marks}
    | {mark: rf"\frac{{{digits[0]}}}{{{digits[1]}}}" for mark, digits in _VULGAR.items()}
    | dict.fromkeys(_SPACES, " ")
    | dict.fromkeys(_DASHES, "-")
    | {"\u00f7": "/", "\u2044": "/", "\u2032": "'", "\u2019": "'", "\u2018": "'",
       "\uff0c": ", ", "\uff1a": ":", "\u2026": r"\ldots ", "\u201c": '"', "\u201d": '"'}
)  # fmt: skip
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")

_END_TOKENS = re.compile(r"(?:\s*(?:<\|[^<>|]{1,40}\|>|</?s>|<eos>|<end_of_turn>|\[/?INST\]))+\s*$")
# Commands with no effect on the meaning; with an argument that is not shown; with one that is shown as it is.
_SILENT = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|nonumber|strut|mathstrut"
    r"|tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm|sf|tt|bfseries|itshape|boldmath|allowbreak"
    r"|mathop|mathrel|mathbin|mathord|hfill|null|relax|notag)(?![A-Za-z])"
)
_HIDDEN = re.compile(r"\\(?:[hv]?phantom|label|tag|hspace|vspace|color)\*?\s*(?:\{[^{}]*\}|\S)")
_SHOWN = (
    r"mathbf|mathit|mathsf|mathtt|mathcal|mathscr|mathfrak|mathnormal|boldsymbol|bm|pmb|underline|underbar|uline"
    r"|boxed|fbox|framebox|ensuremath|emph|bf|it|rm|sf|tt|large|Large"
)
_SHOWN_ARGUMENT = re.compile(
    rf"\\(?:{_SHOWN})\s*\{{|\\textcolor\s*\{{[^{{}}]*\}}\s*\{{|\\(?:{_SHOWN})(?![A-Za-z])\s*(?=[^\s{{])"
)
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal|sc|up|md)?|mbox|hbox|mathrm|textnormal|operatorname\*?|mathbb)\s*\{([^{}]*)\}"
)
_SIZES = re.compile(r"\\[dtcs]?frac(?![A-Za-z])|\\sfrac(?![A-Za-z])")
_RENAMED = {
    "leq": r"\le", "leqslant": r"\le", "leqq": r"\le", "geq": r"\ge", "geqslant": r"\ge", "geqq": r"\ge", "neq": r"\ne",
    "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "colon": ":", "div": "/", "slash": "/", "ast": "*", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "simeq": r"\approx", "doteq": r"\approx", "varnothing": r"\emptyset", "dots": r"\ldots", "cdots": r"\ldots",
    "dbinom": r"\binom", "tbinom": r"\binom", "degrees": r"\degree", "varphi": r"\phi", "varepsilon": r"\epsilon",
    "vartheta": r"\theta", "lg": r"\log_{10}", "bullet": r"\cdot", "iff": r"\iff", "lor": r"\text{ or }",
    "vee": r"\text{ or }",
    "bmod": r"\bmod", "setminus": r"\setminus", "backslash": r"\setminus", "imath": "i",
    "exponentialE": "e", "pounds": "\u00a3", "euro": "\u20ac", "textdollar": r"\$", "quad": " ", "qquad": " ",
    "thinspace": " ", "enspace": " ", "space": " ", "nobreakspace": " ", "infin": r"\infty", "R": r"\mathbb{R}",
}  # fmt: skip
# Commands that say something and are written as the readers want them: a text with these alone is nearly done.
_PLAIN = {
    "frac", "sqrt", "pi", "cdot", "times", "pm", "infty", "le", "ge", "ne", "in", "cup", "sin", "cos", "tan", "ln",
    "log", "theta",
    "alpha", "beta", "binom", "begin", "end", "cr", "cot", "sec", "csc", "approx",
}  # fmt: skip
_COMMAND_NAME = re.compile(r"\\([A-Za-z]+)")
_CONCLUDES = re.compile(r"\\(?:therefore|implies|Rightarrow|Longrightarrow|iff)(?![A-Za-z])")
_NOT = re.compile(r"\\not\s*=")
_SET_NAME = re.compile(r"\\mathbb\s+([A-Z])(?![A-Za-z])")
_SIDES = re.compile(r"\\(?:left|right)(?![A-Za-z])\s*\.?")
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]")
_COMMAND = re.compile(r"\\([A-Za-z]+) ?")
_DEGREES = re.compile(r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}|\{?\s*\\degree\s*\}?|\s*o(?![A-Za-z]))")
# LaTeX's thousands: 1{,}000, 1,\!000, 1\,000, and a space of any width between groups of three digits.
_FIXED_THOUSANDS = re.compile(r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!)\s*(?=[0-9]{3}(?![0-9]))")
_SPACED_THOUSANDS = re.compile(
    r"(?<![0-9.,_^])(?<![0-9] )([0-9]{1,3})((?:(?: |\\[,;: ]|~){1,3}[0-9]{3})+)(?![0-9]|(?: |\\[,;: ]|~)[0-9])"
)
_COMMA_THOUSANDS = re.compile(r"(?<![0-9.,(\[{_])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9]|\.[0-9]*,|\s*[)\]}])")
_ONLY_DIGITS = re.compile(r"[0-9,;.\s]*")
_ROW_END = re.compile(r"\\\\(?:\[[^\]]{0,9}\])?")
_LINES = re.compile(r"\\begin\s*\{(cases|aligned|align\*?|gathered|split)\}(.*?)\\end\s*\{\1\}", re.DOTALL)
# 2\pi k, k \in Z: what k stands for.
_WHOLE_NUMBERS = re.compile(
    r"(?<=\S)[,;]?\s*\(?"
    r"(?:\\text\{\s*(?:where|for|with)?\s*\}\s*)?[a-zA-Z]\s*\\in\s*\\mathbb\{[ZN]\}\s*\)?$"
)
_PRIMES = re.compile(r"\^\s*(?:\\prime(?![A-Za-z])|\{\s*(?:\\prime\s*)+\})")
_LATEX_SPACES = re.compile(r"(?<!\\)\\[,;:> ]|~")
# Not the dollar sign of ${7}, which no other sign closes: that is code and no number.
_DOLLARS = re.compile(r"(?<!\\)\$(?!\{[^$]*$)")
_MONEY = re.compile(r"^(\s*-?\s*)\$(?=\s*[0-9.][^$]*$)")  # no other dollar sign closes it
_BRACED_NUMBER = re.compile(r"(^|[-+/*(,=\[&<>{]|\\[lgn]e |\\cr |matrix\})\s*\{\s*([0-9.,]+)\s*\}")
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore|and),? )?(?:the |my )?(?:final |correct |right |only )?"
    r"(?:answer|result|solution|value|option|choice)s?(?: (?:is|are|would be|equals)|:)(?: therefore)?:?\s*"
    r"|\\approx\s*|:\s*|=(?![=])\s*",
    re.IGNORECASE,
)
_LEAD_IN_TEXT = re.compile(r"\\text\{\s*(?:" + _LEAD_IN.pattern + r")\s*\}", re.IGNORECASE)
_FOR_ALL = re.compile(r"(?<=\S)(?:,|\s)\s*(?:\\text\{\s*)?(?:for (?:all|any|every|each)|where)\s.*$")
_NO_WORDS = re.compile(r"[0-9]|(?i:\b(?:and|or)\b)|^\s*\(?[A-Za-z]\)?(?:\s*(?:,|;|&|and|or)\s*\(?[A-Za-z]\)?)*\s*$")


@functools.lru_cache(maxsize=16384)
def cleaned(text: str) -> str:
    """An answer without what only changes how it looks. Texts of over 1,000 characters are not changed."""
    if (text.isascii() and text.isdecimal()) or len(text) > MAX_CHARACTERS:
        return text
    if not text.isascii():
        text = _RAISED.sub(lambda run: "^{" + "".join(map(_SUPERSCRIPTS.get, run.group())) + "}", text)
        text = _LOWERED.sub(lambda run: "_{" + "".join(map(_SUBSCRIPTS.get, run.group())) + "}", text)
        text = text.translate(_SYMBOLS)
    else:
        text = re.sub(r"\s", " ", text)
    if text.rstrip().endswith((">", "]")):
        text = _END_TOKENS.sub("", text)
    if "\\" in text or "$" in text or "{" in text or "~" in text:
        text = _without_commands(text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[1] + re.sub(r"[^0-9]", "", match[2]), text)
    text = _without_wrappers(" ".join(text.split())).replace("**", "^")
    if "," in text and not _ONLY_DIGITS.fullmatch(text):
        text = _COMMA_THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)  # 12,000 dollars
    return text


def closing(text: str, start: int) -> int | None:
    """The place of the brace that closes the one before `start`; None if there is none."""
    depth, place = 1, start
    while place < len(text):
        if text[place] == "\\":
            place += 1
        else:
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                return place
        place += 1
    return None


def _without_commands(text: str) -> str:
    if "\\\\" in text:
        text = _LINES.sub(_one_line, _ROW_END.sub(r" \\cr ", text))
    if "," in text:
        text = _FIXED_THOUSANDS.sub("", text).replace("{,}", ",")
    text = re.sub(r"(?<=[0-9])\{:\}", ":", text.replace(r"\!", ""))
    if "prime" in text:
        text = _PRIMES.sub(lambda primes: "'" * primes.group().count("prime"), text)
    text = _SIDES.sub(" ", text)
    if not _PLAIN.issuperset(_COMMAND_NAME.findall(text)):
        text = _without_fonts(text)
    if "$" in text:
        text = _DOLLARS.sub("", _MONEY.sub(r"\1\\$", text))
    if "~" in text or _LATEX_SPACES.search(text):
        text = _LATEX_SPACES.sub(" ", text)
    text = _BRACED_NUMBER.sub(r"\1\2", _DELIMITERS.sub(" ", text))
    if "circ" in text or "degree" in text or "^" in text:
        text = _DEGREES.sub(r"\\degree ", text)
    return text


def _one_line(lines: re.Match) -> str:
    if lines[1] == "cases" and "&" in lines[2]:
        return lines[0]  # a function in pieces
    return lines[2].replace("&", " ").replace(r"\cr", ",")


def _without_fonts(text: str) -> str:
    """`text` without fonts and hidden parts, and with one name for each symbol."""
    text = _CONCLUDES.split(_NOT.sub(r"\\ne ", text))[-1]
    text = _SIZES.sub(r"\\frac", _SILENT.sub(" ", _HIDDEN.sub(" ", text)))
    for _ in range(_MAX_WRAPPERS):
        shown = _SHOWN_ARGUMENT.search(text)
        if shown is None:
            break
        if not shown.group().endswith("{"):
            text = f"{text[: shown.start()]} {text[shown.end() :]}"
            continue
        end = closing(text, shown.end())
        if end is None:
            break
        text = f"{text[: shown.start()]} {text[shown.end() : end]} {text[end + 1 :]}"
    return _TEXT.sub(_plain_text, _SET_NAME.sub(r"\\mathbb{\1}", _COMMAND.sub(_renamed, text)))


def _renamed(match: re.Match) -> str:
    new = _RENAMED.get(match[1])
    return match.group() if new is None else f"{new} " if new[-1:].isalpha() else new


_MATH_NAMES = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "lcm", "gcd", "max", "min", "arcsin",
               "arccos", "arctan", "sinh", "cosh", "tanh", "det", "arcsec", "arccot", "arccsc", "mod"}  # fmt: skip
_SETS = {"R": r"\mathbb{R}", "Z": r"\mathbb{Z}", "N": r"\mathbb{N}", "Q": r"\mathbb{Q}", "C": r"\mathbb{C}"}


def _plain_text(match: re.Match) -> str:
    r"""What \text{...} and the like hold: digits and signs as they are, words as \text{...}."""
    held, command = match[1], match.group().lstrip("\\").partition("{")[0].strip()
    word = held.strip().strip("~").strip()
    if command == "mathbb":
        return _SETS.get(word, word)
    if not any(character.isalpha() for character in held):
        return held
    if command in ("mathrm", "operatorname", "operatorname*"):
        is_behind_number = match.string[: match.start()].rstrip(" \\,;:~")[-1:].isdecimal()
        if word in _MATH_NAMES and not (word == "min" and is_behind_number):
            return f"\\{word} "
        if len(word) == 1 and word in "eid":
            return word
    return rf"\text{{{held}}}"


def _without_wrappers(text: str) -> str:
    """`text` without what stands around all of it: Markdown, one pair of braces, quotes, a lead-in, a full stop."""
    for _ in range(_MAX_WRAPPERS):
        before = text
        text = text.strip()
        if text[:1] == "{" and closing(text, 1) == len(text) - 1:
            text = text[1:-1]
        for mark in ("**", "__", "*", '"', "'"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        held = re.fullmatch(r"\\text\{([^{}]*)\}[.,;:]*", text) if text.startswith(r"\text") else None
        if held is not None and _NO_WORDS.search(held[1]):
            text = held[1]  # \text{1 and 3}, \text{(E)}; of words, \text says that they are no product
        if held is not None and _LEAD_IN.match(held[1].strip()):
            text = held[1]
        text = re.sub(r"(?<!\\)[.,;:]+$", "", text.strip()).strip()
        text = text[lead.end() :] if (lead := _LEAD_IN.match(text) or _LEAD_IN_TEXT.match(text)) else text
        text = _WHOLE_NUMBERS.sub("", text) if r"\mathbb" in text else text
        text = _FOR_ALL.sub("", text) if "=" in text else text
        if text == before:
            break
    return text
