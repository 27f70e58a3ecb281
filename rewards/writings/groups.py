"""Lists, sets, points and matrices, written otherwise."""

import re
from collections.abc import Sequence

from rl_posttrain.rewards.writings.expressions import part_rewrites
from rl_posttrain.rewards.writings.numbers import number_rewrites, value_of
from rl_posttrain.rewards.writings.shapes import EMPTY, MATRIX, shape_of
from rl_posttrain.rewards.writings.text import items_of, variables_of
from rl_posttrain.rewards.writings.writing import Texts

_ASSIGNED = re.compile(r"([a-zA-Z])\s*=\s*(.+)")


def flat(gold: str) -> str:
    r"""The gold without \left and \right."""
    return re.sub(r"\\(?:left|right)\s*(?=[(\[\])\\|.])", "", gold)


def members(gold: str) -> list[str]:
    r"""The items of a set or a list, without the name before each, with \pm as two items."""
    text = re.sub(r"^[a-zA-Z]\s*(?:=|\\in)\s*(?=\\\{|\\pm)", "", flat(gold))
    text = text[2:-2] if text.startswith(r"\{") else text
    found = []
    for item in items_of(text):
        item = match[2] if (match := _ASSIGNED.fullmatch(item)) else item
        before, mark, after = item.partition(r"\pm")
        if not mark:
            found.append(item)
        elif before.strip():
            found += [f"{before.strip()} + {after.strip()}", f"{before.strip()} - {after.strip()}"]
        else:
            found += [after.strip(), f"-{after.strip()}"]
    return found


def names_of(gold: str) -> set[str]:
    """The names that the items of a list are given, as in x = 1 or x = 2."""
    return {match[1] for item in items_of(gold) if (match := _ASSIGNED.fullmatch(item))}


def members_rewrites(gold: str) -> Texts:
    """Other ways to write a set or a list of solutions."""
    if EMPTY.fullmatch(flat(gold)):
        for form in (r"\emptyset", r"\varnothing", "\N{EMPTY SET}", r"\{\}", r"\{ \}", r"\left\{\right\}", r"\{\,\}"):
            yield f"empty set: {form}", form
        return
    yield "as it stands", gold
    names = names_of(gold)
    if len(names) > 1:
        for rule, order in _orders(items_of(gold)):
            yield f"{rule}, commas", ", ".join(order)
            yield f"{rule}, and", r" \text{ and } ".join(order)
            yield f"{rule}, semicolons", "; ".join(order)
        return
    items = members(gold)
    if len(items) == 1 and flat(gold).startswith(r"\{"):
        for rule, (item,) in an_item_rewritten(items):
            yield rule, rf"\{{{item}\}}"
        yield "tall set", rf"\left\{{{items[0]}\right\}}"
        yield "set apart", rf"\{{ {items[0]} \}}"
        yield "braces of a set", rf"\lbrace {items[0]} \rbrace"
        yield "in a set", rf"x \in \{{{items[0]}\}}"
        return
    for rule, order in _orders(items):
        yield f"{rule}, commas", ", ".join(order)
        yield f"{rule}, a set", rf"\{{{', '.join(order)}\}}"
        yield f"{rule}, and", r" \text{ and } ".join(order) if len(order) == 2 else ", ".join(order)
        yield f"{rule}, or", _spoken(order, "or")
        yield f"{rule}, spoken", _spoken(order, "and")
        yield f"{rule}, semicolons", "; ".join(order)
        yield f"{rule}, a tall set", rf"\left\{{{', '.join(order)}\right\}}"
        yield f"{rule}, braces of a set", rf"\lbrace {', '.join(order)} \rbrace"
        yield f"{rule}, plain or", " or ".join(order)
        yield f"{rule}, plain and", " and ".join(order) if len(order) == 2 else ", ".join(order)
        if "=" not in gold and not any("(" in item[:1] for item in items):
            name = next(letter for letter in "xyzw" if letter not in variables_of(gold))
            named = [f"{name} = {item}" for item in order]
            yield f"{rule}, named", ", ".join(named)
            yield f"{rule}, named, or", r" \text{ or } ".join(named)
            yield f"{rule}, named once", f"{name} = {', '.join(order)}"
            yield f"{rule}, named plain or", " or ".join(named)
            if len(order) > 1:
                yield f"{rule}, numbered", ", ".join(f"{name}_{at} = {item}" for at, item in enumerate(order, 1))
            yield f"{rule}, in a set", rf"{name} \in \{{{', '.join(order)}\}}"
    for rule, other in an_item_rewritten(items):
        yield rule, ", ".join(other)
        yield f"{rule}, a set", rf"\{{{', '.join(other)}\}}"
    if len(items) == 2 and items[1] == f"-{items[0]}":
        yield "plus or minus", rf"\pm {items[0]}"
        yield "named plus or minus", rf"x = \pm {items[0]}"
        yield "set of plus or minus", rf"\{{\pm {items[0]}\}}"


