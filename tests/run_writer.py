"""A process that trains: it makes a run, holds its lock, and adds a row or ends when it is told."""

import subprocess
import sys
from pathlib import Path

from conftest import clean_environment

from rl_posttrain import load_recipe

SCRIPT = """
import sys
from pathlib import Path
from rl_posttrain.runs.directory import RunDirectory

run, step = RunDirectory.create(Path(sys.argv[1]), recipe_yaml=sys.argv[2]), 0
with run.locked():
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "finish\\n":
            run.write_summary({"steps": step})
            break
        for _ in range(int(line)):
            step += 1
            run.append_metrics({"step": step, "reward": step / 10, "seconds": float(step)})
        print("done", flush=True)
"""


class RunWriter:
    """Writes a run of ten steps in a process of its own, as training does.

    Args:
        path: of the run.
    """

    def __init__(self, path: Path, *, seed: int = 0):
        recipe = load_recipe("quickstart", ["algorithm.num_steps=10", f"run.seed={seed}"]).to_yaml()
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, path, recipe],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def add(self, num_steps: int = 1) -> None:
        """Add rows, which are on disk when this returns."""
        self._tell(str(num_steps))
        assert self._process.stdout.readline() == "done\n"

    def finish(self) -> None:
        self._tell("finish")
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        with self._process:
            pass

    def _tell(self, words: str) -> None:
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
