"""The time that `curves` and `report` take for one very long run, and the size of the page; and what one more look of
`curves --follow` costs when a row was added.

    python experiments/speed/long_curves.py [--rows 1000000] [--rounds 2] [--before PYTHON]

With --rounds 0 it makes the looks alone.

It writes a CSV and a run directory with 9 metrics in each row. PYTHON is that of another checkout (its whole path):
both are timed in turn, so that a busy machine slows both.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from rl_posttrain import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.following import Follower
from rl_posttrain.views.terminal import plot

_BLOCK = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--before", help="the Python of a checkout to compare with")
    arguments = parser.parse_args()
    pythons = {"before": arguments.before, "now": sys.executable}
    with tempfile.TemporaryDirectory() as folder:
        sources = make_sources(Path(folder), arguments.rows)
        for source in sources:
            print(f"{source.name}, {arguments.rows:,} rows", flush=True)
            for command in (["curves", source], ["report", source, "--out", Path(folder) / "report"]):
                for name in [name for _ in range(arguments.rounds) for name in pythons if pythons[name]]:
                    wall_s, cpu_s = timed([pythons[name], "-m", "rl_posttrain", *map(str, command)])
                    page = Path(folder) / "report" / "index.html"
                    size = f", page {page.stat().st_size / 1e6:.1f} MB" if command[0] == "report" else ""
                    print(f"  {command[0]:<6} {name:<6} {wall_s:6.1f} s, {cpu_s:6.1f} s of CPU{size}", flush=True)
        follower = Follower([sources[1]])
        for number in range(4):
            looked = time_of_look(follower)
            print(f"look {number + 1} at {sources[1].name}: {looked:.2f} s", flush=True)
            row = {"step": arguments.rows + number + 1, "reward": 0.5}
            RunDirectory(sources[1]).append_metrics(row)


def time_of_look(follower: Follower) -> float:
    """Seconds of reading the runs and drawing them, as `curves --follow` does."""
    started = time.perf_counter()
    collection = follower.look().collection
    plot(collection, "reward", axis="step", smoothing=1, every_run=False, console=Console(width=100))
    return time.perf_counter() - started


def timed(command: list[str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Not in this folder: Python would take the package from it, whichever Python it is.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu_s


def make_sources(folder: Path, num_rows: int) -> list[Path]:
    """A CSV and a run directory with the same numbers: noise around a rising reward, and one step far above."""
    random, steps = np.random.default_rng(0), np.arange(1, num_rows + 1)
    reward = np.tanh(3 * steps / num_rows) + random.normal(0, 0.1, num_rows)
    reward[num_rows // 3] = 7.0
    columns = {
        "reward": reward,
        "loss": random.normal(0, 1, num_rows),
        "grad_norm": abs(random.normal(1, 0.2, num_rows)),
        "accuracy": np.clip(reward, 0, 1),
        "seconds": np.cumsum(1 + random.random(num_rows)),
        "tokens": np.cumsum(random.integers(100, 200, num_rows)),
        "lr": np.full(num_rows, 1e-6),
        "entropy": random.random(num_rows),
    }
    table, run = folder / "long.csv", folder / "long"
    run.mkdir()
    (run / "recipe.yaml").write_text(load_recipe("quickstart", [f"algorithm.num_steps={num_rows}"]).to_yaml())
    with table.open("w") as csv, (run / "metrics.jsonl").open("w") as rows:
        csv.write(f"step,{','.join(columns)}\n")
        for start in range(0, num_rows, _BLOCK):
            block = zip(*(column[start : start + _BLOCK].tolist() for column in columns.values()), strict=True)
            for step, values in enumerate(block, start + 1):
                csv.write(f"{step},{','.join(map(repr, values))}\n")
                rows.write(json.dumps({"step": step, **dict(zip(columns, values, strict=True))}) + "\n")
    return [table, run]


if __name__ == "__main__":
    main()
