"""What became of the trainers of a program whose optimizers were swapped: noted in each process, told at the end."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

# The environment of a program whose optimizers are swapped: the name; its options as JSON; a folder for notes, which
# `optim run` reads in the end.
NAME, OPTIONS, NOTES = "RL_POSTTRAIN_OPTIMIZER", "RL_POSTTRAIN_OPTIMIZER_OPTIONS", "RL_POSTTRAIN_OPTIMIZER_NOTES"
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
    """

    trainer: str
    rank: int
    optimizer: str = ""
    trainings: int = 0
    calls: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self._file: Path | None = None
        self._saved_at = 0.0

    @property
    def num_steps(self) -> int:
        return self.steps or self.calls

    def save(self, *, now: bool = True) -> None:
        """Write it where `optim run` reads it, if that runs the program; without `now`, only once in a while.

        The file is whole at any moment: the process may end by a signal. A machine without that folder keeps no note.
        """
        folder = os.environ.get(NOTES)
        if not folder or not os.path.isdir(folder) or not (now or time.monotonic() - self._saved_at > _SAVE_EVERY_S):
            return
        if self._file is None:
            self._file = Path(folder, f"{time.time_ns()}-{os.getpid()}.json")
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        aside.replace(self._file)
        self._saved_at = time.monotonic()


def save_refusal(message: str) -> bool:
    """Keep why this process could not swap, for `optim run` to tell; whether there is a folder for that."""
    folder = os.environ.get(NOTES)
    if not folder or not os.path.isdir(folder):
        return False
    Path(folder, f"{os.getpid()}.refused").write_text(message, encoding="utf-8")
    return True


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
        if not note.trainer:
            told.append(f"optimizer {name} did not reach {note.optimizer}: {_steps(note)} outside of any trainer")
        elif note.num_steps:
            often = f", trained {note.trainings} times" if note.trainings > 1 else ""
            told.append(f"optimizer {name} ran in {note.trainer}: {note.optimizer}, {_steps(note)}{often}")
        else:
            told.append(f"optimizer {name}: {note.trainer} was made and made no step")
    return told if len(told) <= _MOST_LINES else [*told[:_MOST_LINES], f"and {len(told) - _MOST_LINES} more like these"]


def none_ran(name: str, notes: list[Note]) -> str:
    """The error that the optimizer ran nowhere, and why."""
    made = sorted({note.trainer for note in notes if note.trainer})
    others = sorted({note.optimizer for note in notes if not note.trainer})
    if made:
        reason = f"{', '.join(made)} made no step; let it train"
    elif others:
        reason = (
            f"{', '.join(others)} made steps outside of any Trainer of transformers; give that loop an optimizer by "
            "rl_posttrain.optim.build_optimizer"
        )
    else:
        reason = (
            "no Python process that it started on this machine made a Trainer of transformers; import "
            f"rl_posttrain.optim.autoswap in the training script, and set {NAME} where that runs"
        )
    return f"optimizer={name}: it ran in no trainer: {reason}"


def _steps(note: Note) -> str:
    return f"{note.num_steps} step{'s' * (note.num_steps != 1)}"
