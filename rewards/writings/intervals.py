"""Intervals, their unions and inequalities, written otherwise."""

import itertools
import math
import re

from rl_posttrain.rewards.writings.groups import an_item_rewritten, flat
from rl_posttrain.rewards.writings.numbers import value_of
from rl_posttrain.rewards.writings.shapes import RELATION
from rl_posttrain.rewards.writings.text import items_of, split_at, variables_of
from rl_posttrain.rewards.writings.writing import Texts

_STRICT = {"<": "<", ">": ">", r"\lt": "<", r"\gt": ">"}
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


class Piece:
    r"""One interval: its ends and whether each belongs to it. An end is None where it is infinite."""

    def __init__(self, text: str):
        self.low, self.high = (None if re.search("infty|\N{INFINITY}", end) else end for end in items_of(text[1:-1]))
        self.has_low, self.has_high = text[0] == "[", text[-1] == "]"

    def text(self, **changes: bool | str | None) -> str:
        """As an interval, with some of its parts changed."""
        part = {**vars(self), **changes}
        low = r"-\infty" if part["low"] is None else part["low"]
        high = r"\infty" if part["high"] is None else part["high"]
        return f"{'[' if part['has_low'] else '('}{low}, {high}{']' if part['has_high'] else ')'}"

    def inequality(self, name: str) -> str:
        """As an inequality in a variable."""
        at_least = r"\ge" if self.has_low else ">"
        below, above = (r"\le" if self.has_low else "<"), (r"\le" if self.has_high else "<")
        if self.low is None:
            return f"{name} {above} {self.high}"
        if self.high is None:
            return f"{name} {at_least} {self.low}"
        return f"{self.low} {below} {name} {above} {self.high}"


def pieces_of(gold: str) -> list[Piece]:
    r"""The intervals of a union; of a single interval, that one."""
    return [Piece(piece.strip()) for piece in split_at(flat(gold), "\\\\cup(?![a-z])|\N{UNION}")]


def are_apart(pieces: list[Piece]) -> bool:
    """Whether no two intervals of a union overlap or touch, so that every end of each counts; in doubt False."""

    def number(end: str | None, otherwise: float) -> float:
        if end is None:
            return otherwise
        root = re.fullmatch(r"(-?)\\sqrt\s*\{?([0-9]+)\}?", end)
        if root:
            return float(f"{root[1]}{int(root[2]) ** 0.5}")
        value = value_of(end)
        return math.nan if value is None else float(value)

    ends = [(number(piece.low, -math.inf), number(piece.high, math.inf), piece) for piece in pieces]
    if len(ends) > 1 and any(math.isnan(end) for low, high, _ in ends for end in (low, high)):
        return False
    ends.sort(key=lambda end: end[:2])
    return all(
        before[1] < after[0] or (before[1] == after[0] and not before[2].has_high and not after[2].has_low)
        for before, after in itertools.pairwise(ends)
    )


def interval_rewrites(gold: str) -> Texts:
    """Other ways to write an interval or a union of intervals."""
    yield "as it stands", gold
    pieces = pieces_of(gold)
    orders = [("in order", pieces)] + ([("turned around", pieces[::-1])] if len(pieces) > 1 else [])
    for rule, order in orders:
        texts = [piece.text() for piece in order]
        yield f"{rule}, cup", r" \cup ".join(texts)
        yield f"{rule}, cup, close", r"\cup".join(text.replace(", ", ",") for text in texts)
        yield f"{rule}, sign of the union", " \N{UNION} ".join(texts)
        tall = [rf"\left{text[0]}{text[1:-1]}\right{text[-1]}" for text in texts]
        yield f"{rule}, tall", r" \cup ".join(tall)
        yield f"{rule}, infinity as a sign", r" \cup ".join(text.replace(r"\infty", "\N{INFINITY}") for text in texts)
        yield f"{rule}, plus infinity", r" \cup ".join(re.sub(r"(?<!-)\\infty", r"+\\infty", text) for text in texts)
        yield f"{rule}, of x", r"x \in " + r" \cup ".join(texts)
        if all(piece.low or piece.high for piece in pieces) and not any(variables_of(text) for text in texts):
            said = [piece.inequality("x") for piece in order]
            joined = r" \text{ or } ".join(said)
            yield f"{rule}, inequality", joined
            yield f"{rule}, plain or", " or ".join(said)
            yield f"{rule}, set-builder", rf"\{{x \mid {joined}\}}"
            yield f"{rule}, set-builder with a plain bar", rf"\{{x | {joined}\}}"
            yield f"{rule}, set-builder over the reals", rf"\{{x \in \mathbb{{R}} \mid {joined}\}}"
            yield f"{rule}, set-builder with a colon", rf"\{{x : {joined}\}}"
            yield f"{rule}, inequality in t", r" \text{ or } ".join(piece.inequality("t") for piece in order)
    for place, piece in enumerate(pieces):
        for side in ("low", "high"):
            end = getattr(piece, side)
            if end is not None:
                for rule, (text,) in an_item_rewritten([end]):
                    texts = [other.text() for other in pieces]
                    texts[place] = piece.text(**{side: text})
                    yield f"interval {place + 1}, {side} end: {rule}", r" \cup ".join(texts)


