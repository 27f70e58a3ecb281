"""The time that it takes to read a long log of another program, for each format.

    python experiments/speed/foreign_logs.py [--rows 1000000] [--formats csv,tensorboard_events]

A log of made-up numbers is written for each format, and `read_runs` reads it in a Python of its own. The seconds are
those of `read_runs`; the start of Python and the import of the package are not in them, the reader's own imports are.
A row is what the format has: a line, a record, or an entry. Every log has four metrics, except TensorBoard's CSV,
which has one, and W&B's CSV, which has one metric of four runs with their lowest and highest values. An event file has
a record for each metric of a step, so its runs have a quarter of the steps.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from rich.console import Console
from rich.table import Table

from rl_posttrain.study.foreign.wandb_files import record_class

METRICS = ("train/reward", "train/loss", "train/grad_norm", "train/entropy")
_STARTED = 1_700_000_000.0  # seconds since 1970
_READ = """
import json, resource, sys, time
from rl_posttrain.study.histories import read_runs
before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
runs = read_runs([sys.argv[1]]).runs
wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "wall_s": wall_s,
    "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "steps": sum(len(run.columns["step"]) for run in runs),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", default=",".join(WRITERS), help="names with commas")
    arguments = parser.parse_args()
    names = arguments.formats.split(",")
    if unknown := set(names) - set(WRITERS):
        parser.error(f"--formats={','.join(sorted(unknown))}: no such format; there are {', '.join(WRITERS)}")
    table = Table("format", "file", title=f"{arguments.rows:,} rows")
    for title in ("read", "CPU", "rows per second", "steps read"):
        table.add_column(title, justify="right")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = WRITERS[name](Path(folder), arguments.rows)
            size = path.stat().st_size
            done = subprocess.run([sys.executable, "-c", _READ, path], check=True, stdout=subprocess.PIPE, text=True)
        read = json.loads(done.stdout)
        table.add_row(
            name,
            f"{size / 1e6:,.0f} MB",
            f"{read['wall_s']:.1f} s",
            f"{read['cpu_s']:.1f} s",
            f"{arguments.rows / read['wall_s']:,.0f}",
            f"{read['steps']:,}",
        )
        print(f"{name}: {read['wall_s']:.1f} s, {read['cpu_s']:.1f} s of CPU", flush=True)
    Console(width=110).print(table)


def _values(num_rows: int, num_columns: int) -> list[list[float]]:
    """Noise around a rising curve, a list for each column."""
    rising = np.tanh(3 * np.arange(1, num_rows + 1) / num_rows)
    random = np.random.default_rng(0)
    return [(rising + random.normal(0, 0.1, num_rows)).tolist() for _ in range(num_columns)]


def _rows(num_rows: int) -> Iterator[dict[str, float]]:
    for step, values in enumerate(zip(*_values(num_rows, len(METRICS)), strict=True), 1):
        yield {"step": step, **dict(zip(METRICS, values, strict=True))}


def write_csv(folder: Path, num_rows: int) -> Path:
    path = folder / "adamw-seed0.csv"
    with path.open("w") as file:
        file.write(f"step,{','.join(METRICS)}\n")
        file.writelines(",".join(map(repr, row.values())) + "\n" for row in _rows(num_rows))
    return path


def write_tensorboard_csv(folder: Path, num_rows: int) -> Path:
    path = folder / "run-adamw-seed0-tag-train_reward.csv"
    with path.open("w") as file:
        file.write("Wall time,Step,Value\n")
        (values,) = _values(num_rows, 1)
        file.writelines(f"{_STARTED + step},{step},{value!r}\n" for step, value in enumerate(values, 1))
    return path


def write_tensorboard_events(folder: Path, num_rows: int) -> Path:
    """By tensorboard's own writer of records."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / "events.out.tfevents.1700000000.host.1.0"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=_STARTED, file_version="brain.Event:2").SerializeToString())
        for row in _rows(-(-num_rows // len(METRICS))):
            for name in METRICS:
                event = Event(wall_time=_STARTED + row["step"], step=row["step"])
                event.summary.value.add(tag=name, simple_value=row[name])
                writer.write(event.SerializeToString())
    return path


def write_wandb_csv(folder: Path, num_rows: int) -> Path:
    path = folder / "wandb_export.csv"
    names = [f"adamw-seed{seed} - train/reward{end}" for seed in range(4) for end in ("", "__MIN", "__MAX")]
    with path.open("w") as file:
        file.write(",".join(f'"{name}"' for name in ("Step", *names)) + "\n")
        for step, values in enumerate(zip(*_values(num_rows, 4), strict=True), 1):
            cells = [repr(value) for value in values for _ in range(3)]
            file.write(f'"{step}","' + '","'.join(cells) + '"\n')
    return path


def write_json_lines(folder: Path, num_rows: int) -> Path:
    path = folder / "adamw-seed0.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in _rows(num_rows))
    return path


def write_trainer_state(folder: Path, num_rows: int) -> Path:
    path = folder / "trainer_state.json"
    history = [{"step": row["step"], **{name[6:]: row[name] for name in METRICS}} for row in _rows(num_rows)]
    path.write_text(json.dumps({"log_history": history, "max_steps": num_rows}, indent=2))
    return path


def write_wandb_offline(folder: Path, num_rows: int) -> Path:
    """In the classes of our reader, as wandb 0.31 writes a run; for the layout see wandb_files.py."""
    record_of, path = record_class(), folder / "run-made.wandb"
    with path.open("wb") as file:
        file.write(b":W&B" + bytes([0xE1, 0xBE, 0]))
        _write_record(file, record_of(run={"run_id": "made", "display_name": "adamw-seed0"}).SerializeToString())
        for row in _rows(num_rows):
            logged = {**row, "_step": row["step"], "_timestamp": _STARTED + row["step"], "_runtime": row["step"]}
            items = [{"nested_key": [key], "value_json": json.dumps(value)} for key, value in logged.items()]
            record = record_of(history={"item": items, "step": {"num": row["step"]}})
            _write_record(file, record.SerializeToString())
        _write_record(file, record_of(exit={"exit_code": 0}).SerializeToString())
    return path


def _write_record(file: BinaryIO, record: bytes) -> None:
    """A record of LevelDB's log: cut where a block of 32 KiB ends."""
    first = True
    while first or record:
        room = 2**15 - file.tell() % 2**15
        if room < 7:
            file.write(bytes(room))
            room = 2**15
        part, record = record[: room - 7], record[room - 7 :]
        kind = (1 if first else 4) if not record else (2 if first else 3)  # whole, last, first, middle
        framed = bytes([kind]) + part
        file.write(struct.pack("<IH", zlib.crc32(framed), len(part)) + framed)
        first = False


WRITERS: dict[str, Callable[[Path, int], Path]] = {
    "csv": write_csv,
    "tensorboard_csv": write_tensorboard_csv,
    "tensorboard_events": write_tensorboard_events,
    "wandb_csv": write_wandb_csv,
    "wandb_offline": write_wandb_offline,
    "json_lines": write_json_lines,
    "trainer_state": write_trainer_state,
}


if __name__ == "__main__":
    main()
