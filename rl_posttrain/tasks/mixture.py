"""Several tasks as one: their rows in turn, with the name of their task in the column `task`."""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.columns import even_out
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.turns import turns

TASK_COLUMN = "task"


def mix(parts: Mapping[str, TaskRows], weights: Sequence[float], num_train: int | None) -> TaskRows:
    """The rows of several tasks as those of one.

    Training rows come in turn by weight, as far as every part has rows for its turns. Eval rows are all of each part,
    one of each part in turn. A column that a part lacks is None in its rows.

    Args:
        parts: by label, with prompts.
        weights: of the parts, in their order.
        num_train: how many the recipe asks for, which the parts were asked for in their shares; None: all they have.

    Raises:
        RecipeError: a part has a column `task` of its own; or prompts are of two kinds.
    """
    columns = {label: _columns(rows) for label, rows in parts.items()}
    for label, names in columns.items():
        if TASK_COLUMN in names:
            raise RecipeError(f"task.parts: rows of {label} have a column `{TASK_COLUMN}`, as a mixture has; rename it")
    if len({type(row["prompt"]) for rows in parts.values() for row in (*rows.train, *rows.eval)}) > 1:
        raise RecipeError(
            f"task.parts: some prompts are text and some are chat messages ({', '.join(parts)}); give the parts "
            "templates of one kind by task.template"
        )
    labels = list(parts)
    rest = [iter(rows.train) for rows in parts.values()]
    train: list[dict[str, Any]] = []
    for place in turns(weights):
        row = next(rest[place], None)
        if row is None:
            break
        train.append({TASK_COLUMN: labels[place]} | row)
    by_part = [[{TASK_COLUMN: label} | row for row in rows.eval] for label, rows in parts.items()]
    held_out = [row for together in zip_longest(*by_part) for row in together if row is not None]
    said = even_out(train + held_out)
    templates = {rows.template for rows in parts.values()}
    return TaskRows(
        train=train,
        eval=held_out,
        notes=(*_notes(parts, train, num_train), *said),
        template=templates.pop() if len(templates) == 1 else None,
        parts=columns,
    )


def _columns(rows: TaskRows) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable((*rows.train, *rows.eval))))


def _notes(parts: Mapping[str, TaskRows], train: Sequence[Mapping[str, Any]], num_train: int | None) -> list[str]:
    used = [row[TASK_COLUMN] for row in train]
    shares = [f"{label} {used.count(label):,} of {len(rows.train):,}" for label, rows in parts.items()]
    notes = [f"mixture: {len(train):,} training rows: {', '.join(shares)}"] if train else []
    if train and num_train is not None and len(train) < num_train:
        notes.append(f"task.num_train={num_train} asks for more rows than a part has for its weight")
    notes.append("mixture: eval rows: " + ", ".join(f"{label} {len(rows.eval):,}" for label, rows in parts.items()))
    return notes + [f"{label}: {note}" for label, rows in parts.items() for note in rows.notes]
