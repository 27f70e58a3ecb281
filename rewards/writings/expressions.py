"""Expressions and equations, written otherwise and wrongly."""

import re

from rl_posttrain.rewards.writings.numbers import number_rewrites, value_of
from rl_posttrain.rewards.writings.shapes import shape_of
from rl_posttrain.rewards.writings.text import (
    balanced,
    compact,
    is_one_bracket,
    outside_text,
    replaced,
    split_at,
    sum_of,
    terms_of,
    variables_of,
)
from rl_posttrain.rewards.writings.writing import Texts

_MONOMIAL = re.compile(r"([0-9]*)((?:[a-zA-Z](?:\^(?:[0-9]|\{[0-9a-z]+\}))?)+)")
_FACTOR = re.compile(r"[a-zA-Z](?:\^(?:[0-9]|\{[0-9a-z]+\}))?")
_FRACTION_FIRST = re.compile(
    r"\\[dt]?frac\s*(?:\{([0-9a-z])\}|([0-9]))\s*(?:\{([0-9a-z]+)\}|([0-9]))\s*([a-zA-Z][a-zA-Z0-9^{}]*)"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_FUNCTION = re.compile(r"\\(sin|cos|tan|cot|sec|csc)\s*\^\s*\{?2\}?\s*(\\?[a-zA-Z]+)")
_ARGUMENT = re.compile(r"\\(sin|cos|tan|cot|sec|csc|ln)\s+([a-z])(?!\s*[\^_a-zA-Z0-9])")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_NUMBER = re.compile(r"(?<![0-9.])[0-9]+(?![0-9.])")
# A digit there may not matter: in the argument of a periodic function, as an index, or beside a power of 0 or 1.
_DEAF = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|_|(?<![0-9.])[01]\s*\}?\s*\^|\\lfloor|\\phantom|\\binom|\(-1\)|e\^\{[^{}]*i"
)


def expression_rewrites(gold: str) -> Texts:
    """Other ways to write an expression: a name before it, brackets around it, and as `part_rewrites`."""
    variables = variables_of(gold)
    yield "assigned", f"{next(name for name in 'yzwuq' if name not in variables)} = {gold}"
    if len(variables) == 1 and variables != ["f"] and not variables[0].startswith("\\"):
        yield "named function", f"f({variables[0]}) = {gold}"
    if not is_one_bracket(gold):
        yield "in parentheses", rf"\left({gold}\right)"
    yield "in braces", f"{{{gold}}}"
    yield from part_rewrites(gold)


def part_rewrites(gold: str) -> Texts:
    """Other ways to write an item or a side: the order of terms and factors, fractions, functions, i."""
    yield "as it stands", gold
    for rule, text in _reordered(gold):
        yield rule, text
    for rule, text in _parts_rewritten(gold):
        if text != gold and balanced(text):
            yield rule, text


def _reordered(gold: str) -> Texts:
    terms = terms_of(gold)
    if len(terms) > 1 and all(text for _, text in terms) and not re.search(r"\\pm|=", gold):
        yield "terms turned around", sum_of(terms[::-1])
        yield "terms turned around, no spaces", compact(sum_of(terms[::-1], ""))
        if len(terms) > 2:
            yield "first term last", sum_of([*terms[1:], terms[0]])
        yield "terms apart", sum_of(terms)
        yield "no spaces between terms", sum_of(terms, "")
        yield "second term in parentheses", sum_of([terms[0], (terms[1][0], f"({terms[1][1]})"), *terms[2:]])
        yield "braces for a term", sum_of([terms[0], (terms[1][0], f"{{{terms[1][1]}}}"), *terms[2:]])
    elif len(terms) == 1 and terms[0][0] == "-" and terms[0][1]:
        yield "sign before parentheses", f"-({terms[0][1]})"
        yield "sign before braces", f"-{{{terms[0][1]}}}"


