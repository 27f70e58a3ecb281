"""Metrics in a CSV, in columns. A million rows take seconds: Arrow reads them, and no row becomes a Python object."""

import csv
import math
from pathlib import Path
from typing import NoReturn

import numpy as np

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.columns import Columns, columns_of_arrays
from rl_posttrain.runs.files import check_regular, long_fields
from rl_posttrain.runs.metrics import our_name

_MOST_CHARACTERS = 200  # of a file's first line in an error
_BLOCK_BYTES = 2**26  # a row must fit into one


def read_csv(path: Path) -> Columns:
    """The columns of a CSV with a step and a reward, in the order of its steps.

    An empty cell, or a text, is a value that was not recorded; ``nan`` and ``inf`` are numbers that were not finite.
    Rows without a step, or with nothing but a step, are left out.

    Raises:
        RunError: the file cannot be read, is no CSV, or has not one step and one reward column.
    """
    names, has_rows = _names(path)
    if not has_rows:
        return {}
    table = _read(path, len(names))
    arrays, recorded = {}, {}
    for name, column in zip(names, table.columns, strict=True):
        # Of two columns of one name the later one counts, as in a dict.
        arrays[name], recorded[name] = _numbers(column.slice(1))
    others = [recorded[name] for name in names if name != "step"]
    kept = np.isfinite(arrays["step"]) & np.logical_or.reduce(others)
    order = np.argsort(arrays["step"][kept], kind="stable")
    return columns_of_arrays(
        {name: array[kept][order] for name, array in arrays.items()},
        {name: array[kept][order] for name, array in recorded.items()},
    )


def _names(path: Path) -> tuple[list[str], bool]:
    """Our names of the columns that the first line names, and whether there is another line."""
    check_regular(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            given, has_rows = next(lines, []), next(lines, None) is not None
    except OSError as error:
        raise RunError(f"RUN={path}: cannot be read ({error.strerror}); name a file that is there") from error
    except (csv.Error, UnicodeDecodeError) as error:
        _refuse(path, one_line(error))
    names = [our_name(name.strip().removeprefix("train/")) for name in given]
    for wanted in ("step", "reward"):
        if names.count(wanted) != 1:
            # ascii, because the file may be of any kind.
            head = ascii(", ".join(given)[:_MOST_CHARACTERS])[1:-1] or "none"
            raise RunError(
                f"RUN={path}: it needs exactly one column {wanted!r}; its columns are: {head}; rename or remove "
                "columns in its first line"
            )
    return names, has_rows


def _read(path: Path, num_columns: int):
    """All cells as text, the first line too. A row that is too short lacks cells; one that is too long loses some."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    odd = []  # rows with too few or too many cells, such as a last one that was cut short

    def skip(row) -> str:
        odd.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, autogenerate_column_names=True),
            arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            arrow_csv.ConvertOptions(
                column_types={f"f{place}": pyarrow.string() for place in range(num_columns)},
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pyarrow.ArrowException, OSError) as error:
        _refuse(path, one_line(error, limit=100))
    # Rows are ordered by step later, so that these may stand at the end.
    with long_fields():
        others = [(next(csv.reader([row.text]), []) + [None] * num_columns)[:num_columns] for row in odd]
    columns = [pyarrow.array([row[place] or None for row in others], pyarrow.string()) for place in range(num_columns)]
    return pyarrow.concat_tables([table, pyarrow.table(columns, names=table.column_names)])


def _numbers(column) -> tuple[np.ndarray, np.ndarray]:
    """The cells as (S,) float64, NaN where there is no finite number; and whether each is a number."""
    import pyarrow

    try:
        numbers = column.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
        numbers = pyarrow.chunked_array([pyarrow.array(list(map(_number, column.to_pylist())), pyarrow.float64())])
    recorded = numbers.is_valid().to_numpy()
    return numbers.fill_null(math.nan).to_numpy(), recorded


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _refuse(path: Path, reason: str) -> NoReturn:
    raise RunError(f"RUN={path}: not a CSV ({reason}); save it as UTF-8 with commas")
