"""What the tasks of published data sets share: their rows, and tasks that are only evaluated on.

Names, splits and columns in these tasks are as public code reads them, and numbers of rows as people report them. Tests
use local files of the same shape: no test loads from the hub.
"""

from collections.abc import Iterable, Mapping

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.columns import Row, UnusableRow, names_in, row_from, value_in
from rl_posttrain.tasks.overlap import first_of_each
from rl_posttrain.tasks.readers import Record
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import first_split, load_splits
from rl_posttrain.tasks.templates import BOXED_REQUEST


def rows_to_evaluate_on(
    path: str, columns: Mapping[str, str], optional: Mapping[str, str] | None = None, *, hub_subset: str | None = None
) -> TaskRows:
    """All rows of a data set, to evaluate on: those of its split `test`, or of the only one that it has.

    Args:
        path: a data set on the hub, a folder or a file.
        columns, optional: as of `published_rows`.
        hub_subset: of the data set on the hub.
    """
    notes: list[str] = []
    records = first_split(load_splits(path, hub_subset=hub_subset), "test", "train")
    rows = published_rows(records, f"task.path={path}", columns, optional, notes=notes)
    return TaskRows([], rows, request=BOXED_REQUEST, notes=tuple(notes))


def each_once(rows: list[Row], num_read: int, notes: list[str]) -> list[Row]:
    """The rows without repeated questions; `notes` gets a sentence if there are such.

    Args:
        num_read: how many rows these were before any repeated one was left out.
    """
    different = first_of_each(rows)
    if num_repeated := num_read - len(different):
        notes.append(f"{num_repeated:,} of {num_read:,} rows repeat a question and are left out")
    return different


def published_rows(
    records: Iterable[Record],
    where: str,
    columns: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    notes: list[str],
) -> list[Row]:
    """Rows of a published data set, with these columns and no others.

    Args:
        where, columns: as of `rows_from`.
        optional: columns that the data may lack; None is there in their place.
        notes: gets a sentence if rows without a question or a gold are left out; a user could not mend them.

    Raises:
        RecipeError: a column is missing, or no row can be used.
    """
    rows: list[Row] = []
    unusable: list[UnusableRow] = []
    for number, record in enumerate(records, 1):
        names = names_in(record) if number == 1 else ()
        if number == 1 and not set(columns.values()) <= set(names):
            raise RecipeError(
                f"{where}: has the columns {', '.join(names)}, where the data set has {', '.join(columns.values())}; "
                "name them so, or take task.name=file with task.columns"
            )
        try:
            row = row_from(record, f"{where}: row {number}", columns)
        except UnusableRow as error:
            unusable.append(error)
        else:
            rows.append(row | {name: value_in(record, source) for name, source in (optional or {}).items()})
    if unusable and not rows:
        raise unusable[0]
    if unusable:
        notes.append(f"{len(unusable)} rows without a question or a gold are left out")
    return rows