def _parts_rewritten(gold: str) -> Texts:
    turned = [(sign, _factors_turned(term)) for sign, term in terms_of(gold)]
    if [term for _, term in turned] != [term for _, term in terms_of(gold)] and "=" not in gold:
        yield "factors turned around", sum_of(turned, " " if " " in gold else "")
        dotted = [(sign, _factors_dotted(term)) for sign, term in terms_of(gold)]
        yield "dots between factors", sum_of(dotted)
        yield "stars between factors", sum_of(dotted).replace(r" \cdot ", "*")
    if (match := _FRACTION_FIRST.fullmatch(gold)) is not None:
        top, bottom, rest = match[1] or match[2], match[3] or match[4], match[5]
        above = rest if top == "1" else f"{top}{rest}"
        yield "all in one fraction", rf"\frac{{{above}}}{{{bottom}}}"
        yield "division at the end", f"{above}/{bottom}" if len(bottom) == 1 else f"({above})/({bottom})"
        yield "factor behind", rf"{rest} \cdot \frac{{{top}}}{{{bottom}}}"
        if bottom in ("2", "4", "5") and top.isdecimal():
            yield "decimal factor", f"{int(top) / int(bottom):g}{rest}"
    if (match := _FRACTION.fullmatch(gold)) is not None:
        top, bottom = match[1].strip(), match[2].strip()
        alone = re.compile(r"[0-9]+|[a-z]")
        yield "quotient", "/".join(part if alone.fullmatch(part) else f"({part})" for part in (top, bottom))
        if re.fullmatch(r"[0-9]*[a-z]", top):
            yield "one over it", rf"\frac{{1}}{{{bottom}}} \cdot {top}"
            yield "with a power of minus one", rf"{top} \cdot ({bottom})^{{-1}}"
    if _FUNCTION.search(gold):
        yield "power outside", _FUNCTION.sub(r"(\\\1 \2)^2", gold)
        yield "argument in parentheses", _FUNCTION.sub(r"\\\1^2(\2)", gold)
        yield "braced power of the function", _FUNCTION.sub(r"\\\1^{2} \2", gold)
    if _ARGUMENT.search(gold):
        yield "arguments in parentheses", _ARGUMENT.sub(r"\\\1(\2)", gold)
        yield "arguments in tall parentheses", _ARGUMENT.sub(r"\\\1\\left(\2\\right)", gold)
    if re.search(r"\\ln [0-9]+$", gold):
        yield "logarithm of parentheses", re.sub(r"\\ln ([0-9]+)$", r"\\ln(\1)", gold)
        yield "logarithm of braces", re.sub(r"\\ln ([0-9]+)$", r"\\ln{\1}", gold)
    if re.search(r"(?<![A-Za-z\\])e\^(?:\{[^{}]*\}|[0-9a-z])", gold):
        yield (
            "exp",
            re.sub(
                r"(?<![A-Za-z\\])e\^(?:\{([^{}]*)\}|([0-9a-z]))", lambda match: rf"\exp({match[1] or match[2]})", gold
            ),
        )
    if _IMAGINARY.search(re.sub(r"\\[A-Za-z]+", "", gold)):
        yield "upright i", outside_text(gold, lambda part: _IMAGINARY.sub(r"\\mathrm{i}", part))
        yield "i apart", outside_text(gold, lambda part: re.sub(r"(?<=[0-9])i(?![A-Za-z])", r" i", part))
        yield "i times", outside_text(gold, lambda part: re.sub(r"(?<=[0-9])i(?![A-Za-z])", r" \\cdot i", part))


def _factors_turned(term: str) -> str:
    match = _MONOMIAL.fullmatch(term)
    factors = _FACTOR.findall(match[2]) if match else []
    return match[1] + "".join(factors[::-1]) if len(factors) > 1 else term


def _factors_dotted(term: str) -> str:
    match = _MONOMIAL.fullmatch(term)
    return r" \cdot ".join([*([match[1]] if match[1] else []), *_FACTOR.findall(match[2])]) if match else term


