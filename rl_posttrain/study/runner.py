"""Running the missing runs of a comparison.

Every run is a process of its own (`rl-posttrain train`), so no run can change another, and a comparison that was
stopped at any moment continues where it was.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.machine.process import num_cores
from rl_posttrain.machine.signals import handled
from rl_posttrain.recipe.changes import recipe_changes
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import write_atomically
from rl_posttrain.runs.lock import try_lock
from rl_posttrain.study.absent import LOCK_FILE, RECIPES_FOLDER
from rl_posttrain.study.plan import PlannedRun

LOGS_FOLDER = "logs"
_POLL_S = 0.5
_PATIENCE_S = 60.0  # how long a run has to end after it was asked to
_PATIENT_TORCHRUN = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(_PATIENCE_S))}
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Runner:
    """Runs the missing runs of a comparison, `jobs` at the same time, each in a process of its own.

    Args:
        runs: as `plan_runs` gives them. Finished ones are not run again, nor those that a guard has stopped; those with
            a checkpoint are resumed, and those without one restart.
        jobs: runs at the same time. On a CPU they share its cores; GPUs are divided among them.
        num_processes: processes of each run, started with torchrun.
        devices: names of the GPUs of this machine.

    Raises:
        RunError: a run's directory exists and has another recipe.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], *, jobs: int = 1, num_processes: int = 1, devices: Sequence[str] = ()
    ):
        self.runs = list(runs)
        self.failed: dict[str, str] = {}  # name of a run to what it said last
        self.running: dict[PlannedRun, subprocess.Popen] = {}
        self.waiting = [run for run in runs if not run.is_finished()]
        for run in list(self.waiting):
            if (said := _stopped_by_a_guard(run)) is not None:
                self.failed[run.path.name] = said
                self.waiting.remove(run)
        self._num_processes, self._devices = num_processes, list(devices)
        self._jobs = max(1, min(jobs, len(self.waiting)))
        self._slots = list(range(self._jobs))
        self._slot_of: dict[PlannedRun, int] = {}
        for run in runs:
            _check_place(run)

    def run(self, on_change: Callable[["Runner"], None]) -> None:
        """Run until every run is finished or has failed. At a signal, end the processes; they can be resumed.

        Args:
            on_change: called twice a second.
        """
        with handled() as stop, self._ending(), self._plan_on_disk():
            while self.waiting or self.running:
                while self.waiting and self._slots:
                    planned = self.waiting.pop(0)
                    if not planned.is_finished():  # another process may have finished it
                        with stop.deferred(""):  # a signal must not come between the start of a run and its record
                            self._open(planned)
                        stop.check()
                on_change(self)
                time.sleep(_POLL_S)
                for planned, process in list(self.running.items()):
                    if process.poll() is not None:
                        self._close(planned, process.returncode)
            on_change(self)

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
            RunDirectory.open(planned.path).drop_checkpoints()  # a finished run is never resumed

    def _start(self, planned: PlannedRun) -> subprocess.Popen:
        """Start one run; its output goes into ``logs/``."""
        file = _recipe_file(planned)
        start = [sys.executable, "-m"]
        if self._num_processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={self._num_processes}", "-m"]
        start += ["rl_posttrain", "train", str(file), "--auto-resume"]
        with _log(planned).open("a") as log:
            return subprocess.Popen(
                start,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | _PATIENT_TORCHRUN | self._variables(self._slot_of[planned]),
                # In a session of its own a run does not receive Ctrl-C; this process ends its runs in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _variables(self, slot: int) -> dict[str, str]:
        """The environment variables that give each run at the same time its own GPUs or cores."""
        if self._jobs == 1:
            return {}
        number = self._num_processes
        if len(self._devices) >= number:
            own = [self._devices[(slot * number + place) % len(self._devices)] for place in range(number)]
            return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
        threads = max(1, num_cores() // (self._jobs * number))
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}

    @contextlib.contextmanager
    def _plan_on_disk(self) -> Iterator[None]:
        """Write the recipe of each run before the first one starts: a report later knows which runs never began.

        A lock says, until the comparison has ended, that they may still begin.
        """
        write_recipes(self.runs)
        with contextlib.ExitStack() as locks:
            for folder in {_recipe_file(planned).parent for planned in self.runs}:
                try_lock(locks.enter_context((folder / LOCK_FILE).open("a")))
            yield

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Afterwards no run is left; those that still train write a checkpoint first."""
        try:
            yield
        finally:
            self._end()

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


def write_recipes(runs: Sequence[PlannedRun]) -> None:
    """Write what each run is started with, and make the folders of recipes and logs."""
    for planned in runs:
        for folder in (_recipe_file(planned).parent, _log(planned).parent):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(_recipe_file(planned), planned.recipe.to_yaml())


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, in the form of CUDA_VISIBLE_DEVICES."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return named.split(",")[:number] if named else [str(index) for index in range(number)]


def _check_place(planned: PlannedRun) -> None:
    run = planned.directory()
    if run is None:
        return
    changed = recipe_changes(parse_recipe(run.recipe()), planned.recipe)
    if changed:
        raise RunError(f"{changed[0]}: {planned.path} was trained with another recipe; set another --out")


def _stopped_by_a_guard(planned: PlannedRun) -> str | None:
    """What a guard saw that has stopped the run: with the same recipe it would stop again. None if none did."""
    run = planned.directory()
    stopped = run.stopped() if run is not None else None
    if stopped is None:
        return None
    return (
        f"guards.{stopped['guard']}={stopped['policy']}: at step {stopped['step']} {stopped['saw']} (remove "
        f"{planned.path} to train it again)"
    )


def _die_with_parent() -> None:
    """In the new process: end when the comparison is killed. Else the next comparison would write into the same run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _recipe_file(planned: PlannedRun) -> Path:
    return planned.path.parent / RECIPES_FOLDER / f"{planned.path.name}.yaml"


def _log(planned: PlannedRun) -> Path:
    return planned.path.parent / LOGS_FOLDER / f"{planned.path.name}.log"


def _last_words(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("rl-posttrain: ") if lines else "it printed nothing"
    return f"{said} (status {status}, {log})"
