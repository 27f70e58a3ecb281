"""TensorBoard's event files. tensorboard's own reader checks every byte in Python; this one takes seconds a million.

An event file is a row of records: the length (8 bytes), its checksum (4), the event (a protocol buffer), its checksum
(4). Checksums are CRC-32C, masked (tensorflow/core/lib/io/record_writer.h, tensorflow/core/lib/hash/crc32c.h).
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.study.foreign.log import Table, lowest_after

MARK = "tfevents"
_FRAME = 16  # bytes of a record beside its event
_LONGEST = 4096  # bytes of an event; longer ones are pictures, graphs and texts
_MASK, _POLYNOMIAL = 0xA282EAD8, 0x82F63B78


def read_event_files(files: Sequence[Path]) -> tuple[list[Table], list[str]]:
    """The scalars of the event files of one run, a table for all tags that were logged at the same steps.

    Args:
        files: in the order in which they were written. What a later file logs again replaces what an earlier one has.

    Returns:
        The tables, with ``step``, ``wall_time`` (seconds since 1970) and the tags; and notices on damaged files.

    Raises:
        RunError: no file can be read.
    """
    order, notices, found, purges = 0, [], {}, []
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise RunError(f"RUN={file}: cannot be read ({error.strerror}); name a file that is there") from error
        events, whole = _events(content)
        if not whole:
            notices.append(
                f"{file.name} is damaged or cut short; the {len(events):,} records before that place were read"
            )
        order = _collect(events, order, found, purges)
    return _tables({tag: np.array(rows, dtype=np.float64) for tag, rows in found.items()}, purges), notices


def _events(content: bytes) -> tuple[list[bytes], bool]:
    """The events up to the first damaged record; and whether there is none."""
    starts, place, size = [], 0, len(content)
    while place + _FRAME <= size:
        (length,) = struct.unpack_from("<Q", content, place)
        if length > size - place - _FRAME:
            break
        starts.append((place, length))
        place += _FRAME + length
    good = _first_damage(content, starts)
    events = [content[start + 12 : start + 12 + length] for start, length in starts[:good] if length <= _LONGEST]
    return events, place == size and good == len(starts)


def _first_damage(content: bytes, records: Sequence[tuple[int, int]]) -> int:
    """The place in `records` of the first one whose checksums are wrong; their number where all are right."""
    data = np.frombuffer(content, dtype=np.uint8)
    starts, lengths = (
        np.array(column, dtype=np.int64) for column in (zip(*records, strict=True) if records else ((), ()))
    )
    right = _checks(data, starts, 8)
    for length in np.unique(lengths[lengths <= _LONGEST]):
        alike = np.flatnonzero(lengths == length)
        right[alike] &= _checks(data, starts[alike] + 12, int(length))
    return len(records) if right.all() else int(np.argmin(right))


def _checks(data: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Whether the checksum after `length` bytes from each of `starts` is theirs; all records at once, byte by byte."""
    crc = np.full(len(starts), 0xFFFFFFFF, dtype=np.uint32)
    for offset in range(length):
        crc = _TABLE[(crc ^ data[starts + offset]) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(_MASK)
    stored = sum(data[starts + length + byte].astype(np.uint32) << np.uint32(8 * byte) for byte in range(4))
    return masked == stored


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _crc_table()


def _collect(events: Sequence[bytes], order: int, found: dict[str, list], purges: list[tuple[int, int]]) -> int:
    """Add the scalars to `found`: by tag, rows of order, step, time and value. Returns the next order."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    for place, text in enumerate(events, start=order):
        event = Event.FromString(text)
        if event.HasField("summary"):
            for value in event.summary.value:
                number = value.simple_value if value.HasField("simple_value") else _scalar(value)
                if number is not None:
                    found.setdefault(value.tag, []).append((place, event.step, event.wall_time, number))
        elif event.HasField("session_log") and event.session_log.status == SessionLog.START:
            purges.append((place, event.step))
    return order + len(events)


def _scalar(value) -> float | None:
    """The number in a summary that is one number as a tensor, as TensorFlow 2 and JAX write it; else None."""
    from tensorboard.util import tensor_util

    tensor = value.tensor
    if not value.HasField("tensor") or any(dimension.size != 1 for dimension in tensor.tensor_shape.dim):
        return None
    try:
        return float(tensor_util.make_ndarray(tensor).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):  # a text
        return None


def _tables(found: dict[str, np.ndarray], purges: Sequence[tuple[int, int]]) -> list[Table]:
    """A table for all tags with the same steps.

    Args:
        found: by tag (N, 4): order, step, time and value.
        purges: order and step of each start of the program that says from which step on it logs again.
    """
    tables: list[dict[str, np.ndarray]] = []
    for tag, rows in found.items():
        if purges:
            places = np.searchsorted(rows[:, 0], [order for order, _ in purges])
            starts = np.array([step for _, step in purges], dtype=np.float64)
            rows = rows[rows[:, 1] < lowest_after(places, starts, len(rows))]
        _, steps, times, values = rows.T
        for table in tables:
            if np.array_equal(table["step"], steps):
                table[tag] = values
                break
        else:
            tables.append({"step": steps, "wall_time": times, tag: values})
    return [Table.full(columns) for columns in tables]