def relations_of(gold: str) -> tuple[list[str], list[str]]:
    r"""The sides of an inequality, and its relations as <, >, \le and \ge."""
    found = [match.strip() for match in re.findall(RELATION, gold)]
    plain = {
        "\u2264": r"\le",
        "\u2265": r"\ge",
        r"\leq": r"\le",
        r"\geq": r"\ge",
        r"\leqslant": r"\le",
        r"\geqslant": r"\ge",
    }
    return split_at(gold, RELATION), [_STRICT.get(mark, plain.get(mark, mark)) for mark in found]


def inequality_rewrites(gold: str) -> Texts:
    """Other ways to write an inequality in one variable."""
    sides, marks = relations_of(gold)
    yield "as it stands", gold
    yield "apart", _chain(sides, marks)
    yield "turned around", _chain(sides[::-1], [_TURNED[mark] for mark in marks[::-1]])
    yield (
        "long names",
        _chain(sides, [{"<": r"\lt", ">": r"\gt", r"\le": r"\leq", r"\ge": r"\geq"}[mark] for mark in marks]),
    )
    yield "slanted", _chain(sides, [{r"\le": r"\leqslant", r"\ge": r"\geqslant"}.get(mark, mark) for mark in marks])
    yield "signs", _chain(sides, [{r"\le": "\u2264", r"\ge": "\u2265"}.get(mark, mark) for mark in marks])
    interval, name = as_interval(gold)
    if interval is None:
        return
    yield "interval", interval.text()
    yield "member of an interval", rf"{name} \in {interval.text()}"
    yield "tall interval", re.sub(r"^(.)(.*)(.)$", r"\\left\1\2\\right\3", interval.text())
    yield "set-builder", rf"\{{{name} \mid {_chain(sides, marks)}\}}"
    yield "set-builder over the reals", rf"\{{{name} \in \mathbb{{R}} \mid {_chain(sides, marks)}\}}"
    if len(sides) == 2 and interval.low is None:
        at_most = r"\le" if interval.has_high else "<"
        yield "infinite chain", rf"-\infty < {name} {at_most} {interval.high}"
    yield "set-builder with a colon", rf"\{{{name} : {_chain(sides, marks)}\}}"
    for side in ("low", "high"):
        end = getattr(interval, side)
        if end is not None:
            for rule, (text,) in an_item_rewritten([end]):
                yield f"{side} end: {rule}", _chain([text if other == end else other for other in sides], marks)


def _chain(sides: list[str], marks: list[str]) -> str:
    return sides[0] + "".join(f" {mark} {side}" for mark, side in zip(marks, sides[1:], strict=True))


def as_interval(gold: str) -> tuple[Piece | None, str]:
    """The interval of an inequality and its variable; None where the variable stands at neither place of one."""
    sides, marks = relations_of(gold)
    place = next(
        place for place, side in enumerate(sides) if re.fullmatch(r"[A-Za-z]|\\[a-z]+", side) and side != r"\pi"
    )
    if (len(sides) == 3 and place != 1) or len({mark in ("<", r"\le") for mark in marks}) > 1:
        return None, sides[place]
    if marks[0] not in ("<", r"\le"):
        sides, marks, place = sides[::-1], [_TURNED[mark] for mark in marks[::-1]], len(sides) - 1 - place
    piece = Piece("(0, 0)")
    piece.low = sides[place - 1] if place else None
    piece.high = sides[place + 1] if place + 1 < len(sides) else None
    piece.has_low = place > 0 and marks[place - 1] == r"\le"
    piece.has_high = place < len(marks) and marks[place] == r"\le"
    return piece, sides[place]
