"""Offline runs of Weights & Biases: ``run-ID.wandb``, read without the package.

The file is a log as LevelDB writes it (blocks of 32 KiB; a record is cut where a block ends; see LevelDB's
doc/log_format.md) after 7 bytes of header, with zlib's CRC-32. Each record is a protocol buffer of wandb's
wandb_internal.proto; only the fields below are read, and others are skipped.
"""

import functools
import json
import struct
import zlib
from array import array
from pathlib import Path

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.study.foreign.log import Log, Table

_HEADER = b":W&B"
_HEADER_BYTES, _BLOCK, _FRAME = 7, 2**15, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Message to its fields: name, number, type, and whether it is repeated.
_MESSAGES = {
    "Item": (("key", 1, "string", False), ("nested_key", 2, "string", True), ("value_json", 16, "string", False)),
    "Step": (("num", 1, "int64", False),),
    "History": (("item", 1, "Item", True), ("step", 2, "Step", False)),
    "Config": (("update", 1, "Item", True),),
    "Run": (("run_id", 1, "string", False), ("config", 4, "Config", False), ("display_name", 8, "string", False)),
    "Exit": (("exit_code", 1, "int32", False),),
    "Record": (
        ("history", 2, "History", False), ("config", 5, "Config", False), ("run", 17, "Run", False),
        ("exit", 18, "Exit", False),
    ),
}  # fmt: skip


def run_file(folder: Path) -> Path | None:
    """The file of an offline run's folder; None where it has none."""
    return next(iter(sorted(folder.glob("run-*.wandb"))), None)


def read_wandb_file(file: Path, run: str) -> list[Log]:
    """The run in a ``.wandb`` file.

    Args:
        run: the run's name, where the file says no other.

    Raises:
        RunError: the file cannot be read, or is no such file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"RUN={file}: cannot be read ({error.strerror}); name a file that is there") from error
    if not content.startswith(_HEADER):
        raise RunError(f"RUN={file}: not an offline run of W&B; name the .wandb file that wandb wrote, or its folder")
    records, whole = _records(content)
    read = record_class().FromString
    found: dict[str, tuple[array, array]] = {}
    name, seed, exit_code, number = run, None, None, 0
    for text in records:
        record = read(text)
        if record.HasField("history"):
            for item in record.history.item:
                value = _number(item.value_json)
                if value is None:
                    continue
                nested = item.nested_key  # of one part mostly, and a join of one takes a third of the whole time
                key = item.key or (nested[0] if len(nested) == 1 else "/".join(nested))
                if key not in found:
                    found[key] = (array("q"), array("d"))
                places, values = found[key]
                places.append(number)
                values.append(value)
            number += 1
        elif record.HasField("run"):
            name = record.run.display_name or record.run.run_id or name
            seed = _seed(record.run.config, seed)
        elif record.HasField("config"):
            seed = _seed(record.config, seed)
        elif record.HasField("exit"):
            exit_code = record.exit.exit_code
    notices = []
    if not whole:
        notices.append(f"{file.name} is damaged or cut short; its {number:,} whole rows were read")
    if exit_code is None:
        notices.append("W&B recorded no end: killed, or still going on")
    elif exit_code:
        notices.append(f"W&B recorded that it ended with an error (exit code {exit_code})")
    return [Log(file, name, [_table(found, number)], seed=seed, notices=notices)]


def _records(content: bytes) -> tuple[list[bytes], bool]:
    """The records up to the first damaged one; and whether there is none."""
    records, parts, place, size = [], [], _HEADER_BYTES, len(content)
    while place + _FRAME <= size:
        room = _BLOCK - place % _BLOCK
        if room < _FRAME:  # the end of a block, filled with zeros
            place += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, place)
        end = place + _FRAME + length
        if length > room - _FRAME or end > size or zlib.crc32(content[place + 6 : end]) != checksum:
            return records, False
        parts.append(content[place + _FRAME : end])
        if kind in (_FULL, _LAST):
            records.append(b"".join(parts))
            parts = []
        elif kind not in (_FIRST, _MIDDLE):
            return records, False
        place = end
    return records, not parts and place >= size


def _table(found: dict[str, tuple[array, array]], number: int) -> Table:
    """A table of `number` rows from the places and values of each key."""
    columns, recorded = {}, {}
    for key, (places, values) in found.items():
        columns[key], recorded[key] = np.full(number, np.nan), np.zeros(number, dtype=bool)
        at = np.frombuffer(places, dtype=np.int64)
        columns[key][at], recorded[key][at] = np.frombuffer(values), True
    return Table(columns, recorded)


def _number(text: str) -> float | None:
    """A number in JSON, NaN and Infinity included, with quotes or without; None for anything else."""
    try:
        return float(text)
    except ValueError:
        named = text.strip('"')
        return float(named) if named in ("NaN", "Infinity", "-Infinity") else None


def _seed(config, before: int | None) -> int | None:
    for item in config.update:
        if (item.key or "/".join(item.nested_key)) == "seed" and item.value_json.isdecimal():
            return int(json.loads(item.value_json))
    return before


@functools.cache
def record_class():
    """The class of a record, with the fields of `_MESSAGES` alone."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rl_posttrain_wandb.proto", package="rl_posttrain_wandb")
    file.syntax = "proto3"
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            made = added.field.add(name=name, number=number, label=label)
            if kind in _MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Record"))
