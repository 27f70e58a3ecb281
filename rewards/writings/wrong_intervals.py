"""Wrong answers to intervals, their unions and inequalities."""

from rl_posttrain.rewards.writings.intervals import are_apart, as_interval, pieces_of, relations_of
from rl_posttrain.rewards.writings.writing import Texts
from rl_posttrain.rewards.writings.wrong_groups import changed_items

_OTHER_RELATIONS = {
    "<": (r"\le", ">", "="),
    ">": (r"\ge", "<", "="),
    r"\le": ("<", r"\ge", "="),
    r"\ge": (">", r"\le", "="),
}


def wrong_intervals(gold: str) -> Texts:
    """Wrong answers to an interval or a union: ends that belong or do not, other ends, a part left out."""
    pieces = pieces_of(gold)
    if not are_apart(pieces):
        return

    def union(place: int, text: str) -> str:
        return r" \cup ".join([*(p.text() for p in pieces[:place]), text, *(p.text() for p in pieces[place + 1 :])])

    for place, piece in enumerate(pieces):
        what = f"interval {place + 1}: "
        for side in ("low", "high"):
            end = getattr(piece, side)
            if end is None:
                yield (
                    f"{what}{side} end made finite",
                    union(place, piece.text(**{side: "-91" if side == "low" else "91"})),
                )
                continue
            yield (
                f"{what}{side} bracket",
                union(place, piece.text(**{f"has_{side}": not getattr(piece, f"has_{side}")})),
            )
            yield f"{what}no {side} end", union(place, piece.text(**{side: None, f"has_{side}": False}))
            for rule, other in changed_items(end):
                yield f"{what}{side} end: {rule}", union(place, piece.text(**{side: other}))
    ends = [end for piece in pieces for end in (piece.low, piece.high) if end is not None]
    if not ends:
        return
    yield "ends as a set", rf"\{{{', '.join(ends)}\}}"
    yield "ends as a list", ", ".join(ends)
    if len(ends) > 1:
        yield "ends as a list of solutions", ", ".join(f"x = {end}" for end in ends)
        yield "ends with or", r" \text{ or } ".join(ends)
    yield "first end alone", ends[0]
    yield "less than", f"x < {ends[0]} - 1"
    yield "equal", f"x = {ends[0]}"
    yield "all numbers", r"(-\infty, \infty)"
    if len(pieces) > 1:
        for place in range(len(pieces)):
            yield (
                f"interval {place + 1} left out",
                r" \cup ".join(p.text() for at, p in enumerate(pieces) if at != place),
            )
        yield "sign of the intersection", r" \cap ".join(piece.text() for piece in pieces)
    else:
        yield (
            "a part added",
            rf"{gold} \cup (1000, 1001)" if pieces[0].high is not None else rf"(-1001, -1000) \cup {gold}",
        )
    if len(pieces) == 1 and pieces[0].low is not None and pieces[0].high is not None:
        piece = pieces[0]
        yield "ends turned around", piece.text(low=piece.high, high=piece.low)
        yield "both brackets", piece.text(has_low=not piece.has_low, has_high=not piece.has_high)
        yield "a sum", f"{piece.low} + {piece.high}"


def wrong_inequalities(gold: str) -> Texts:
    """Wrong answers to an inequality: another relation, another end, the end alone, and the intervals of these."""
    sides, marks = relations_of(gold)
    for place, mark in enumerate(marks):
        for other in _OTHER_RELATIONS[mark]:
            if len(marks) == 1 or other not in (">", "<", "=") or other in _OTHER_RELATIONS[mark][:1]:
                yield f"relation {place + 1} as {other}", _joined(sides, [*marks[:place], other, *marks[place + 1 :]])
    interval, name = as_interval(gold)
    ends = [side for side in sides if side != name]
    for place, side in enumerate(sides):
        if side != name:
            for rule, other in changed_items(side):
                yield f"side {place + 1}: {rule}", _joined([*sides[:place], other, *sides[place + 1 :]], marks)
    yield "end alone", ends[0]
    yield "ends as a list", ", ".join([*ends, "91"] if len(ends) < 2 else ends)
    yield "equal to the end", f"{name} = {ends[0]}"
    yield "unequal to the end", rf"{name} \ne {ends[0]}"
    if interval is not None:
        yield from ((f"as an interval: {rule}", text) for rule, text in wrong_intervals(interval.text()))


def _joined(sides: list[str], marks: list[str]) -> str:
    return sides[0] + "".join(f" {mark} {side}" for mark, side in zip(marks, sides[1:], strict=True))
