"""Runs of other programs, read under our names: transformers' trainer_state.json, or a CSV with a step and a reward."""

import json
import math
import os
import re
from pathlib import Path

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.columns import Columns, columns_of
from rl_posttrain.runs.files import check_regular
from rl_posttrain.runs.metrics import our_name
from rl_posttrain.study.tables import read_csv

_STATE = "trainer_state.json"
# What transformers logs once at the end, over the whole run: it belongs to no step.
_TOTALS = ("train_runtime", "train_loss", "total_flos")
_SEED_ALONE = re.compile(r"seed[-_=]?\d+", re.IGNORECASE)


def is_foreign(path: Path) -> bool:
    """Whether `path` is a run of another program, which `ForeignRun` reads."""
    if path.is_dir():
        return _state_file(path) is not None
    return path.suffix.lower() in (".csv", ".json")


class ForeignRun:
    """A run of another program. It is read by the same methods as a `RunDirectory`.

    Args:
        path: a ``trainer_state.json``; a checkpoint or output folder of transformers' Trainer, of which the newest
            checkpoint is read; or a CSV whose first line names a step and a reward column. ``train/`` before a column's
            name is left out.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self) -> str:
        path = Path(os.path.abspath(self.path))  # "." has no name
        if path.name == _STATE:
            path = path.parent
        path = path.with_suffix("") if path.is_file() else _without_checkpoint(path)
        return f"{path.parent.name}-{path.name}" if _SEED_ALONE.fullmatch(path.name) else path.name

    def columns(self) -> tuple[Columns, tuple[str, ...]]:
        """The metrics in columns, by step; the prompts are not known.

        Raises:
            RunError: the file is missing, or is not such a file.
        """
        if self._is_csv:
            return read_csv(self.path), ()
        return columns_of(_rows_of_history(self._state()["log_history"])), ()

    def planned_steps(self) -> int | None:
        """Steps that the run was to make, where its file says so; a CSV does not."""
        if self._is_csv:
            return None
        planned = self._state().get("max_steps") or 0
        if type(planned) not in (int, float):
            raise RunError(f"RUN={self.path}: max_steps={planned!r:.40} is no number; the file is damaged, restore it")
        return int(planned) if planned > 0 else None

    def recipe(self) -> dict:
        return {}

    def environment(self) -> dict:
        return {}

    def rollouts(self, step: int) -> list[dict]:
        return []

    @property
    def _is_csv(self) -> bool:
        return self.path.suffix.lower() == ".csv" and not self.path.is_dir()

    def _state(self) -> dict:
        file = _state_file(self.path) if self.path.is_dir() else self.path
        check_regular(file)
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"RUN={self.path}: cannot be read ({error.strerror}); name a file that is there") from error
        except (ValueError, RecursionError) as error:
            raise RunError(
                f"RUN={self.path}: not JSON ({one_line(error)}); the file was cut short, or is another file"
            ) from error
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise RunError(f"RUN={self.path}: it has no log_history; name a {_STATE} of transformers' Trainer")
        return state


def _rows_of_history(history: list[dict]) -> list[dict]:
    """One row per step: transformers logs a step's training and evaluation in separate entries."""
    rows: dict[float, dict] = {}
    for entry in history:
        step = entry.get("step")
        if not isinstance(step, (int, float)) or not math.isfinite(step) or any(total in entry for total in _TOTALS):
            continue
        row = rows.setdefault(step, {"step": step})
        for key, value in entry.items():
            name = our_name(key)
            # Python's json reads NaN and Infinity as floats; in our rows they are null.
            row[name] = value if not isinstance(value, float) or math.isfinite(value) else None
    ordered = [rows[step] for step in sorted(rows)]
    if not any("seconds" in row for row in ordered):
        seconds, before = 0.0, 0
        # TRL logs the mean time of a step since the last entry. An entry of an evaluation has none.
        for row in (row for row in ordered if "step_time" in row):
            took = row["step_time"] if type(row["step_time"]) in (int, float) else 0.0
            seconds += took * (row["step"] - before)
            before, row["seconds"] = row["step"], seconds
    return ordered


def _without_checkpoint(folder: Path) -> Path:
    return folder.parent if folder.name.startswith("checkpoint-") and folder.parent.name else folder


def _state_file(folder: Path) -> Path | None:
    if (folder / _STATE).is_file():
        return folder / _STATE
    found = [file for file in folder.glob(f"checkpoint-*/{_STATE}") if file.parent.name[11:].isdigit()]
    return max(found, key=lambda file: int(file.parent.name[11:]), default=None)
