"""The tokens of a mathematical expression, and the names of functions, letters and operators that are known."""

import re

_TOKEN = re.compile(
    r"\s*(?:([0-9]+(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|\\text\s*\{([^{}]*)\}|(\\[A-Za-z]+|\\[{}|%])|([A-Za-z]+)|(\*\*|[-+*/^_!()\[\]{}|,'=%]))",
    re.ASCII,
)
GREEK = set(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "phi",
        "chi",
        "psi",
        "omega",
        "ell",
        "hbar",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Phi",
        "Psi",
        "Omega",
        "Upsilon",
    ]
)
TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"}
FUNCTIONS = TRIGONOMETRIC | set(
    [
        "arcsin",
        "arccos",
        "arctan",
        "arccot",
        "arcsec",
        "arccsc",
        "asin",
        "acos",
        "atan",
        "arsinh",
        "arcosh",
        "artanh",
        "ln",
        "log",
        "exp",
    ]
)
SEVERAL = {"max", "min", "gcd", "lcm"}
DECORATED = {"vec", "hat", "bar", "overline", "widehat", "tilde", "dot", "overrightarrow", "widetilde", "mathring"}
BIG = {"sum", "prod", "int", "lim", "iint", "iiint", "oint"}
WORDS = FUNCTIONS | SEVERAL | {"sqrt", "pi", "theta", "alpha", "beta", "infinity", "inf"}
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "infinity": "infty", "inf": "infty"}


class UnreadableError(ValueError):
    """The text is not an expression that this parser knows, or it can be read in more than one way."""


def tokens_of(text: str) -> list[str]:
    tokens: list[str] = []
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise UnreadableError
        number, words, command, letters, sign = match.groups()
        if number:
            tokens.append(number.replace(",", ""))
        elif words is not None:
            if words.strip().rstrip("s").lower() not in ("degree", "\\degree", ""):
                raise UnreadableError
            tokens += [r"\degree"] if words.strip() else []
        elif letters:
            tokens += _letters(letters)
        else:
            tokens.append("^" if sign == "**" else command or sign)
        place = match.end()
    return tokens


def _letters(run: str) -> list[str]:
    if run in WORDS:
        return ["\\" + ALIASES.get(run, run)]
    if run[:-1] in FUNCTIONS:
        return ["\\" + run[:-1], run[-1]]  # sinx
    if len(run) > 4:
        raise UnreadableError  # a word
    return list(run)
