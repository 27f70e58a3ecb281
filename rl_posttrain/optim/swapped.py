"""What became of the trainers of a program whose optimizers were swapped: noted in each process, told at the end."""

import functools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rl_posttrain.errors import one_line

# The environment of a program whose optimizers are swapped: the name; its options as JSON; a folder for notes, which
# `optim run` reads in the end.
NAME, OPTIONS, NOTES = "RL_POSTTRAIN_OPTIMIZER", "RL_POSTTRAIN_OPTIMIZER_OPTIONS", "RL_POSTTRAIN_OPTIMIZER_NOTES"
# In that folder: the process that tells in the end, where no `optim run` does. It stays the same through os.exec*.
_OWNER = "owner"
# In that folder, from the start: whoever cannot write a note takes it away, which needs no room on a full disk.
_COMPLETE = "complete"
_SAVE_EVERY_S = 0.2
_MOST_LINES = 20


@dataclass
class Note:
    """A trainer; or, without one, the optimizers of a class that made steps outside of any.

    Attributes:
        trainer: the class of the trainer.
        optimizer: the class that made steps, in full; empty before the first.
        rank: of the process.
        trainings: how often it trained.
        calls: how often the optimizer was called. Under ZeRO that is more than once a step.
        steps: steps that the trainer counted; 0 where it counts none.
        refused: whether it could not be swapped.
    """

    trainer: str
    rank: int
    optimizer: str = ""
    trainings: int = 0
    calls: int = 0
    steps: int = 0
    refused: bool = False

    def __post_init__(self) -> None:
        self._file: Path | None = None
        self._saved_at = 0.0

    @property
    def num_steps(self) -> int:
        return self.steps or self.calls

    @property
    def is_saved(self) -> bool:
        """Whether there is a file of it."""
        return self._file is not None and self._file.exists()

    def save(self, *, now: bool = True) -> None:
        """Write it where the end is told; without `now`, only once in a while. It never raises.

        A machine without that folder keeps no note.
        """
        if now or time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self._file = _keep(json.dumps(asdict(self)), ".json", self._file)
            self._saved_at = time.monotonic()


def save_refusal(message: str) -> bool:
    """Keep why this process could not swap, to be told at the end; whether that could be done. It never raises."""
    return _keep(message, ".refused") is not None


def own_folder() -> Path | None:
    """The folder of notes, if it is this process that tells at the end; without a folder, a new one.

    None where another process tells, or no folder can be made; that is said.
    """
    folder = os.environ.get(NOTES)
    try:
        if folder:
            owner = Path(folder, _OWNER)
            return Path(folder) if owner.exists() and owner.read_text(encoding="utf-8") == str(os.getpid()) else None
        folder = os.environ[NOTES] = tempfile.mkdtemp(prefix="rl-posttrain-")
        Path(folder, _OWNER).write_text(str(os.getpid()), encoding="utf-8")
    except OSError as error:
        log_line(f"no line at the end says which optimizer ran: {one_line(error)}", logging.WARNING)
        return None
    return Path(folder)


def _keep(text: str, ending: str, file: Path | None = None) -> Path | None:
    """Write `text` to a file of the folder of notes, if there is one. Training goes on whatever fails here.

    The file is whole at any moment: the process may end by a signal.

    Returns:
        The file; None if there is none.
    """
    folder = os.environ.get(NOTES)
    if not folder or not os.path.isdir(folder):  # another machine; or the process that tells has ended
        return None
    file = file or Path(folder, f"{time.time_ns()}-{os.getpid()}{ending}")
    aside = file.with_suffix(".new")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            Path(folder, _COMPLETE).unlink(missing_ok=True)
        if os.path.isdir(folder):
            _say_once(f"{NOTES}={folder}: {error.strerror}; the lines at the end may not name every trainer")
        return None
    return file


@functools.cache
def _say_once(line: str) -> None:
    say(line)


def begin_notes(folder: Path) -> None:
    """Prepare a new folder of notes."""
    Path(folder, _COMPLETE).touch()


def are_complete(folder: Path) -> bool:
    """Whether every process could write its notes in a folder that `begin_notes` prepared."""
    return Path(folder, _COMPLETE).exists()


def read_notes(folder: Path) -> tuple[list[Note], list[str]]:
    """The notes of all processes, oldest first, and what they refused."""
    notes = [Note(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]
    refusals = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.refused"))]
    return notes, refusals


def ran_anywhere(notes: Iterable[Note]) -> bool:
    """Whether the optimizer that was asked for made a step in some trainer."""
    return any(note.trainer and note.num_steps for note in notes)


def tell(name: str, notes: list[Note]) -> list[str]:
    """Which optimizer ran in which trainer, a line each.

    Of several processes that train together the first one speaks: of those on this machine, the lowest rank.
    """
    lowest = min((note.rank for note in notes), default=0)
    told = []
    for note in (note for note in notes if note.rank == lowest):
        then = ", then refused" if note.refused else ""
        if not note.trainer:
            told.append(f"optimizer {name} did not reach {note.optimizer}: {_steps(note)} outside of any trainer")
        elif note.num_steps:
            often = f", trained {note.trainings} times" if note.trainings > 1 else ""
            told.append(f"optimizer {name} ran in {note.trainer}: {note.optimizer}, {_steps(note)}{often}{then}")
        elif note.refused:
            told.append(f"optimizer {name}: {note.trainer} was refused")
        else:
            told.append(f"optimizer {name}: {note.trainer} was made and made no step")
    return told if len(told) <= _MOST_LINES else [*told[:_MOST_LINES], f"and {len(told) - _MOST_LINES} more like these"]


def judge(name: str, notes: list[Note], refusals: Sequence[str], *, ended_well: bool) -> str:
    """The error that a program ends with: a refusal, or that the optimizer ran nowhere; empty if it is neither.

    Args:
        ended_well: whether the program itself did; otherwise it has told why nothing ran.
    """
    if refusals:
        return refusals[0]
    return none_ran(name, notes) if ended_well and not ran_anywhere(notes) else ""


def none_ran(name: str, notes: list[Note]) -> str:
    """The error that the optimizer ran nowhere, and why."""
    made = sorted({note.trainer for note in notes if note.trainer})
    others = sorted({note.optimizer for note in notes if not note.trainer})
    if made:
        reason = f"{', '.join(made)} made no step; call its train()"
    elif others:
        reason = (
            f"{', '.join(others)} made steps outside of any Trainer of transformers; give that loop an optimizer by "
            "rl_posttrain.optim.build_optimizer"
        )
    else:
        reason = (
            "no Python process of the program made a Trainer of transformers on this machine; import "
            f"rl_posttrain.optim.autoswap in the training script, and set {NAME} where that runs"
        )
    return f"optimizer={name}: no trainer ran it: {reason}"


def say(line: str) -> None:
    """Print a line of ours beside the program's own output, if that is open."""
    with suppress(OSError, ValueError):
        print(f"rl-posttrain: {line}", file=sys.stderr, flush=True)


def _steps(note: Note) -> str:
    return f"{note.num_steps} step{'s' * (note.num_steps != 1)}"


def log_line(line: str, level: int = logging.INFO) -> None:
    """Log so that the line is seen: Python shows no INFO unless a script sets logging up."""
    logger = logging.getLogger("rl_posttrain")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.log(level, line)
