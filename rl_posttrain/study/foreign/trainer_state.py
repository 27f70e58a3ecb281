"""transformers' trainer_state.json, which TRL's trainers write, too."""

import json
import math
from pathlib import Path

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.files import check_regular
from rl_posttrain.study.foreign.json_lines import table_of_rows
from rl_posttrain.study.foreign.log import Log

STATE = "trainer_state.json"
# What transformers logs once at the end, over the whole run: it belongs to no step.
_TOTALS = ("train_runtime", "train_loss", "total_flos")


def state_file(folder: Path) -> Path | None:
    """The state in a checkpoint or output folder of transformers' Trainer, of the newest checkpoint; None without."""
    if (folder / STATE).is_file():
        return folder / STATE
    found = [file for file in folder.glob(f"checkpoint-*/{STATE}") if file.parent.name[11:].isdigit()]
    return max(found, key=lambda file: int(file.parent.name[11:]), default=None)


def read_trainer_state(file: Path, run: str) -> list[Log]:
    """The run whose state is in `file`.

    Raises:
        RunError: the file is missing, or is no such state.
    """
    check_regular(file)
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"RUN={file}: cannot be read ({error.strerror}); name a file that is there") from error
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"RUN={file}: not JSON ({one_line(error)}); the file was cut short, or is another file"
        ) from error
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise RunError(f"RUN={file}: it has no log_history; name a {STATE} of transformers' Trainer")
    planned = state.get("max_steps") or 0
    if type(planned) not in (int, float) or not math.isfinite(planned):
        raise RunError(f"RUN={file}: max_steps={planned!r:.40} is no number; the file is damaged, restore it")
    rows = [row for row in history if _has_step(row) and not any(total in row for total in _TOTALS)]
    _add_seconds(rows)
    return [Log(file, run, [table_of_rows(rows)], planned_steps=int(planned) if planned > 0 else None)]


def _has_step(row: dict) -> bool:
    return type(row.get("step")) in (int, float) and math.isfinite(row["step"])


def _add_seconds(rows: list[dict]) -> None:
    """TRL logs the mean time of a step since the last entry. An entry of an evaluation has none."""
    if any("seconds" in row for row in rows):
        return
    seconds, before = 0.0, 0
    for row in rows:
        if "step_time" in row and row["step"] > before:
            took = row["step_time"] if type(row["step_time"]) in (int, float) else 0.0
            seconds += took * (row["step"] - before)
            before, row["seconds"] = row["step"], seconds