def wrong_expressions(gold: str) -> Texts:
    """Wrong answers to an expression of which nothing is known but its text."""
    whole = gold if is_one_bracket(gold) else f"({gold})"
    yield "one more", f"{gold} + 1"
    yield "one less", f"{gold} - 1"
    yield "plus q", f"{gold} + q"
    yield "ten more", f"{gold} + 10"
    yield "half more", rf"{gold} + \frac{{1}}{{2}}"
    if not _may_vanish(gold):
        yield "sign of all", f"-{whole}"
        yield "twice all", f"2{whole}"
        yield "times x", f"{whole}x" if "x" not in variables_of(gold) else f"{whole}q"
        yield "tripled", rf"3 \cdot {whole}"
        yield "half", rf"\frac{{{gold}}}{{2}}"
        yield "off by a ten-millionth", f"1.0000001 {whole}"
        yield "off by a millionth", rf"0.999999 \cdot {whole}"
        yield "times pi", rf"\pi {whole}" if variables_of(gold) or r"\pi" in gold else rf"{whole}\pi"
    yield "a list of guesses", rf"{gold} \text{{ or }} {gold} + 1"
    yield "a set of two", rf"\{{{gold}, {gold} + 1\}}"
    yield "a point", f"({gold}, 0)"
    yield "more than", f"t > {gold}"
    yield from _changed_numbers(gold)
    yield from _changed_terms(gold)
    yield from _changed_variables(gold)


def _changed_numbers(gold: str) -> Texts:
    """Each number made one larger, where no other part can take that back."""
    if _DEAF.search(gold) or re.search(r"(?<![0-9.])0(?![0-9.])", gold):
        return
    for count, match in enumerate(_NUMBER.finditer(gold)):
        before = gold[: match.start()]
        if re.search(r"\\[dtc]?frac\s*(?:[0-9]|\\[a-z]+)?\s*$|\\frac\{[^{}]*\}$", before) or re.search(
            r"\\sqrt$", before
        ):
            continue  # \frac56: two numbers in one
        yield f"number {count + 1} one more", f"{before}{int(match.group()) + 1}{gold[match.end() :]}"
        yield f"number {count + 1} ten more", f"{before}{int(match.group()) + 10}{gold[match.end() :]}"


def _changed_terms(gold: str) -> Texts:
    terms = terms_of(gold)
    if len(terms) < 2 or any(not text for _, text in terms) or re.search(r"\\pm|=", gold):
        return
    for place, (sign, text) in enumerate(terms):
        rest = [*terms[:place], *terms[place + 1 :]]
        if text.strip("0. ") and not _may_vanish(text):
            yield f"term {place + 1} left out", sum_of(rest)
            flipped = "-" if sign == "+" else "+"
            yield f"sign of term {place + 1}", sum_of([*terms[:place], (flipped, text), *terms[place + 1 :]])
            yield f"term {place + 1} twice", sum_of([*terms, (sign, text)])


def _may_vanish(text: str) -> bool:
    return re.search(r"\\(?:sin|cos|tan|cot|log|ln)|(?<![0-9.])0(?![0-9.])", text) is not None and not variables_of(
        text
    )


def _changed_variables(gold: str) -> Texts:
    variables = variables_of(gold)
    others = [name for name in ("u", "w", "q") if name not in variables]
    for name in variables[:4]:
        if re.search(rf"{re.escape(name)}\s*_", gold):
            continue
        yield (
            f"{name} called {others[0]}",
            replaced(gold, name, f"{{{others[0]}}}" if name.startswith("\\") else others[0]),
        )
        if "(-1)^" not in gold:  # (-1)^{n^2} is (-1)^n for whole n
            yield f"{name} squared", replaced(gold, name, rf"{{({name}^2)}}")
        yield f"{name} doubled", replaced(gold, name, rf"{{(2{name})}}")
        if not _DEAF.search(gold):
            yield f"{name} made one more", replaced(gold, name, rf"{{({name}+1)}}")
    if len(terms_of(gold)) == 1 and (match := re.fullmatch(r"(-?[0-9]+)\s*[a-zA-Z].*", gold)):
        yield "coefficient alone", match[1]
    if len(variables) > 1 and (found := _MONOMIAL.fullmatch(gold)):
        factors = _FACTOR.findall(found[2])
        yield "last factor left out", found[1] + "".join(factors[:-1])
        yield "first factor left out", found[1] + "".join(factors[1:])


