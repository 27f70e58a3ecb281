"""A run's directory at the start of training: new, resumed, or rewound to its checkpoint."""

import contextlib
import itertools
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rl_posttrain.errors import RlPosttrainError, RunError
from rl_posttrain.machine.process import is_main_process, world_size
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.commands import resume_command
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.runs.files import read_json_lines
from rl_posttrain.runs.goals import best_row, reached
from rl_posttrain.runs.manifest import ROWS_FILE, find_damage, is_checkable
from rl_posttrain.training.inputs import Inputs, compare_inputs

_NETWORK_DISK_S = 5.0  # until another machine sees a new file


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        checkpoint: to continue from; None: the beginning.
        rows: of metrics.jsonl, of the steps that the checkpoint has behind it.
        notes: what the user has to know, a line each.
    """

    checkpoint: Path | None = None
    rows: Sequence[dict] = ()
    notes: Sequence[str] = ()

    @property
    def step(self) -> int:
        return checkpoint_step(self.checkpoint) if self.checkpoint else 0


def open_run(recipe: Recipe, resume: bool, inputs: Inputs) -> RunDirectory:
    """The run's directory.

    Args:
        inputs: what a new run would be fed.

    Raises:
        RunError: a new run whose directory exists; or a run to resume that is missing, cannot go on with this number
            of processes, or is finished and has lost rows.
    """
    if not resume:
        if not is_main_process():
            return RunDirectory(recipe.run_path)
        if RunDirectory.is_at(recipe.run_path):
            _refuse_existing(recipe, RunDirectory(recipe.run_path), inputs)
        return RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml())
    run = RunDirectory.open(recipe.run_path)
    _check_processes(recipe, run)
    if (summary := run.summary()) is not None:
        steps = [row.get("step") for row in run.metrics()]
        number = summary.get("steps", len(steps))
        if steps != list(range(1, number + 1)):
            raise RunError(
                f"{run.metrics_path}: it has not every row of the {number} steps of this finished run; "
                "restore it, or delete summary.json and resume, which takes them from the last checkpoint"
            )
    return run


def _refuse_existing(recipe: Recipe, run: RunDirectory, inputs: Inputs) -> NoReturn:
    """Say what the directory of a new run already has, and propose `--resume` only where it would be taken."""
    if run.summary() is not None:
        raise RunError(f"run.name={run.name}: {run.path} is a finished run; set another run.name")
    try:
        _check_processes(recipe, run)
        compare_inputs(run, recipe, inputs, ())
        with run.locked():
            pass
    except RlPosttrainError as error:
        reason = str(error).partition(";")[0]
        raise RunError(
            f"run.name={run.name}: {run.path} is an unfinished run that this command cannot go on with ({reason}); "
            "set another run.name"
        ) from None
    raise RunError(
        f"run.name={run.name}: {run.path} is an unfinished run; continue it with --resume, or set another run.name"
    )


def _other_number(run: RunDirectory) -> str | None:
    """How the number of processes differs from that of the run; None where it does not."""
    before, now = run.environment().get("num_processes", world_size()), world_size()
    return None if before == now else f"it was started on {before} process{'es' * (before > 1)}, not {now}"


def _check_processes(recipe: Recipe, run: RunDirectory) -> None:
    """Fail where a run cannot be resumed with this number of processes.

    Under plain PyTorch every process has the whole state, and of FSDP2's files each reads the rows that it needs.
    DeepSpeed's have a part of the state for each process.
    """
    said = _other_number(run)
    if said is None or (recipe.distributed.engine != "deepspeed" and not recipe.run.deterministic):
        return
    reason = "DeepSpeed keeps the optimizer's state by process"
    if recipe.run.deterministic:
        reason = "run.deterministic=true, and sums over another number of processes are rounded otherwise"
    raise RunError(f"run.name={run.name}: {said} ({reason}); resume it with: {resume_command(run)}")


def find_start(recipe: Recipe, run: RunDirectory) -> Start:
    """The newest checkpoint of a run to resume that is whole, and the rows of its steps. Every process reads all of it.

    Raises:
        RunError: another process trains the run, or no checkpoint is whole; or rows are missing of which the
            checkpoint has no copy.
    """
    with run.locked() if is_main_process() else contextlib.nullcontext():
        notes: list[str] = []
        if recipe.distributed.engine != "deepspeed" and (said := _other_number(run)):
            notes.append(f"{said}: sums are rounded otherwise from here on")
        checkpoint = _newest_whole(run, notes)
        rows = _rows(run, checkpoint, notes) if checkpoint else []
    if checkpoint is None:
        done = len(run.metrics())
        keys = recipe.checkpoint.without_checkpoints
        because = f" ({keys})" if keys else ", it ended before the first one"
        again = f"; the {done} step{'s' * (done > 1)} that it had will be made again" if done else ""
        notes.append(f"{run.name} has no checkpoint{because}: it starts at step 0{again}")
    return Start(checkpoint, rows, notes)


def _newest_whole(run: RunDirectory, notes: list[str]) -> Path | None:
    """The newest checkpoint without damage; `notes` gets a line of each newer one, and if it cannot be checked."""
    damaged = []
    for folder in reversed(run.checkpoint_folders()):
        if damage := find_damage(folder) or _of_another_step(folder):
            damaged.append(f"{folder.name}: {damage}")
            continue
        notes += [f"passed over {said}" for said in damaged]
        if not is_checkable(folder):
            notes.append(f"{folder.name} was written before checkpoints had checksums: damage in it would not be seen")
        return folder
    if damaged:
        raise RunError(
            f"run.name={run.name}: no checkpoint of {run.path} is whole ({'; '.join(damaged)}); restore one, "
            "or set another run.name"
        )
    return None


def _of_another_step(folder: Path) -> str | None:
    """What to say of a whole checkpoint that has another step's name."""
    copy = folder / ROWS_FILE
    rows = read_json_lines(copy) if copy.is_file() else []
    if not rows or rows[-1].get("step") == checkpoint_step(folder):
        return None
    return f"it is the checkpoint of step {rows[-1].get('step')} under another name"


