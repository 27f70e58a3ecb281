"""Runs made elsewhere, read into our names: transformers' trainer_state.json, or a CSV with a step and a reward."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError

_STATE = "trainer_state.json"
# Our names for TRL's and transformers'; the totals that transformers logs once at the end have none.
_OUR_NAMES = {
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "truncated_share",
    "frac_reward_zero_std": "frac_zero_variance",
    "num_tokens": "tokens",
    "learning_rate": "lr",
    "sampling/sampling_logp_difference/mean": "sampling_logprob_difference",
}
_TOTALS = ("train_runtime", "train_loss", "total_flos")


def is_foreign(path: Path) -> bool:
    """Whether `path` is a run that `ForeignRun` reads."""
    return path.suffix in (".csv", ".json") or (path.is_dir() and _state_file(path) is not None)


class ForeignRun:
    """A run made by another program, with the reading half of `RunDirectory`.

    Args:
        path: a ``trainer_state.json``, a checkpoint or output folder of transformers' Trainer (its newest checkpoint
            counts), or a CSV whose head names a step and a reward column (``train/`` before a name is left out).
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self) -> str:
        if self.path.name == _STATE:
            return _without_checkpoint(self.path.parent).name
        return self.path.stem if self.path.is_file() else _without_checkpoint(self.path).name

    def metrics(self) -> list[dict]:
        """One row a logged step.

        Raises:
            RunError: the file is missing, is no such file, or has no reward.
        """
        return self._csv_rows() if self.path.suffix == ".csv" else _rows_of_history(self._state()["log_history"])

    def summary(self) -> dict | None:
        """Empty where the run has reached its last step, or nobody can know; None where steps are to come."""
        if self.path.suffix == ".csv":
            return {}
        state = self._state()
        return {} if state.get("global_step", 0) >= state.get("max_steps", 0) else None

    def recipe(self) -> dict:
        return {}

    def environment(self) -> dict:
        return {}

    def rollouts(self, step: int) -> list[dict]:
        return []

    def _state(self) -> dict:
        file = _state_file(self.path) if self.path.is_dir() else self.path
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"RUN={self.path}: cannot be read ({error.strerror}); name a file that is there") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"RUN={self.path}: no JSON ({error}); it was cut short or is another file") from error
        if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
            raise RunError(f"RUN={self.path}: no log_history in it; name a {_STATE} of transformers' Trainer")
        return state

    def _csv_rows(self) -> list[dict]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                names = {given: _plain_name(given) for given in table.fieldnames or ()}
                for wanted in ("step", "reward"):
                    if list(names.values()).count(wanted) != 1:
                        raise RunError(
                            f"RUN={self.path}: it needs one column {wanted!r} and has {', '.join(names) or 'no head'}; "
                            "rename or drop columns in its first line"
                        )
                rows = [{names[key]: _value(text) for key, text in row.items() if key is not None} for row in table]
        except OSError as error:
            raise RunError(f"RUN={self.path}: cannot be read ({error.strerror}); name a file that is there") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise RunError(f"RUN={self.path}: no CSV ({error}); save it as UTF-8 with commas") from error
        # A last line that was cut short has no step or no reward; so has an empty one.
        rows = [row for row in rows if row["step"] is not None]
        return sorted(rows, key=lambda row: row["step"])


def _rows_of_history(history: list[dict]) -> list[dict]:
    """Rows by step: what was logged for one step in several entries (training, evaluation) stands in one."""
    rows: dict[float, dict] = {}
    for entry in history:
        step = entry.get("step")
        if step is None or any(total in entry for total in _TOTALS):
            continue
        row = rows.setdefault(step, {"step": step})
        for key, value in entry.items():
            name = _our_name(key)
            # json reads NaN and Infinity as such; in our rows they are null.
            row[name] = value if not isinstance(value, float) or math.isfinite(value) else None
    ordered = [rows[step] for step in sorted(rows)]
    if all("seconds" not in row and "step_time" in row for row in ordered):
        seconds, before = 0.0, 0
        for row in ordered:  # TRL logs the mean time of a step since the last entry
            seconds += (row["step_time"] or 0.0) * (row["step"] - before)
            before, row["seconds"] = row["step"], seconds
    return ordered


def _our_name(name: str) -> str:
    if name in _OUR_NAMES:
        return _OUR_NAMES[name]
    if name.startswith("rewards/") and name.endswith("/mean"):
        return name.removesuffix("/mean")
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else name


def _plain_name(name: str) -> str:
    plain = name.strip().removeprefix("train/")
    lower = plain.lower()
    if lower in ("step", "reward"):
        return lower
    return "step" if lower in ("global_step", "train/global_step", "_step") else _our_name(plain)


def _value(text: str | None) -> Any:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _without_checkpoint(folder: Path) -> Path:
    return folder.parent if folder.name.startswith("checkpoint-") and folder.parent.name else folder


def _state_file(folder: Path) -> Path | None:
    if (folder / _STATE).is_file():
        return folder / _STATE
    found = [file for file in folder.glob(f"checkpoint-*/{_STATE}") if file.parent.name[11:].isdigit()]
    return max(found, key=lambda file: int(file.parent.name[11:]), default=None)
