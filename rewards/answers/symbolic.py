"""Comparing two mathematical expressions with math-verify. Only worker processes import this module.

Nothing here has a time limit, and sympy may never finish with a short expression. `workers.WorkerPool` kills the
process at the time limit.
"""

import functools
import logging
import re
from typing import Literal

import math_verify
import sympy

# Both log a warning that no time limit is set.
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.ERROR)
_CONFIG = [math_verify.LatexExtractionConfig()]


def compare(gold: str, found: str) -> Literal["right", "wrong", "unparseable", "no gold"]:
    """Whether two expressions have the same value; "unparseable", "no gold" where `found`, `gold` cannot be read."""
    gold_values = _parse_gold(gold)
    if not gold_values:
        return "no gold"
    found_values = _parse(found)
    if not found_values:
        return "unparseable"
    if "%" not in gold + found and _differ(gold_values[0], found_values[0]):
        return "wrong"
    return "right" if math_verify.verify(gold_values, found_values, timeout_seconds=None) else "wrong"


def can_read(gold: str) -> bool:
    """Whether a gold is an expression to math-verify."""
    return bool(_parse_gold(gold))


def _differ(gold: object, found: object) -> bool:
    """Whether two expressions clearly have different values at one point.

    This finds nearly all wrong answers, in a tenth of the time that simplifying takes. It is never true of expressions
    that math-verify calls equal: those differ at most by rounding to six decimals.
    """
    if not (isinstance(gold, sympy.Expr) and isinstance(found, sympy.Expr)):
        return False
    names = sorted(gold.free_symbols | found.free_symbols, key=str)
    # Positive values, no whole numbers, all different: no branch point, and no equality by coincidence.
    point = {name: sympy.Float("0.7316") + sympy.Float("0.4142") * place for place, name in enumerate(names)}
    try:
        a, b = (complex(side.subs(point).evalf(20)) for side in (gold, found))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return False
    return abs(a - b) > 1e-5 * (1 + abs(a) + abs(b))


def _parse(text: str) -> list:
    text = re.sub(r"\\[()\[\]]|\$", "", text).replace(r"\cr", r"\\")
    parsed = math_verify.parse(f"${text}$", _CONFIG, parsing_timeout=None)
    # Where math-verify reads no expression, it returns strings alone.
    return parsed if any(not isinstance(value, str) for value in parsed) else []


_parse_gold = functools.lru_cache(maxsize=1024)(_parse)


def _warm_up() -> None:
    """Read and compare some of each kind: the first time builds tables, which every worker then has from the start."""
    for text, other in (
        (r"\frac{\sqrt{3}}{2} x^2 + 1", r"1 + \frac{x^2 \sqrt{3}}{2}"),
        (r"(-\infty, \pi]", r"(-\infty, \pi]"),
        (r"\{1, \sqrt{2}\} \cup (3, 4)", r"\{\sqrt{2}, 1\} \cup (3, 4)"),
        (
            r"\begin{pmatrix} 1 & x \\ \sqrt{2} & 3 \end{pmatrix}",
            r"\begin{pmatrix} 1 & x \\ \sqrt{2} & 3 \end{pmatrix}",
        ),
        (r"y = 2x + \ln 3", r"2x - y = -\ln 3"),
        (r"\sin^2 x + |x|", r"1 - \cos^2 x + |x|"),
        (r"x \le 3", r"3 \ge x"),
    ):
        compare(text, other)


_warm_up()
