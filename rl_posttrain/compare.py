"""The same recipe under several optimizers and seeds: what to run, and running what is missing.

Every run is a process of its own (`rl-posttrain train`), so nothing of one reaches the next, and a comparison that was
stopped at any moment goes on where it stood.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe import apply_override, parse_recipe
from rl_posttrain.runs import RunDirectory, write_atomically
from rl_posttrain.schema import OptimizerSection, Recipe

_POLL_S = 0.5
_PATIENCE_S = 60.0  # for a run that was asked to end
_CALL = re.compile(r"(?P<name>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison: its recipe, whose name and folder are already those of this run."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def path(self) -> Path:
        return self.recipe.run_path


def plan_runs(
    recipe: Recipe, optimizers: Sequence[str], seeds: Sequence[int], vary: Sequence[str], folder: Path
) -> list[PlannedRun]:
    """The runs of a comparison, one seed of every variant before the next seed: stopped early, it is still a fair one.

    Args:
        recipe: what all runs share.
        optimizers: names, each with arguments of its own where wanted, as in ``adamw(betas=[0.9,0.95], lr=2e-5)``. What
            the recipe says for its own optimizer alone (betas, for instance) does not go to another one.
        vary: ``key=a,b,c``: every one of these values, with every optimizer.
        folder: where the run directories go.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have, or two variants that are the same.
    """
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds={','.join(map(str, seeds))}: a seed stands there twice; name each once")
    choices = [_values(text) for text in vary]
    variants: dict[str, dict[str, Any]] = {}
    for optimizer in optimizers:
        for chosen in itertools.product(*choices):
            name = _folder_name(" ".join([optimizer, *(f"{key.rpartition('.')[2]}={value}" for key, value in chosen)]))
            if name in variants:
                raise RecipeError(f"--optimizers={optimizer}: two variants are called {name}; name each once")
            variants[name] = recipe.model_dump(mode="json") | {"optimizer": _optimizer_section(recipe, optimizer)}
            for key, value in chosen:
                apply_override(variants[name], f"{key}={value}")
    planned = []
    for seed, (name, data) in itertools.product(seeds, variants.items()):
        run = {"seed": seed, "name": f"{name}-seed{seed}", "output_dir": str(folder)}
        planned.append(PlannedRun(name, seed, parse_recipe(data | {"run": run})))
    return planned


def split_list(text: str) -> list[str]:
    """The parts of ``a,b(c=[1,2]),d`` between commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _values(text: str) -> list[tuple[str, str]]:
    key, separator, values = text.partition("=")
    if not separator or not split_list(values):
        raise RecipeError(f"--vary={text}: it is written key=a,b,c, such as optimizer.lr=1e-6,2e-6")
    return [(key, value) for value in split_list(values)]


def _optimizer_section(recipe: Recipe, text: str) -> dict[str, Any]:
    """The recipe's optimizer section for the optimizer that `text` names."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise RecipeError(f"--optimizers={text}: an optimizer is written name or name(key=value, ...)")
    section = recipe.optimizer.model_dump(mode="json")
    if match["name"] != recipe.optimizer.name:
        section = {key: value for key, value in section.items() if key in OptimizerSection.model_fields}
    data = {"optimizer": section | {"name": match["name"]}}
    for argument in split_list(match["arguments"] or ""):
        apply_override(data, f"optimizer.{argument}")
    return data["optimizer"]


def _folder_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")


class Runner:
    """Runs what is missing of a comparison, `jobs` at a time, each in a process of its own.

    Args:
        runs: as `plan_runs` gives them; finished ones are left alone, broken ones resumed.
        jobs: runs at a time. On a CPU they share its cores.
        num_processes: processes of each run, by torchrun.
    """

    def __init__(self, runs: Sequence[PlannedRun], *, jobs: int = 1, num_processes: int = 1):
        self.runs = list(runs)
        self.failed: dict[Path, str] = {}
        self.running: dict[Path, subprocess.Popen] = {}
        self._jobs, self._num_processes = jobs, num_processes
        self._waiting = [run for run in runs if not is_finished(run)]
        for run in self._waiting:
            _check_unfinished(run)

    def run(self, on_change: Callable[["Runner"], None]) -> None:
        """Return once every run is finished or has failed. Interrupted, it ends its processes, which can be resumed.

        Args:
            on_change: called twice a second and whenever a run begins or ends.
        """
        try:
            while self._waiting or self.running:
                while self._waiting and len(self.running) < self._jobs:
                    planned = self._waiting.pop(0)
                    self.running[planned.path] = self._start(planned)
                on_change(self)
                time.sleep(_POLL_S)
                for path, process in list(self.running.items()):
                    if process.poll() is not None:
                        del self.running[path]
                        if process.returncode:
                            self.failed[path] = _last_words(_log(path), process.returncode)
            on_change(self)
        finally:
            self._end()

    def _start(self, planned: PlannedRun) -> subprocess.Popen:
        """The process of one run, with its output in ``logs/``."""
        folder = planned.path.parent
        for place in ("recipes", "logs"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        file = folder / "recipes" / f"{planned.path.name}.yaml"
        write_atomically(file, planned.recipe.to_yaml())
        start = [sys.executable, "-m"]
        if self._num_processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={self._num_processes}", "-m"]
        start += ["rl_posttrain", "train", str(file)]
        if planned.path.exists():
            run = RunDirectory.open(planned.path)
            if run.last_checkpoint() is None:
                shutil.rmtree(planned.path)  # its steps cannot be gone on from: they are made again
            else:
                start.append("--resume")
        variables = dict(os.environ)
        if self._jobs > 1:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            variables.setdefault("OMP_NUM_THREADS", str(max(1, cores // (self._jobs * self._num_processes))))
        with _log(planned.path).open("a") as log:
            # A session of its own: Ctrl-C reaches this process first, which then ends its runs in order.
            return subprocess.Popen(
                start,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=variables,
                start_new_session=True,
            )

    def _end(self) -> None:
        for process in self.running.values():
            _signal(process, signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        self.running.clear()


def is_finished(planned: PlannedRun) -> bool:
    return planned.path.exists() and RunDirectory.open(planned.path).summary() is not None


def _check_unfinished(planned: PlannedRun) -> None:
    """What stands in a run's place must be that run."""


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _log(path: Path) -> Path:
    return path.parent / "logs" / f"{path.name}.log"


def _last_words(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("rl-posttrain: ") if lines else "it said nothing"
    return f"{said} (status {status}, {log})"
