"""Which files and folders are runs of other programs, what the runs are called, and which reader reads them."""

import os
import re
from pathlib import Path

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.foreign.csv_files import read_csv
from rl_posttrain.study.foreign.event_files import MARK, read_event_files
from rl_posttrain.study.foreign.json_lines import read_json_lines_log
from rl_posttrain.study.foreign.log import Log
from rl_posttrain.study.foreign.trainer_state import STATE, read_trainer_state, state_file
from rl_posttrain.study.foreign.wandb_files import read_wandb_file, run_file

KNOWN = (
    "a trainer_state.json, a CSV, a .jsonl file, a .wandb file or the folder of an offline run, or a folder of "
    "TensorBoard's event files"
)
# The table of verdicts that a report writes is no run.
VERDICTS = "verdicts.csv"
_READERS = {".csv": read_csv, ".jsonl": read_json_lines_log, ".ndjson": read_json_lines_log, ".wandb": read_wandb_file}
# Names that a program gives to the log of every run: the folder's name is the run's.
_USUAL = ("metrics.jsonl", "log.jsonl", "progress.csv")
# transformers writes event files to OUTPUT/runs/Jan31_12-00-00_HOST/.
_DATED = re.compile(r"[A-Z][a-z]{2}\d{2}_\d{2}-\d{2}-\d{2}_.*")
# A name that says the seed alone goes by the name of the folder around it.
_SEED_ALONE = re.compile(r"(?:seed|s)?[-_=]?\d+", re.IGNORECASE)


def is_foreign(path: Path) -> bool:
    """Whether `path` is a run of another program, or a file with several."""
    if path.is_dir():
        return any((state_file(path), run_file(path), _event_files(path), _usual_file(path)))
    return path.suffix.lower() in (".json", *_READERS) or MARK in path.name


def foreign_inside(folder: Path) -> list[Path]:
    """The runs of other programs in a folder: files right in it, and folders at any depth."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in _READERS and path.is_file()]
    return [path for path in files if path.name != VERDICTS] + _folders_inside(folder)


def _folders_inside(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and not RunDirectory.is_at(path):
            found += [path] if is_foreign(path) else _folders_inside(path)
    return found


def read_foreign(path: Path) -> list[Log]:
    """The runs at `path`, for which `is_foreign` holds.

    Raises:
        RunError: there is no such file, or it is damaged or of another kind.
    """
    if path.is_dir():
        if (state := state_file(path)) is not None:
            return read_trainer_state(state, name_of(path))
        if (offline := run_file(path)) is not None:
            return read_wandb_file(offline, name_of(path))
        if events := _event_files(path):
            return _read_events(path, events)
        path = _usual_file(path)
    if MARK in path.name:
        return _read_events(path, [path])
    if path.suffix.lower() == ".json":
        return read_trainer_state(path, name_of(path))
    return _READERS[path.suffix.lower()](path, name_of(path))


def name_of(path: Path) -> str:
    """The name of the run in a file or folder."""
    path = Path(os.path.abspath(path))  # "." has no name
    if path.name in (STATE, *_USUAL) or MARK in path.name:
        path = path.parent
    if path.name.startswith("checkpoint-") and path.parent.name:
        path = path.parent
    path = path.with_suffix("") if path.is_file() else _run_folder(path)
    return f"{path.parent.name}-{path.name}" if says_the_seed_alone(path.name) and path.parent.name else path.name


def says_the_seed_alone(name: str) -> bool:
    return _SEED_ALONE.fullmatch(name) is not None


def _run_folder(folder: Path) -> Path:
    dated = _DATED.fullmatch(folder.name) and folder.parent.name == "runs" and folder.parent.parent.name
    return folder.parent.parent if dated else folder


def _usual_file(folder: Path) -> Path | None:
    return next((folder / name for name in _USUAL if (folder / name).is_file()), None)


def _event_files(folder: Path) -> list[Path]:
    """The event files of a folder, in the order in which they were begun, which their names say.

    They are right in it, or in the dated folders that transformers makes in an output folder, one for each start.
    """
    found = [file for file in folder.glob(f"*{MARK}*") if file.is_file()]
    if not found:
        dated = [inside for inside in folder.glob("runs/*/") if _DATED.fullmatch(inside.name)]
        found = [file for inside in dated for file in inside.glob(f"*{MARK}*") if file.is_file()]
    return sorted(found, key=lambda file: (_begun(file), file.name))


def _begun(file: Path) -> int:
    found = re.search(rf"{MARK}\.(\d+)", file.name)
    return int(found[1]) if found else 0


def _read_events(path: Path, files: list[Path]) -> list[Log]:
    tables, notices = read_event_files(files)
    return [Log(path, name_of(path), tables, notices=notices)]
