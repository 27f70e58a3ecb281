"""Wrong answers to lists, sets, points and matrices."""

from collections.abc import Sequence

from rl_posttrain.rewards.writings.groups import (
    flat,
    matrix_of,
    members,
    names_of,
    rows_of,
)
from rl_posttrain.rewards.writings.numbers import decimal_of, value_of
from rl_posttrain.rewards.writings.shapes import EMPTY
from rl_posttrain.rewards.writings.text import items_of
from rl_posttrain.rewards.writings.writing import Texts

_NOT_EMPTY = (
    "0", "1", "-1", "x", "all", "0, 0", "x = 0", r"\{0\}", r"\{\emptyset\}", r"\infty", r"\mathbb{R}", "(0, 0)",
    "(0, 1)", r"\{0, 1\}", r"\{1\}", r"\{x\}", r"(-\infty, \infty)", r"\text{not } \emptyset", r"\frac{1}{2}",
    r"\emptyset \text{ or } 0", r"\phi_1",
)  # fmt: skip


def changed_items(item: str) -> Texts:
    """Other items in the place of one: a number that is one more or less, an expression with a sign or a factor."""
    value = value_of(item)
    if value is not None:
        if value:
            yield "sign", item[1:] if item.startswith("-") else f"-{item}"
        if value.denominator == 1:
            yield "one more", str(value + 1)
            yield "one less", str(value - 1)
            yield "ten times", f"{value}0" if value else "10"
        elif (text := decimal_of(value)) is not None and "." in item:
            yield "one more", decimal_of(value + 1)
            yield "a digit more", f"{text}1"
        else:
            top, bottom = value.numerator, value.denominator
            yield "numerator one more", rf"\frac{{{top + 1}}}{{{bottom}}}"
            yield "denominator one more", rf"\frac{{{top}}}{{{bottom + 1}}}"
            yield "numerator alone", str(top)
        return
    if item.startswith(("(", r"\{")) or "=" in item:
        return
    yield "sign", f"-({item})"
    yield "one more", f"{item} + 1"
    yield "doubled", f"2({item})"
    yield "off by a ten-millionth", f"1.0000001({item})"


def wrong_members(gold: str) -> Texts:
    """Wrong answers to a set or a list: an item left out, added or changed, brackets of a point or an interval."""
    if EMPTY.fullmatch(flat(gold)):
        for text in _NOT_EMPTY:
            yield f"not empty: {text}", text
        return
    if len(names_of(gold)) > 1:
        if any("=" not in item for item in items_of(gold)):
            return
        yield from _wrong_named(items_of(gold))
        return
    items, name = members(gold), next(iter(names_of(gold)), None)
    is_set = flat(gold).startswith(r"\{")

    def listed(others: Sequence[str]) -> str:
        return ", ".join(f"{name} = {item}" for item in others) if name else ", ".join(others)

    for place, item in enumerate(items):
        rest = [*items[:place], *items[place + 1 :]]
        if rest and not (is_set and _among(item, rest)):
            yield f"item {place + 1} left out", listed(rest)
            yield f"item {place + 1} left out, a set", rf"\{{{', '.join(rest)}\}}"
        for rule, other in changed_items(item):
            if not _among(other, items) and not (is_set and _among(item, rest)):
                changed = [*items[:place], other, *items[place + 1 :]]
                yield f"item {place + 1}: {rule}", listed(changed)
                yield f"item {place + 1}: {rule}, a set", rf"\{{{', '.join(changed)}\}}"
    if len(set(items)) < len(items) and not is_set:
        yield "each item once", listed(list(dict.fromkeys(items)))
        yield "first item twice", listed([items[0], *items])
    yield "an item added", listed([*items, _new_item(items)])
    yield "an item added, a set", rf"\{{{', '.join([*items, _new_item(items)])}\}}"
    yield "an item added in front", listed([_new_item(items), *items])
    if len(items) > 1:
        yield "brackets of a point", f"({', '.join(items)})"
        if flat(gold).startswith(r"\{"):
            yield "brackets of an interval", f"[{', '.join(items[:2])}]"
        yield "brackets of half an interval", f"[{', '.join(items[:2])})"
        yield "digits joined", "".join(items) if all(item.isdecimal() for item in items) else listed(items[:1])
        yield (
            "all signs flipped",
            listed([f"-({item})" for item in items]) if not _symmetric(items) else listed(items[1:]),
        )
        yield "a sum", " + ".join(f"({item})" for item in items)
    yield (
        "a variable added",
        listed([*items[:-1], f"({items[-1]})q"]) if not items[-1].startswith("(") else listed([*items, "q"]),
    )


def _among(item: str, items: list[str]) -> bool:
    """Whether an item stands among others, as a text or as a number."""
    value = value_of(item)
    return item in items or (value is not None and value in map(value_of, items))


def _symmetric(items: list[str]) -> bool:
    """Whether flipping all signs may give the same items; in doubt True."""
    values = [value_of(item) for item in items]
    return None in values or {-value for value in values} == set(values)


def _new_item(items: list[str]) -> str:
    values = [value_of(item) for item in items]
    return (
        str(int(max(abs(value) for value in values)) + 7)
        if None not in values
        else ("(91, 92)" if items[0][0] == "(" else "91")
    )


