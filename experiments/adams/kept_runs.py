"""Runs of an experiment in a JSON file, so that a run that was made is not made again."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_posttrain.runs.files import write_atomically


class KeptRuns:
    """The runs in a file: of one set of settings, each with an optimizer, a learning rate and a seed.

    Args:
        path: of the file; it need not exist.
        settings: what all runs share. A file with other settings ends the program.
        parser: of the program's arguments; it tells that error.
    """

    def __init__(self, path: Path, settings: dict[str, Any], parser: argparse.ArgumentParser):
        self._path, self._settings = path, settings
        self._runs: list[dict[str, Any]] = []
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] != settings:
                parser.error(f"--json={path}: its runs are of {kept['settings']}, not {settings}; name another")
            self._runs = kept["runs"]

    def run(
        self, optimizer: str, lr: float, seed: int, make: Callable[[], dict[str, Any]], show: Callable[[Any], str] = str
    ) -> dict[str, Any]:
        """The run of these three: the one in the file, or a new one, which is kept and printed.

        Args:
            make: makes it; returns one name and its value, such as ``{"loss": 1.5}``.
            show: that value, to be printed.
        """
        for done in self._runs:
            if (done["optimizer"], done["lr"], done["seed"]) == (optimizer, lr, seed):
                return done
        start = time.perf_counter()
        made = make()
        self._runs.append({"optimizer": optimizer, "lr": lr, "seed": seed, **made})
        write_atomically(self._path, json.dumps({"settings": self._settings, "runs": self._runs}, indent=1) + "\n")
        shown = "  ".join(map(show, made.values()))
        print(f"{optimizer:10s} lr {lr:<8.3g} seed {seed}  {shown}  {time.perf_counter() - start:.0f} s", flush=True)
        return self._runs[-1]