def _rows(run: RunDirectory, checkpoint: Path, notes: list[str]) -> list[dict]:
    """The rows up to the checkpoint: its own copy, which is checked; before there were copies those of the run."""
    step, copy = checkpoint_step(checkpoint), checkpoint / ROWS_FILE
    if copy.is_file():
        rows, source = read_json_lines(copy), copy
        written = copy.read_bytes()
        found = run.metrics_path.read_bytes() if run.metrics_path.is_file() else b""
        if not found.startswith(written):
            pairs = zip(found.splitlines(), written.splitlines(), strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            notes.append(
                f"{run.metrics_path.name} lacks row {same + 1} as it was written: rows 1 to {step} are taken from "
                f"{checkpoint.name}"
            )
    else:
        rows, source = [row for row in run.metrics() if row.get("step", 0) <= step], run.metrics_path
    if [row.get("step") for row in rows] != list(range(1, step + 1)):
        raise RunError(
            f"{source}: it has not one row for each of the {step} steps before {checkpoint.name}; restore it, or set "
            "another run.name"
        )
    return rows


def check_same_folder(run: RunDirectory) -> None:
    """Whether all processes see the main one's folder; called by all of them, once they can speak to each other.

    Each writes its part of a checkpoint there, and reads it from there when the run goes on.

    Raises:
        RunError: one does not.
    """
    from accelerate.utils import gather_object

    from rl_posttrain.training.agree import of_main_process

    def make() -> Path:
        file = run.path / f".seen-{secrets.token_hex(8)}"
        file.touch()
        return file

    file = of_main_process(make)
    own = run.path / file.name
    until = time.monotonic() + _NETWORK_DISK_S
    while not own.exists() and time.monotonic() < until:
        time.sleep(0.05)
    blind = sorted({place for place in gather_object([None if own.exists() else socket.gethostname()]) if place})
    if is_main_process():
        file.unlink()
    if blind:
        raise RunError(
            f"run.output_dir={file.parent.parent}: {', '.join(blind)} does not see the folder that the main process "
            "has there; set it to a folder that all machines share"
        )


def check_same_start(start: Start) -> None:
    """Compare what the processes of a run found; called by all of them, once they can speak to each other.

    Raises:
        RunError: a disk showed them different checkpoints.
    """
    from accelerate.utils import gather_object

    names = sorted({folder.name if folder else "no checkpoint" for folder in gather_object([start.checkpoint])})
    if len(names) > 1:
        raise RunError(f"--resume: the processes start from {' and '.join(names)}; see whether all see the same files")


def check_same_device(recipe: Recipe, run: RunDirectory, device: str) -> list[str]:
    """Compare the device with the one that a run to resume was started on.

    Args:
        device: of this process, in words; on a CPU with its number of threads.

    Returns:
        Notes for the user.

    Raises:
        RunError: it is another one, and the recipe asks for a deterministic run.
    """
    before = run.environment().get("device", device)
    if before == device:
        return []
    if recipe.run.deterministic:
        raise RunError(
            f"run.deterministic=true: {run.path} was started on {before}, and this is {device}, which rounds "
            "otherwise; resume it on such a device with as many threads (OMP_NUM_THREADS)"
        )
    return [f"started on {before}, resumed on {device}: sums may be rounded otherwise than in a run without a stop"]


def is_over(recipe: Recipe, start: Start) -> bool:
    """Whether no step follows the start: it is after the last, or after one that reached `algorithm.stop_at`."""
    if start.step >= recipe.algorithm.num_steps:
        return True
    return bool(start.rows) and reached(recipe.algorithm.stop_at, start.rows[-1])


def rewind(recipe: Recipe, run: RunDirectory, start: Start, note: Callable[[str], None]) -> None:
    """Drop what a stopped process recorded after its checkpoint: the resumed run makes these steps again.

    Which checkpoint is the best follows from what is left: the process may have been stopped before it said so, and the
    best may be damaged. Called by the main process alone.

    Args:
        note: called with a line for the user about each best checkpoint that is damaged.
    """
    run.rewind(start.step, start.rows)
    if (keep_best := recipe.checkpoint.keep_best) is None:
        return
    kept = {checkpoint_step(folder): folder for folder in run.checkpoints()}
    while best := best_row(keep_best.metric, keep_best.mode, start.rows, kept):
        folder = kept.pop(best["step"])
        damage = find_damage(folder) if folder != start.checkpoint else None
        if damage is None:
            break
        note(f"the best checkpoint is lost: {folder.name}: {damage}")
    run.write_best(best)