def _wrong_named(items: list[str]) -> Texts:
    """x = 1, y = 2 with values swapped, left out or changed."""
    pairs = [tuple(part.strip() for part in item.split("=", 1)) for item in items]
    names, values = [name for name, _ in pairs], [value for _, value in pairs]

    def listed(others: Sequence[str]) -> str:
        return ", ".join(f"{name} = {value}" for name, value in zip(names, others, strict=True))

    if values[::-1] != values:
        yield "values the other way", listed(values[::-1])
        yield "values without names", ", ".join(values)
    for place, value in enumerate(values):
        yield f"item {place + 1} left out", ", ".join(f"{a} = {b}" for a, b in [*pairs[:place], *pairs[place + 1 :]])
        for rule, other in changed_items(value):
            yield f"item {place + 1}: {rule}", listed([*values[:place], other, *values[place + 1 :]])
        yield (
            f"item {place + 1} renamed",
            ", ".join(f"{'q' if at == place else name} = {kept}" for at, (name, kept) in enumerate(pairs)),
        )
    yield "an item added", f"{listed(values)}, q = 91"


def wrong_points(gold: str) -> Texts:
    """Wrong answers to a point: coordinates swapped, changed, left out or added, and other brackets."""
    items = items_of(flat(gold)[1:-1])

    def point(others: Sequence[str]) -> str:
        return f"({', '.join(others)})"

    for place, item in enumerate(items):
        for rule, other in changed_items(item):
            yield f"coordinate {place + 1}: {rule}", point([*items[:place], other, *items[place + 1 :]])
        if len(items) > 2:
            yield f"coordinate {place + 1} left out", point([*items[:place], *items[place + 1 :]])
        else:
            yield f"coordinate {place + 1} alone", items[1 - place]
        yield f"coordinate {place + 1} twice", point([*items[:place], item, *items[place:]])
        yield f"coordinate {place + 1} with a variable", point([*items[:place], f"{item} + q", *items[place + 1 :]])
    if items[::-1] != items and _differ(items[0], items[-1]):
        yield "coordinates turned around", point(items[::-1])
        yield "tall, coordinates turned around", rf"\left({', '.join(items[::-1])}\right)"
    yield "a coordinate added", point([*items, "0"])
    yield "a coordinate added in front", point(["0", *items])
    yield "brackets of a set", rf"\{{{', '.join(items)}\}}"
    yield "tall brackets of a set", rf"\left\{{{', '.join(items)}\right\}}"
    yield "no brackets", ", ".join(items)
    yield "brackets of an interval", f"[{', '.join(items)}]"
    yield "half an interval", f"[{', '.join(items)})"
    yield "another half", f"({', '.join(items)}]"
    yield "a sum", " + ".join(f"({item})" for item in items)
    yield "with and", r" \text{ and } ".join(items)


def _differ(first: str, second: str) -> bool:
    values = value_of(first), value_of(second)
    return first != second and (None in values or values[0] != values[1])


def wrong_matrices(gold: str) -> Texts:
    """Wrong answers to a matrix: an entry changed or left out, rows swapped or left out, the transpose, a flat list."""
    rows = rows_of(gold)

    def with_entry(at: int, place: int, other: str) -> str:
        row = [*rows[at][:place], other, *rows[at][place + 1 :]]
        return matrix_of([*rows[:at], row, *rows[at + 1 :]])

    for at, row in enumerate(rows):
        for place, entry in enumerate(row):
            for rule, other in changed_items(entry):
                yield f"entry {at + 1}, {place + 1}: {rule}", with_entry(at, place, other)
        if len(rows) > 1:
            yield f"row {at + 1} left out", matrix_of([*rows[:at], *rows[at + 1 :]])
        yield f"row {at + 1} twice", matrix_of([*rows[:at], row, *rows[at:]])
    if len({len(row) for row in rows}) > 1:
        return
    turned = [list(column) for column in zip(*rows, strict=True)]
    if turned != rows:
        yield "transpose", matrix_of(turned)
        yield "transpose, bmatrix", matrix_of(turned, r"\begin{bmatrix} %s \end{bmatrix}")
    if len(rows) > 1 and rows[::-1] != rows:
        yield "rows turned around", matrix_of(rows[::-1])
    mirrored = [row[::-1] for row in rows]
    if mirrored != rows:
        yield "columns turned around", matrix_of(mirrored)
    if len(rows) > 1 and len(rows[0]) > 1:
        yield "all in one row", matrix_of([[entry for row in rows for entry in row]])
        yield "all in one column", matrix_of([[entry] for row in rows for entry in row])
    yield "a column added", matrix_of([[*row, "0"] for row in rows])
    yield "a row added", matrix_of([*rows, ["0"] * len(rows[0])])
    if any(entry.strip("0. ") for row in rows for entry in row):
        yield "doubled", f"2{matrix_of(rows)}"
        yield "sign of all", f"-{matrix_of(rows)}"
    if len(rows) * len(rows[0]) > 1:
        yield "first entry alone", rows[0][0]
    yield "entries as a set", rf"\{{{', '.join(entry for row in rows for entry in row)}\}}"