def equation_rewrites(gold: str) -> Texts:
    """Other ways to write an equation: its sides swapped, all on one side, its right side alone."""
    left, right = split_at(gold, "=")
    yield "as it stands", gold
    yield "close", f"{left}={right}"
    yield "apart", f"{left} = {right}"
    yield "sides swapped", f"{right} = {left}"
    yield "sides swapped, close", f"{right}={left}"
    if re.fullmatch(r"[a-zA-Z](?:\([a-z]\))?", left):
        yield "right side alone", right
        if len(left) == 1 and value_of(right) is None:
            yield "all on the left", f"{left} - ({right}) = 0"
            yield "all on the right", f"0 = {right} - {left}"
        side = number_rewrites(right, shape_of(right)) if value_of(right) is not None else ()
        for rule, text in side:
            if "=" not in text and not re.match("unit|therefore|about|text", rule):
                yield f"right side: {rule}", f"{left} = {text}"
        if value_of(right) is not None and value_of(right).denominator == 1:
            yield "chain", f"{left} = {value_of(right) - 3} + 3 = {right}"
        for rule, text in part_rewrites(right):
            yield f"right side: {rule}", f"{left} = {text}"
            yield f"right side alone: {rule}", text
    elif variables_of(gold):
        for rule, text in _reordered(left):
            yield f"left side: {rule}", f"{text} = {right}"
        for rule, text in _parts_rewritten(left):
            yield f"left side: {rule}", f"{text} = {right}"
        if right != "0":
            yield "all on the left", f"{left} - ({right}) = 0"
            yield "nought first", f"0 = {left} - ({right})"
        yield "both sides doubled", f"2({left}) = 2({right})" if right != "0" else f"2({left}) = 0"
        yield "signs of both sides", f"-({left}) = -({right})" if right != "0" else f"-({left}) = 0"
    elif not variables_of(gold):
        yield "value alone", right


def wrong_equations(gold: str) -> Texts:
    """An equation with another side, another relation, or the sides of another."""
    left, right = split_at(gold, "=")
    name = re.fullmatch(r"[a-zA-Z](?:\([a-z]\))?", left)
    yield "less than", f"{left} < {right}"
    yield "at least", rf"{left} \ge {right}"
    yield "not equal", rf"{left} \ne {right}"
    yield "one more on the right", f"{left} = {right} + 1"
    yield "one more on the left", f"{left} + 1 = {right}"
    if right != "0":
        yield "right side negative", f"{left} = -({right})"
        yield "right side doubled", f"{left} = 2({right})"
        yield "right side nought", f"{left} = 0"
    if variables_of(gold):
        yield "nought is nought", "0 = 0"
        yield "left side twice", f"{left} = {left}"
        if not name and variables_of(right):
            yield "right side twice", f"{right} = {right}"
    yield "a list of guesses", rf"{gold} \text{{ or }} {left} = {right} + 1"
    sides = [("right", right, lambda text: f"{left} = {text}")]
    if not name:
        sides += [("left", left, lambda text: f"{text} = {right}")]
    for side, text, form in sides:
        if text == "0":
            continue
        for rule, other in (*_changed_numbers(text), *_changed_terms(text)):
            yield f"{side} side: {rule}", form(other)
    if name and right != "0":
        for rule, other in wrong_expressions(right):
            if not re.match("one|a |more|plus q", rule):
                yield f"right side alone: {rule}", other
        if len(left) == 1 and left not in variables_of(right):
            yield (
                "another name",
                f"{'y' if left != 'y' else 'z'} = {right}" if not variables_of(right) else f"{left} = 0",
            )
    elif variables_of(gold):
        yield "left side alone", left
        for variable in variables_of(gold)[:2]:
            yield f"{variable} called q", replaced(gold, variable, "q")