def _spoken(items: Sequence[str], word: str) -> str:
    if len(items) == 1:
        return items[0]
    comma = "," if len(items) > 2 else ""
    return rf"{', '.join(items[:-1])}{comma} \text{{ {word} }} {items[-1]}"


def _orders(items: list[str]) -> list[tuple[str, list[str]]]:
    orders = [("in order", items)]
    if len(items) > 1 and items[::-1] != items:
        orders.append(("turned around", items[::-1]))
    if len(items) > 2:
        orders.append(("first item last", [*items[1:], items[0]]))
    return orders


def an_item_rewritten(items: list[str]) -> list[tuple[str, list[str]]]:
    """Lists with one item written otherwise."""
    found = []
    for place, item in enumerate(items):
        if value_of(item) is not None:
            shape = shape_of(item)
            others = [
                (rule, text)
                for rule, text in number_rewrites(item, shape)
                if not re.match(
                    "unit|assigned|name|therefore|chain|thousands|text|plus|about|phantom|.*power of ten|e notation",
                    rule,
                )
                and "=" not in text
            ]
        elif "(" in item[:1] or shape_of(item) == "word":
            others = []
        else:
            others = [pair for pair in part_rewrites(item) if "=" not in pair[1]]
        found += [(f"item {place + 1}: {rule}", [*items[:place], text, *items[place + 1 :]]) for rule, text in others]
    return found


def point_rewrites(gold: str) -> Texts:
    """Other ways to write a point."""
    yield "as it stands", gold
    items = items_of(flat(gold)[1:-1])
    for joint in (", ", ",", " , ", r",\, ", r",\ ", r",\;"):
        if joint != "," or not all(item.isdecimal() for item in items):
            yield f"point, joined by {joint!r}", f"({joint.join(items)})"
    yield "tall point", rf"\left({', '.join(items)}\right)"
    yield "tall point, apart", rf"\left( {', '.join(items)} \right)"
    yield "big point", rf"\bigl({', '.join(items)}\bigr)"
    names = {2: "x, y", 3: "x, y, z"}.get(len(items))
    if names and not variables_of(gold):
        yield "named point", f"({names}) = ({', '.join(items)})"
        yield "lettered point", f"P = ({', '.join(items)})"
        yield "named tall point", rf"\left({names}\right) = \left({', '.join(items)}\right)"
    for rule, other in an_item_rewritten(items):
        yield rule, f"({', '.join(other)})"


def rows_of(gold: str) -> list[list[str]]:
    """The entries of a matrix, row by row."""
    rows = [row for row in re.split(r"\\\\", MATRIX.fullmatch(gold)[2].replace(r"\hline", "")) if row.strip()]
    return [[entry.strip() for entry in row.split("&")] for row in rows]


def matrix_of(
    rows: Sequence[Sequence[str]], form: str = "\\begin{pmatrix}%s\\end{pmatrix}", joint: str = " \\\\ "
) -> str:
    """The text of a matrix, row by row."""
    return form % joint.join(" & ".join(row) for row in rows)


def matrix_rewrites(gold: str) -> Texts:
    """Other ways to write a matrix or a column."""
    yield "as it stands", gold
    rows = rows_of(gold)
    columns = "c" * len(rows[0])
    forms = {
        "pmatrix": r"\begin{pmatrix} %s \end{pmatrix}", "bmatrix": r"\begin{bmatrix} %s \end{bmatrix}",
        "close pmatrix": r"\begin{pmatrix}%s\end{pmatrix}", "close bmatrix": r"\begin{bmatrix}%s\end{bmatrix}",
        "array in parentheses": rf"\left(\begin{{array}}{{{columns}}}%s\end{{array}}\right)",
        "array in brackets": rf"\left[\begin{{array}}{{{columns}}} %s \end{{array}}\right]",
        "array of right columns": rf"\left[ \begin{{array}}{{{columns.replace('c', 'r')}}} %s \end{{array}} \right]",
        "matrix in parentheses": r"\left(\begin{matrix} %s \end{matrix}\right)",
        "matrix in brackets": r"\left[\begin{matrix}%s\end{matrix}\right]",
        "named": r"A = \begin{pmatrix} %s \end{pmatrix}",
        "braces around the environment": r"{\begin{pmatrix} %s \end{pmatrix}}",
    }  # fmt: skip
    for name, form in forms.items():
        yield name, matrix_of(rows, form)
    yield "line breaks", matrix_of(rows, "\\begin{pmatrix}\n%s\n\\end{pmatrix}", " \\\\\n")
    yield "close rows", matrix_of(rows, joint=r"\\").replace(" & ", "&")
    yield "a break behind the last row", matrix_of(rows, r"\begin{pmatrix} %s \\ \end{pmatrix}")
    yield "breaks with space", matrix_of(rows, joint=r" \\[4pt] ")
    yield "bold", matrix_of(rows, r"\mathbf{\begin{pmatrix} %s \end{pmatrix}}")
    for place, row in enumerate(rows):
        for rule, other in an_item_rewritten(row):
            yield f"row {place + 1}, {rule}", matrix_of([*rows[:place], other, *rows[place + 1 :]])
