"""Files that are whole or absent at any moment: atomic writes, JSON without NaN, and reading both back."""

import contextlib
import csv
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError

# What safetensors and tokenizers say of a refusal of the system; and torch's zip writer, without its number.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_TORCH_WRITER = re.compile(r"inline_container\.cc|PytorchStreamWriter")
_FULL_BYTES = 2**20  # with less room than this, a disk is called full


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise what the system refuses while the block writes into `folder` as OSError, whoever noticed it.

    safetensors, tokenizers and torch have types of their own for a full disk. What does not come from the disk passes.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = _errno_in(str(error), folder)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error


END_BYTES = 2**16  # read to find the last row: enough for many rows


def _errno_in(message: str, folder: Path) -> int | None:
    if found := _OS_ERROR.search(message):
        return int(found[1])
    if not _TORCH_WRITER.search(message):
        return None
    while not folder.exists():
        folder = folder.parent
    return errno.ENOSPC if shutil.disk_usage(folder).free < _FULL_BYTES else errno.EIO


def write_atomically(path: Path, text: str) -> None:
    """Write `text`. At any moment, `path` has either its old content or all of the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files can be read by their owner alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    """`value` for JSON: numbers that are not finite become null, and numpy's and torch's scalars plain numbers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any, **options: Any) -> str:
    """Plain JSON: no NaN, no Infinity, and ASCII alone, so that any text can be written."""
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, **options)


def check_regular(path: Path) -> None:
    """Fail on what is there and no file: reading a pipe or a device may never end.

    Raises:
        RunError: so it is.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"{path}: a folder, a pipe or a device, and no file; name a file")


def read_json_lines(path: Path) -> list[dict]:
    """The objects of a JSON lines file. A last line that was only half written, by a crash, is left out."""
    check_regular(path)
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise RunError(f"{path}: not a text file; it is damaged") from None
    if lines == [""]:
        return rows
    with contextlib.suppress(ValueError, RecursionError):
        # All at once takes half of the time.
        rows = json.loads(f"[{','.join(lines)}]")
        if len(rows) == len(lines) and set(map(type, rows)) == {dict}:
            return rows
        rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # a number may have too many digits
            if number == len(lines):
                break
            raise RunError(
                f"{path}:{number}: this line is not JSON, and it is not the last one; the file is damaged"
            ) from None
        if not isinstance(row, dict):
            raise RunError(
                f"{path}:{number}: this line is not a JSON object; the file is damaged, or another program's"
            )
        rows.append(row)
    return rows


def read_json_object(path: Path, **kinds: type) -> dict | None:
    """The JSON object in a file; None where there is no file.

    Args:
        kinds: the type of a value, by its name; a name may be absent.

    Raises:
        RunError: the file holds something else.
    """
    if not path.exists():
        return None
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object; the file is damaged")
    for name, kind in kinds.items():
        if name in value and type(value[name]) is not kind:
            raise RunError(f"{path}: {name}={value[name]!r:.40} is of another type; the file is damaged, delete it")
    return value


def is_unfinished_start(folder: Path) -> bool:
    """Whether a folder is empty, but for what a process leaves that is killed while it makes a run directory."""
    for entry in folder.iterdir():
        is_ours = entry.name in ("rollouts", "checkpoints") and entry.is_dir() and not any(entry.iterdir())
        if not is_ours and not entry.name.startswith(".recipe.yaml."):
            return False
    return True


def last_lines(path: Path) -> tuple[list[bytes], bool]:
    """The whole objects at the end of a JSON lines file, a line each; and whether the file has no more than these."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - END_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    # After the last line break there may be half a row, and before the first line break the end of a row.
    return [line for line in lines[start > 0 : -1] if line.startswith(b"{") and line.endswith(b"}")], start == 0


@contextlib.contextmanager
def long_fields() -> Iterator[None]:
    """Within, the csv module reads fields of any length. Its limit is one for the whole process, so it is put back."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
