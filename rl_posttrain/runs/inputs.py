"""What a run was fed, as checksums in its inputs.json, and what has changed since.

A run's recipe names rows, code and models, which lie outside of its directory. A resumed run is the same run only if
they are the same.

    {"rows": {"train": {"columns": {"answer": CRC-32, ...}, "rows": 8 digits for each row}, "eval": ...},
     "files": {"rewards": {"/home/me/reward.py": {"bytes": 120, "crc32": [...]}}, "model": ..., ...},
     "changes": [{"after_step": 40, "what": "rewards: /home/me/reward.py was changed"}]}
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rl_posttrain.errors import RunError
from rl_posttrain.runs.files import read_json_object, to_json, write_atomically
from rl_posttrain.runs.manifest import checksums

INPUTS_FILE = "inputs.json"
# Splits in the words of a sentence.
_SPLITS = {"train": "training rows", "eval": "evaluation rows"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DIGITS = 8  # of a row


class InputChange(NamedTuple):
    """A change of what a section of the recipe names."""

    section: str
    what: str

    def __str__(self) -> str:
        return f"{self.section}: {self.what}"


def describe_inputs(rows: Mapping[str, Sequence[Mapping[str, Any]]], files: Mapping[str, Mapping[str, Path]]) -> dict:
    """The checksums of what a run is fed.

    Args:
        rows: by split, ``train`` and ``eval``.
        files: by section of the recipe, each by the name that it is told by.

    Raises:
        OSError: a file cannot be read.
    """
    return {"rows": {split: _of_rows(found) for split, found in rows.items()}, "files": describe_files(files)}


def describe_files(files: Mapping[str, Mapping[str, Path]]) -> dict:
    """The checksums of files, by section and name; a section without files is left out."""
    with ThreadPoolExecutor() as pool:
        return {section: checksums(named, pool) for section, named in files.items() if named}


def input_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[InputChange]:
    """How two descriptions differ. Sections of which one has no files are not compared.

    Args:
        rows: by split, that `new` describes; the first that differs is shown.
    """
    for section in (section for section in old["files"] if section in new["files"]):
        before, after = old["files"][section], new["files"][section]
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                what = "is new" if name not in before else "is not there any more" if name not in after else None
                yield InputChange(section, f"{name} {what or 'was changed'}")
    for split, words in _SPLITS.items():
        what = _rows_changed(old["rows"][split], new["rows"][split], words, rows[split])
        if what:
            yield InputChange("task", what)


def read_inputs(run: Path) -> dict | None:
    """What the run at this path was fed; None where nobody recorded it.

    Raises:
        RunError: the file is damaged.
    """
    inputs = read_json_object(run / INPUTS_FILE)
    if inputs is None or _is_whole(inputs):
        return inputs
    raise RunError(f"{run / INPUTS_FILE}: it does not have what a run records there; restore it, or delete it")


def _is_whole(inputs: Mapping[str, Any]) -> bool:
    rows, files, changes = (inputs.get(name) for name in ("rows", "files", "changes"))
    return (
        isinstance(rows, dict)
        and all(isinstance(rows.get(split), dict) and rows[split].keys() == {"columns", "rows"} for split in _SPLITS)
        and isinstance(files, dict)
        and all(isinstance(named, dict) for named in files.values())
        and isinstance(changes, list)
    )


def write_inputs(run: Path, inputs: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> None:
    """Record what the run is fed, and what has changed since it began."""
    write_atomically(run / INPUTS_FILE, to_json({**inputs, "changes": list(changes)}, indent=1) + "\n")


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> dict:
    columns: dict[str, int] = {}
    sums = []
    for row in rows:
        of_row = 0
        for name in sorted(row):
            value = json.dumps([name, row[name]], sort_keys=True, default=_as_text).encode()
            of_row = zlib.crc32(value, of_row)
            columns[name] = zlib.crc32(value, columns.get(name, 0))
        sums.append(f"{of_row:0{_DIGITS}x}")
    return {"columns": {name: f"{found:08x}" for name, found in columns.items()}, "rows": "".join(sums)}


def _as_text(value: Any) -> Any:
    """What JSON does not have: arrays as lists, anything else as Python shows it, without its place in memory."""
    return value.tolist() if hasattr(value, "tolist") else _ADDRESS.sub("", repr(value))


def _rows_changed(old: Mapping[str, Any], new: Mapping[str, Any], words: str, rows: Sequence[Mapping]) -> str | None:
    if old == new:
        return None
    before, after = (_each(found["rows"]) for found in (old, new))
    lost, added = ([*_without(old, new)], [*_without(new, old)])
    if lost or added:
        said = [f"lost the column {', '.join(lost)}"] if lost else []
        said += [f"have the new column {', '.join(added)}"] if added else []
        return f"the {words} {' and '.join(said)}"
    first = next((place for place, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    if len(before) != len(after):
        same = min(len(before), len(after)) if first is None else first
        return f"there are {len(after)} {words} and were {len(before)}; the first {same} are the same"
    number = sum(was != now for was, now in zip(before, after, strict=True))
    changed = [name for name in sorted(new["columns"]) if old["columns"][name] != new["columns"][name]]
    shown = json.dumps(rows[first].get("question", rows[first].get("prompt")), default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    where = f"the first is row {first + 1}, which now asks {shown}"
    return f"{number} of {len(after)} {words} differ in {', '.join(changed)}; {where}"


def _without(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The columns of `one` that `other` has not."""
    return (name for name in one["columns"] if name not in other["columns"])


def _each(digits: str) -> list[str]:
    return [digits[place : place + _DIGITS] for place in range(0, len(digits), _DIGITS)]
