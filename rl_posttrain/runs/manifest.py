"""The manifest of a checkpoint: names, sizes and checksums of its files, by which damage is found before they are used.

It is the content of the file `complete`, which is written last. Its last line is the checksum of the lines before.

Checksums are CRC-32, one for each 64 MiB. A flipped bit, or any damage within 32 bits in a row, is always found; other
damage escapes once in 4 billion. CRC-32 is several times as fast as BLAKE2b; nobody forges these files.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from rl_posttrain.errors import one_line
from rl_posttrain.runs.files import to_json, write_atomically

MANIFEST_FILE = "complete"
ROWS_FILE = "metrics.jsonl"  # in a checkpoint: the run's rows up to its step
_PIECE_BYTES, _BUFFER_BYTES = 2**26, 2**20


def write_manifest(folder: Path) -> None:
    """Bring all files of `folder` to the disk, then write its manifest. When this returns, it would survive a crash."""
    files = _files(folder)
    with ThreadPoolExecutor() as pool:
        synced = pool.map(fsync, files.values())
        listed = checksums(files, pool)
        list(synced)  # raises what a thread raised
    text = to_json({"piece_bytes": _PIECE_BYTES, "files": listed}) + "\n"
    for place in {path.parent for path in files.values()} - {folder}:
        fsync(place)
    write_atomically(folder / MANIFEST_FILE, text + _crc(text.encode()) + "\n")
    fsync(folder)


def checksums(files: Mapping[str, Path], pool: Executor) -> dict[str, dict]:
    """Size in bytes and CRC-32 of each piece, by the names of `files`."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    pieces = [(name, number) for name, size in sizes.items() for number in range(-(-size // _PIECE_BYTES))]
    sums = pool.map(lambda piece: _checksum(files[piece[0]], piece[1], _PIECE_BYTES), pieces)
    listed = {name: {"bytes": size, "crc32": []} for name, size in sizes.items()}
    for (name, _), found in zip(pieces, sums, strict=True):
        listed[name]["crc32"].append(found)
    return listed


def find_damage(folder: Path, needed: Callable[[str], bool] = lambda name: True) -> str | None:
    """What is wrong with the files of a checkpoint, in words; None where nothing is, or where it has no manifest.

    Files whose names begin with a dot, and folders of universal checkpoints, may be added at any time.

    Args:
        needed: which files to look at, by their path in the folder. The default is all.
    """
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        if not is_checkable(folder):
            return None
        manifest = _parsed(content)
        if manifest is None:
            return f"{MANIFEST_FILE} is damaged"
        listed, piece_bytes = manifest["files"], manifest["piece_bytes"]
        found = _files(folder)
        names = [name for name in sorted(listed.keys() | found.keys()) if needed(name)]
        for name in names:
            if name not in found:
                return f"{name} is missing"
            if name not in listed:
                return f"{name} is not one of its files"
            if (size := found[name].stat().st_size) != listed[name]["bytes"]:
                return f"{name} has {size} bytes and not {listed[name]['bytes']}"
        pieces = [(name, number) for name in names for number in range(len(listed[name]["crc32"]))]
        with ThreadPoolExecutor() as pool:
            sums = pool.map(lambda piece: _checksum(found[piece[0]], piece[1], piece_bytes), pieces)
            for (name, number), checksum in zip(pieces, sums, strict=True):
                if checksum != listed[name]["crc32"][number]:
                    pool.shutdown(cancel_futures=True)
                    return f"{name} has other bytes than were written"
    except FileNotFoundError as error:
        name = Path(error.filename or folder).name
        return (
            f"{name} is missing" if name != MANIFEST_FILE else f"it has no file {MANIFEST_FILE}, which is written last"
        )
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror or one_line(error)})"
    return None


def is_checkable(folder: Path) -> bool:
    """Whether a checkpoint has a manifest: before there were any, `complete` was empty, and no rows were kept."""
    return (folder / MANIFEST_FILE).stat().st_size > 0 or (folder / ROWS_FILE).exists()


def fsync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> dict[str, Path]:
    """The files that a checkpoint consists of, by their path in the folder with slashes."""
    return {path.relative_to(folder).as_posix(): path for path in _walk(folder) if path != folder / MANIFEST_FILE}


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith("_universal"))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _parsed(content: bytes) -> dict | None:
    """The manifest in the bytes of its file; None where they are not those that were written."""
    body = b"".join(content.splitlines(keepends=True)[:-1])
    if content != body + _crc(body).encode() + b"\n":
        return None
    return json.loads(body)


def _checksum(path: Path, number: int, piece_bytes: int) -> str:
    """CRC-32 of one piece of a file, in hexadecimal."""
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, piece_bytes)))
    value, left = 0, piece_bytes
    with path.open("rb", buffering=0) as file:
        file.seek(number * piece_bytes)
        while left and (size := file.readinto(buffer[: min(left, len(buffer))])):
            value = zlib.crc32(buffer[:size], value)
            left -= size
    return f"{value:08x}"


def _crc(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
