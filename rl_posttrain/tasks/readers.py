"""Rows of a local jsonl, json, csv or parquet file, one at a time."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.runs.files import long_fields

Record = dict[str, Any]

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_LONGEST_NUMBER = 40  # longer ones are texts
# Half of a pair: no text that could be encoded.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_NAME = 80


def read_records(path: Path, where: str) -> Iterator[Record]:
    """The rows of a file, by columns. Its ending says how to read it: one of `READERS`.

    Args:
        where: the recipe's key and value that name the file, for errors.

    Raises:
        RecipeError: the file is empty, not UTF-8, or not of its kind; raised when that place is read.
    """
    found = False
    try:
        for record in READERS[path.suffix.lower()](path, where):
            found = True
            yield record
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: {path.name} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{where}: {path.name} cannot be read ({one_line(error)}); check the file") from None
    if not found:
        raise RecipeError(f"{where}: {path.name} has no rows; write some into it")


def _json(path: Path, where: str) -> Iterator[Record]:
    """JSON Lines, a list of objects, or an object with such a list: people give all of them either ending."""
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        file.seek(0)
        if start == "[":
            yield from _json_list(file.read(), path, where)
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.rstrip())
            except (ValueError, RecursionError) as error:
                if number == 1 and path.suffix.lower() == ".json":
                    file.seek(0)
                    yield from _json_list(file.read(), path, where)
                    return
                raise RecipeError(
                    f"{where}: line {number} of {path.name} is not JSON ({_json_reason(error)}); write one object on "
                    "each line"
                ) from None
            if _SURROGATE.search(line):
                check_text(record, f"{where}: line {number} of {path.name}")
            if not isinstance(record, dict):
                raise RecipeError(
                    f"{where}: line {number} of {path.name} is a {type(record).__name__}; write an object with "
                    'columns, such as {"question": "...", "answer": "..."}'
                )
            yield record


def _json_list(text: str, path: Path, where: str) -> list[Record]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: {path.name} is not JSON ({_json_reason(error)}); correct it") from None
    if _SURROGATE.search(text):
        check_text(data, f"{where}: {path.name}")
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 else data
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise RecipeError(
            f'{where}: {path.name} is no list of objects; write one, such as [{{"question": "...", "answer": "..."}}]'
        )
    return data


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at {f'line {error.lineno}, ' if error.lineno > 1 else ''}column {error.colno}"
    return one_line(error, limit=100)  # a number of thousands of digits, or objects a thousand levels deep


def check_text(data: Any, where: str) -> None:
    """Fail on text that cannot be written: half of a surrogate pair.

    Raises:
        RecipeError: it has one; the message begins with `where`.
    """
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RecipeError(
            f"{where} has half of a surrogate pair, such as \\ud83d alone; write whole characters"
        ) from None


def _csv(path: Path, where: str) -> Iterator[Record]:
    """Texts, and numbers in columns where every value is one and no digit would be lost."""
    with long_fields(), path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            names = [name.strip() for name in next(lines, [])]
            _check_header(names, path, where)
            rows = []
            for values in lines:
                if len(values) > len(names):
                    raise RecipeError(
                        f"{where}: line {lines.line_num} of {path.name} has {len(values)} values for {len(names)} "
                        'columns; put texts with commas into "quotes"'
                    )
                if any(values):  # spreadsheets end in rows of commas
                    rows.append(values + [""] * (len(names) - len(values)))
        except csv.Error as error:
            raise RecipeError(
                f"{where}: line {lines.line_num} of {path.name} is no CSV ({error}); correct it"
            ) from None
    if rows:
        columns = [_numbers_where_all_are(column) for column in zip(*rows, strict=True)]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _check_header(names: list[str], path: Path, where: str) -> None:
    """Fail on a first line that names no columns: it is data, most likely."""

    def is_no_name(text: str) -> bool:
        return bool(not text.strip() or _NUMBER.fullmatch(text) or len(text) > _LONGEST_NAME or names.count(text) > 1)

    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in names[0]:
            raise RecipeError(f"{where}: {path.name} has its columns between {called}; save it with commas")
    if "" in names and any(names):
        raise RecipeError(
            f"{where}: column {names.index('') + 1} of {path.name} has no name; name it, or remove it (pandas "
            "writes one unless index=False)"
        )
    bad = next(filter(is_no_name, names), None)
    if bad is not None:
        raise RecipeError(
            f"{where}: the first line of {path.name} names no columns ({bad[:40]!r}); write a header such as "
            "question,answer above the rows"
        )


def _numbers_where_all_are(texts: tuple[str, ...]) -> list[Any]:
    filled = [text for text in texts if text]
    if not filled or not all(len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) for text in filled):
        return list(texts)
    if all(text.lstrip("-").isdigit() for text in filled):
        return [int(text) if text else None for text in texts]
    if any(Decimal(text) != Decimal(repr(float(text))) for text in filled):
        return list(texts)
    return [float(text) if text else None for text in texts]


def _parquet(path: Path, where: str) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=10_000):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise RecipeError(
            f"{where}: {path.name} is no parquet file ({one_line(error, limit=100)}); write it again"
        ) from None


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    ".jsonl": _json,
    ".parquet": _parquet,
    ".json": _json,
    ".csv": _csv,
}
