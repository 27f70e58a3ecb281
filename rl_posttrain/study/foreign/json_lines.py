"""Logs with an object a line: verl, OpenRLHF, SkyRL, prime-rl, nanochat and others.

verl writes ``{"step": 1, "data": {...}}``, the others ``{"step": 1, "reward": ...}``, with their own names.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import keys_of
from rl_posttrain.runs.files import read_json_lines
from rl_posttrain.study.foreign.log import Log, Table

# Keys that only hold the metrics together.
_WRAPPERS = ("data", "metrics", "logs", "scalars")


def read_json_lines_log(path: Path, run: str) -> list[Log]:
    """The run in a file of JSON lines.

    Raises:
        RunError: the file cannot be read, or a line that is not the last one is no JSON object.
    """
    try:
        rows = read_json_lines(path)
    except OSError as error:
        raise RunError(f"RUN={path}: cannot be read ({error.strerror}); name a file that is there") from error
    return [Log(path, run, [table_of_rows([_flat(row) for row in rows])])]


def table_of_rows(rows: list[dict[str, Any]]) -> Table:
    """Rows as a table. A null is a number that was not finite; what is no number was not recorded."""
    columns, recorded = {}, {}
    for key in keys_of(rows):
        values = [row.get(key, "") for row in rows]
        kinds = set(map(type, values))
        if not kinds & {int, float, type(None)}:
            continue
        found = np.ones(len(rows), dtype=bool)
        if kinds - {int, float, type(None)}:
            found = np.array([type(value) in (int, float, type(None)) for value in values])
            values = [value if is_number else None for value, is_number in zip(values, found, strict=True)]
        columns[key], recorded[key] = _floats(values), found
    return Table(columns, recorded)


def _floats(values: list[float | None]) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond all floats
        return np.array([value if abs(value or 0) < 2**1023 else None for value in values], dtype=np.float64)


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with ``/`` between the keys. What stands outside comes first and counts."""
    if not prefix and dict not in map(type, row.values()):
        return row
    flat = {prefix + key: value for key, value in row.items() if not isinstance(value, dict)}
    for key, value in row.items():
        if isinstance(value, dict):
            flat = _flat(value, prefix if key in _WRAPPERS else f"{prefix}{key}/") | flat
    return flat
