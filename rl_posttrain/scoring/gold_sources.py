"""The golds of a file, a data set or a task, without its questions."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.recipe.resolve import resolve_task
from rl_posttrain.recipe.task_section import TaskSection
from rl_posttrain.rewards.golds import gold_of
from rl_posttrain.tasks import TASKS
from rl_posttrain.tasks.columns import names_in, value_in
from rl_posttrain.tasks.readers import READERS, Record
from rl_posttrain.tasks.sources import load_splits

# Taken where no column is named, the first that there is.
_COLUMNS = ("answer", "solution", "reward_model.ground_truth")


def golds_in(source: str, column: str | None = None, *, seed: int = 0) -> list[str]:
    """The golds of all rows that have one, in their order.

    Args:
        source: a file, a folder or a data set on the hub, of which all splits are read; or a task's name, or
            ``package.module:name`` or ``file.py:name``, with its default options.
        column: of a file or a data set, with dots for objects; None for `answer`, `solution` or
            `reward_model.ground_truth`.
        seed: of a task.

    Raises:
        RecipeError: there is no such source or column, or no row has a gold.
        HubError: the hub does not give the data set.
    """
    if not _is_data(source):
        if column is not None:
            raise RecipeError(f"--column={column}: {source} is a task, whose golds are its answers; leave it out")
        rows = resolve_task(TaskSection(name=source), seed).make_rows()
        golds = [gold_of(row.get("answer")) for row in (*rows.train, *rows.eval)]
        where = "the column 'answer' of its rows"
    else:
        records = itertools.chain.from_iterable(load_splits(source, key="FILE").values())
        golds, column = _in_column(records, column, f"FILE={source}")
        where = f"the column {column!r}"
    found = [gold for gold in golds if gold is not None]
    if not found:
        raise RecipeError(f"FILE={source}: no gold in {len(golds)} rows ({where}); name the column of the answers")
    return found


def _is_data(source: str) -> bool:
    """Whether a source names data; otherwise it names a task, known or mistaken."""
    if source in TASKS:
        return False
    path = Path(source)
    return path.suffix.lower() in READERS or path.exists() or ("/" in source and ":" not in source)


def _in_column(records: Iterable[Record], column: str | None, where: str) -> tuple[list[str | None], str]:
    records = iter(records)
    first = next(records, None)
    if first is None:  # a data set; a file without rows is refused when it is read
        raise RecipeError(f"{where}: it has no rows; name one with some")
    names = names_in(first)
    if column is None:
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            raise RecipeError(f"{where}: which column has the golds? It has {', '.join(names)}; set --column")
    elif column not in names:
        raise RecipeError(f"--column={column}: {where} has no such column; {did_you_mean(column, names)}")
    return [gold_of(value_in(record, column)) for record in (first, *records)], column
