"""The same recipe under several optimizers and seeds: what to run, and running what is missing.

Every run is a process of its own (`rl-posttrain train`), so nothing of one reaches the next, and a comparison that was
stopped at any moment goes on where it stood.
"""

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.histories import NO_OTHER_TASK, NO_VARIANT
from rl_posttrain.recipe import apply_override, derive_sizes, parse_recipe, recipe_change
from rl_posttrain.runs import RunDirectory, write_atomically
from rl_posttrain.schema import CompareSection, OptimizerSection, Recipe

_POLL_S = 0.5
_PATIENCE_S = 60.0  # for a run that was asked to end
_CALL = re.compile(r"(?P<name>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a comparison: its recipe, whose name and folder are already those of this run."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def path(self) -> Path:
        return self.recipe.run_path

    @property
    def num_steps(self) -> int:
        return self.recipe.algorithm.num_steps

    def directory(self) -> RunDirectory | None:
        """Its run directory; None before it has begun."""
        return RunDirectory(self.path) if (self.path / "recipe.yaml").is_file() else None

    def is_finished(self) -> bool:
        run = self.directory()
        return run is not None and run.summary() is not None

    def steps_done(self) -> int:
        run = self.directory()
        row = run.last_row() if run else None
        return row["step"] if row else 0


def read_plan(
    recipe: Recipe, *, optimizers: str | None, seeds: str | None, vary: Sequence[str]
) -> tuple[list[str], list[int], list[dict[str, Any]]]:
    """Optimizers, seeds and settings: those of the command line, else those of the recipe's ``compare`` section.

    Args:
        optimizers, seeds: lists with commas, or None.
        vary: ``key=a,b,c`` each; several make every combination, also with the settings of the recipe.

    Raises:
        RecipeError: one of them is not written as it should be.
    """
    section = recipe.compare or CompareSection()
    numbers = None if seeds is None else split_list(seeds)
    if numbers is not None and not (numbers and all(seed.isascii() and seed.isdigit() for seed in numbers)):
        raise RecipeError(f"--seeds={seeds}: seeds are whole numbers with commas, such as 0,1,2")
    names = list(section.optimizers) if optimizers is None else split_list(optimizers)
    if not names:
        raise RecipeError(f"--optimizers={optimizers}: no name in it; such as adams,adamw")
    settings = list(section.vary) or [{}]
    for text in vary:
        key, separator, values = text.partition("=")
        if not separator or not split_list(values):
            raise RecipeError(f"--vary={text}: it is written key=a,b,c, such as optimizer.lr=1e-6,2e-6")
        settings = [setting | {key: yaml.safe_load(value)} for setting in settings for value in split_list(values)]
    for key in dict.fromkeys(key for setting in settings for key in setting):
        _check_varied(key)
    return (
        names,
        list(section.seeds) if numbers is None else [int(seed) for seed in numbers],
        settings,
    )


def plan_runs(
    recipe: Recipe,
    optimizers: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[Mapping[str, Any]],
    folder: Path,
    num_processes: int = 1,
) -> list[PlannedRun]:
    """The runs of a comparison, one seed of every variant before the next seed: stopped early, it is still a fair one.

    Args:
        recipe: what all runs share.
        optimizers: names, each with arguments of its own where wanted, as in ``adamw(betas=[0.9,0.95], lr=2e-5)``. What
            the recipe says for its own optimizer alone (betas, for instance) does not go to another one.
        settings: recipe keys and their values, each one more variant of every optimizer; one empty mapping for none.
        folder: where the run directories go.

    Raises:
        RecipeError: an optimizer, key or value that a recipe cannot have, or two variants or seeds that are the same.
    """
    from rl_posttrain.optim import optimizer_class_and_arguments

    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds={','.join(map(str, seeds))}: a seed stands there twice; name each once")
    variants: dict[str, dict[str, Any]] = {}
    for optimizer, setting in itertools.product(optimizers, settings):
        name, opening, arguments = optimizer.partition("(")
        words = [name.rpartition(":")[2], opening + arguments]  # of one's own class, the class and not where it is
        words += [f"{key.rpartition('.')[2]}={value}" for key, value in setting.items()]
        name = re.sub(r"[^A-Za-z0-9._]+", "-", " ".join(words)).strip("-._")
        if name in variants:
            raise RecipeError(f"--optimizers={optimizer}: two variants are called {name}; name each once")
        data = recipe.model_dump(mode="json") | {"optimizer": _optimizer_section(recipe, optimizer), "compare": None}
        for key, value in setting.items():
            apply_override(data, f"{key}={yaml.safe_dump(value, default_flow_style=True)}")
        variants[name] = data
    planned = []
    for seed, (name, data) in itertools.product(seeds, variants.items()):
        run = {"seed": seed, "name": f"{name}-seed{seed}", "output_dir": str(folder)}
        planned.append(PlannedRun(name, seed, parse_recipe(data | {"run": run})))
    for run in planned[: len(variants)]:  # what can be wrong with a variant shows before hours of running
        derive_sizes(run.recipe, num_processes)
        section = run.recipe.optimizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arguments that are dubious and not wrong
            optimizer_class_and_arguments(
                section.name, lr=section.lr, weight_decay=section.weight_decay, options=section.options
            )
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


def _check_varied(key: str) -> None:
    """Fail where runs that differ in `key` would be no variants that can be judged beside each other.

    Raises:
        RecipeError: it names the run, what is kept or shown of it, or what is rewarded.
    """
    section = key.partition(".")[0]
    if f"{section}." in NO_VARIANT or section in NO_VARIANT:
        raise RecipeError(f"--vary={key}: it changes nothing that is learned, so it makes no variants; leave it out")
    if section in ("task", "rewards") and key not in NO_OTHER_TASK:
        raise RecipeError(
            f"--vary={key}: it changes what is rewarded, so the rewards could not be compared; compare each on its own"
        )


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


class Runner:
    """Runs what is missing of a comparison, `jobs` at a time, each in a process of its own.

    Args:
        runs: as `plan_runs` gives them; finished ones are left alone, broken ones resumed.
        jobs: runs at a time. On a CPU they share its cores; GPUs are dealt out in turn.
        num_processes: processes of each run, by torchrun.
        devices: names of the GPUs that there are.

    Raises:
        RunError: what stands in a run's place was made with another recipe.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], *, jobs: int = 1, num_processes: int = 1, devices: Sequence[str] = ()
    ):
        self.runs = list(runs)
        self.failed: dict[str, str] = {}  # name of a run to what it said last
        self.running: dict[PlannedRun, subprocess.Popen] = {}
        self.waiting = [run for run in runs if not run.is_finished()]
        self._num_processes, self._devices = num_processes, list(devices)
        self._jobs = max(1, min(jobs, len(self.waiting)))
        self._slots = list(range(self._jobs))
        self._slot_of: dict[PlannedRun, int] = {}
        for run in runs:
            _check_place(run)

    def run(self, on_change: Callable[["Runner"], None]) -> None:
        """Return once every run is finished or has failed. Interrupted, it ends its processes, which can be resumed.

        Args:
            on_change: called twice a second.
        """
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while self.waiting or self.running:
                while self.waiting and self._slots:
                    planned = self.waiting.pop(0)
                    if not planned.is_finished():  # by another process, meanwhile
                        self._open(planned)
                on_change(self)
                time.sleep(_POLL_S)
                for planned, process in list(self.running.items()):
                    if process.poll() is not None:
                        self._close(planned, process.returncode)
            on_change(self)
        finally:
            self._end()
            signal.signal(signal.SIGTERM, previous)

    def _open(self, planned: PlannedRun) -> None:
        self._slot_of[planned] = self._slots.pop(0)
        try:
            self.running[planned] = self._start(planned)
        except RunError as error:
            self._slots.append(self._slot_of.pop(planned))
            self.failed[planned.path.name] = str(error)

    def _close(self, planned: PlannedRun, status: int) -> None:
        del self.running[planned]
        self._slots.append(self._slot_of.pop(planned))
        if status:
            self.failed[planned.path.name] = _last_words(_log(planned), status)
        else:
            RunDirectory.open(planned.path).drop_checkpoints()  # it is finished; nothing goes on from them

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
        run = planned.directory()
        if run is not None and run.last_checkpoint() is None:
            with run.locked():
                shutil.rmtree(run.path)  # its steps cannot be gone on from: they are made again
        elif run is not None:
            start.append("--resume")
        with _log(planned).open("a") as log:
            return subprocess.Popen(
                start,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._variables(self._slot_of[planned]),
                # A session of its own: Ctrl-C reaches this process alone, which then ends its runs in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _variables(self, slot: int) -> dict[str, str]:
        """What keeps runs at the same time out of each other's way."""
        if self._jobs == 1:
            return {}
        number = self._num_processes
        if len(self._devices) >= number:
            own = [self._devices[(slot * number + place) % len(self._devices)] for place in range(number)]
            return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // (self._jobs * number))
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}

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


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return named.split(",")[:number] if named else [str(index) for index in range(number)]


def _check_place(planned: PlannedRun) -> None:
    run = planned.directory()
    if run is None:
        return
    changed = recipe_change(parse_recipe(run.recipe()), planned.recipe)
    if changed:
        raise RunError(
            f"{changed}: {planned.path} was run otherwise, and a comparison does not mix the two; set another --out"
        )


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """In the new process: end when the comparison is killed, or it would write beside the next one's run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _log(planned: PlannedRun) -> Path:
    return planned.path.parent / "logs" / f"{planned.path.name}.log"


def _last_words(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("rl-posttrain: ") if lines else "it said nothing"
    return f"{said} (status {status}, {log})"
