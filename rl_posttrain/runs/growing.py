"""The metrics of a run that is still written: each row is read once, however often the run is looked at."""

import json
import os

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import Columns, columns_of_arrays, keys_of, step_of, to_column
from rl_posttrain.runs.directory import RunDirectory

_FIRST_CAPACITY = 1024
_BLOCK = 2**14  # rows that are Python objects at one time


class GrowingMetrics:
    """The metrics of a run in columns, which follow the file as rows are added.

    A file that was replaced, as a resumed run does, is read anew.
    """

    def __init__(self, run: RunDirectory):
        self._run = run
        self._file: tuple[int, int] | None = None
        self._forget()

    def _forget(self) -> None:
        self._offset = self._number = self._step = 0
        self._values: dict[str, np.ndarray] = {}
        self._nulls: dict[str, np.ndarray] = {}
        self._prompts: list[str] = []

    def read(self) -> tuple[Columns, tuple[str, ...]]:
        """As `RunDirectory.columns`; a last row without its line break is left for later.

        Raises:
            RunError: a new row is not JSON, or has no step above that of the row before.
        """
        path = self._run.metrics_path
        if not path.exists():
            self._file = None
            self._forget()
            return {}, ()
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if self._file != (state.st_dev, state.st_ino) or state.st_size < self._offset:
                self._file = state.st_dev, state.st_ino
                self._forget()
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        lines = whole.splitlines()
        try:
            for start in range(0, len(lines), _BLOCK):
                self._add(self._parsed(lines[start : start + _BLOCK]))
        except RunError:
            self._file = None  # read it anew next time
            raise
        self._offset += len(whole)
        count = self._number
        if not count:
            return {}, ()
        columns = {key: values[:count] for key, values in self._values.items()}
        return columns_of_arrays(columns, {key: self._nulls[key][:count] for key in columns}), tuple(self._prompts)

    def _parsed(self, lines: list[bytes]) -> list[dict]:
        try:
            rows = json.loads(b"[%b]" % b",".join(lines))  # all at once takes half of the time
        except (ValueError, RecursionError):
            rows = []
        if len(rows) != len(lines):
            rows = [_row_of(line) for line in lines]
        for number, row in enumerate(rows, start=self._number + 1):
            where = f"{self._run.metrics_path}:{number}"
            if not isinstance(row, dict):
                raise RunError(f"{where}: this line is not a JSON object; the file is damaged")
            self._step = step_of(row, where, self._step)
        return rows

    def _add(self, rows: list[dict]) -> None:
        end = self._number + len(rows)
        for key in keys_of(rows):
            if key not in self._values:
                self._values[key] = np.full(_FIRST_CAPACITY, np.nan)
                self._nulls[key] = np.zeros(_FIRST_CAPACITY, dtype=bool)
        for key, values in self._values.items():
            if end > len(values):
                more = max(end, 2 * len(values)) - len(values)
                values = self._values[key] = np.append(values, np.full(more, np.nan))
                self._nulls[key] = np.append(self._nulls[key], np.zeros(more, dtype=bool))
            if rows:
                values[self._number : end] = to_column([row.get(key) for row in rows])
                self._nulls[key][self._number : end] = [key in row and row[key] is None for row in rows]
        self._prompts += [row["prompts_sha256"] for row in rows if "prompts_sha256" in row]
        self._number = end


def _row_of(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
