"""Runs in a CSV. A million rows take seconds: Arrow reads them, and no row becomes a Python object."""

import csv
import math
import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.files import check_regular, long_fields
from rl_posttrain.runs.reward_names import REWARD_NAMES
from rl_posttrain.study.foreign.log import Log, Table
from rl_posttrain.study.foreign.names import listed

_TENSORBOARD = ["wall time", "step", "value"]
_RUN_AND_TAG = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)")
# A metric's section shows where its name starts in a file's name.
_SECTION = re.compile(r"(?P<run>.+?)[-_. ](?P<tag>(?:train|eval|val|losses|charts|actor|critic|perf|objective)_.+)")
_RUN_AND_METRIC = re.compile(r"(?P<run>.+) - (?P<metric>.+)")
_GROUP = re.compile(r"[\w./]+: ")
_BLOCK_BYTES = 2**26  # a row must fit into one


def read_csv(path: Path, run: str) -> list[Log]:
    """The runs in a CSV: TensorBoard's export (one metric of one run), W&B's (a column for each run), or any other.

    An empty cell, or a text, is a value that was not recorded; ``nan`` and ``inf`` are numbers that were not finite.

    Args:
        run: the run's name, where the file's columns or name say no other.

    Raises:
        RunError: the file cannot be read, or is no CSV.
    """
    names, has_rows = _names(path)
    columns = {name: np.empty(0) for name in names}
    recorded = {name: np.empty(0, dtype=bool) for name in names}
    if has_rows:
        table = _read(path, len(names))
        for name, column in zip(names, table.columns, strict=True):
            columns[name], recorded[name] = _numbers(column.slice(1))
    if [name.strip().lower() for name in names] == _TENSORBOARD:
        return [_of_tensorboard(path, run, Table(columns, recorded))]
    runs = [_RUN_AND_METRIC.fullmatch(name) for name in names]
    if any(runs) and all(match or place == 0 for place, match in enumerate(runs)):
        return _of_wandb(path, names, runs, Table(columns, recorded))
    return [Log(path, run, [Table(columns, recorded)])]


def _of_tensorboard(path: Path, run: str, table: Table) -> Log:
    """Its page names the file ``run-RUN-tag-TAG.csv`` or ``RUN.csv``; a browser writes ``_`` for ``/``."""
    run, tag = _run_and_tag(path, run)
    notices = []
    if tag is None:
        tag = "reward"
        notices.append("the column Value is taken as the reward, for the file's name says no metric")
    renamed = {"step" if name.strip().lower() == "step" else name: name for name in table.columns}
    value = next((name for name in renamed if name.strip().lower() == "value"), None)
    columns = {tag if ours == value else ours: table.columns[name] for ours, name in renamed.items()}
    recorded = {tag if ours == value else ours: table.recorded[name] for ours, name in renamed.items()}
    shared = ("TensorBoard", path.parent.resolve(), run)
    return Log(path, run, [Table(columns, recorded)], shared, notices=notices)


def _run_and_tag(path: Path, run: str) -> tuple[str, str | None]:
    stem = path.stem
    if match := _RUN_AND_TAG.fullmatch(stem):
        run = match["run"] if match["run"] not in (".", "_") else path.resolve().parent.name
        return run, _known_tag(match["tag"])
    for known in sorted(REWARD_NAMES, key=lambda known: -len(known.name)):
        ending = known.name.replace("/", "_")
        if match := re.fullmatch(rf"(?P<run>.*?)[-_. ]?(?:train_)?{ending}", stem, re.IGNORECASE):
            return match["run"] or path.resolve().parent.name, known.name
    if match := _SECTION.fullmatch(stem):
        return match["run"], match["tag"].replace("_", "/", 1)
    return run, None


def _known_tag(tag: str) -> str:
    """The tag as it was logged, where it is the reward; a browser has replaced its slashes."""
    written = {known.name.replace("/", "_"): known.name for known in REWARD_NAMES}
    return written.get(tag.lower().removeprefix("train_"), tag.replace("_", "/", 1))


def _of_wandb(path: Path, names: list[str], runs: list[re.Match | None], table: Table) -> list[Log]:
    found: dict[str, tuple[dict, dict]] = {}
    notices: dict[str, list[str]] = {}
    for name, match in zip(names, runs, strict=True):
        if match is None:
            continue
        run, metric = match["run"], match["metric"]
        columns, recorded = found.setdefault(run, ({}, {}))
        if metric.endswith(("__MIN", "__MAX")):
            if _differ(table, f"{run} - {metric[:-5]}", name):
                said = f"{path.name} has means over several logged values ({metric} differs), as W&B exports long runs"
                notices.setdefault(run, [said])
            continue
        columns[metric], recorded[metric] = table.columns[name], table.recorded[name]
    axis = names[0]
    for run, (columns, recorded) in found.items():
        columns[axis], recorded[axis] = table.columns[axis], table.recorded[axis]
        if _GROUP.match(run):
            said = "it looks like a mean over a group of runs; turn grouping off in W&B and export again"
            notices.setdefault(run, []).append(said)
    return [
        Log(path, run, [Table(columns, recorded)], ("W&B", run), notices=notices.get(run, []))
        for run, (columns, recorded) in found.items()
    ]


def _differ(table: Table, mean: str, end: str) -> bool:
    if mean not in table.columns or end not in table.columns:
        return False
    both = table.recorded[mean] & table.recorded[end]
    return not np.allclose(table.columns[mean][both], table.columns[end][both], equal_nan=True)


def _names(path: Path) -> tuple[list[str], bool]:
    """The columns that the first line names, and whether there is another line."""
    check_regular(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            given, has_rows = next(lines, []), next(lines, None) is not None
    except OSError as error:
        raise RunError(f"RUN={path}: cannot be read ({error.strerror}); name a file that is there") from error
    except (csv.Error, UnicodeDecodeError) as error:
        _refuse(path, one_line(error))
    if any("\0" in name for name in given):
        _refuse(path, "its first line has zero bytes")
    if len(given) == 1 and ";" in given[0]:
        _refuse(path, "its columns are divided by semicolons")
    if twice := sorted({name for name in given if given.count(name) > 1 and name.strip()}):
        raise RunError(f"RUN={path}: several columns have one name: {listed(twice)}; rename or remove all but one")
    return given, has_rows


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
