"""Which rows of a task a run uses: what is held out, what is left out of training, and how many are drawn."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.overlap import keys_among, question_key
from rl_posttrain.tasks.rows import TaskRows

Rows = list[dict[str, Any]]


def in_brackets(notes: Sequence[str]) -> str:
    """What notes say about rows that are not there, in brackets, to put behind a number of rows; "" for nothing."""
    said = [note for note in notes if "left out" in note or "stay" in note]
    return f" ({'; '.join(said)})" if said else ""


@dataclass(frozen=True)
class Selection:
    """What a recipe says about the rows, beside the task's own options.

    Attributes:
        name: of the task's function; with the seed it decides which rows are drawn.
        seed: `run.seed`.
        num_train: rows to train on; None for all.
        num_eval: rows to evaluate on; None for all that the task gives.
        eval_share: share of the training rows to hold out, where the task gives no rows to evaluate on.
        max_overlap: the largest allowed share of the task's eval rows whose questions it also gives to train on.
        taken: those of `num_train` and `num_eval` that the function takes itself: nothing is left to draw.
    """

    name: str
    seed: int
    num_train: int | None
    num_eval: int | None
    eval_share: float | None
    max_overlap: float
    taken: frozenset[str]

    def of(self, rows: TaskRows, *, trained_on: bool) -> TaskRows:
        """The rows of a run. Eval rows depend neither on `num_train` nor on `trained_on`, where some are held out.

        Args:
            rows: as the task's function returns them.
            trained_on: False where a model is only evaluated: then overlaps do not matter, and where nothing is held
                out, all rows are there to evaluate on.

        Raises:
            RecipeError: there are too few rows, or too many of the eval rows are among the training rows.
        """
        if self.eval_share is not None:
            self._check_share(rows)
        eval_rows, note = self._eval_rows(rows, trained_on)
        notes = [note] if note else []
        train = rows.train
        if trained_on and train:
            train, note = self._not_in_eval(train, eval_rows, held_out=not rows.eval)
            notes += [note] if note else []
            if "num_train" not in self.taken:
                number = len(train) if self.num_train is None else self.num_train
                train = self._draw("num_train", number, train, (*rows.notes, *notes))
        if trained_on and rows.train and not train:
            key = next((key for key in ("eval_share", "num_eval") if getattr(self, key) is not None), "max_overlap")
            held_out = 0 if rows.eval else len(eval_rows)
            repeating = len(rows.train) - held_out
            reason = (
                f"{held_out} are held out and {repeating} repeat a question that is"
                if held_out
                else ("all have a question to evaluate on")
            )
            raise RecipeError(
                f"task.{key}={getattr(self, key)}: no row is left to train on: of {len(rows.train)}, {reason}; lower "
                "it, or give more rows"
            )
        return replace(rows, train=train, eval=eval_rows, notes=(*rows.notes, *notes))

    def _check_share(self, rows: TaskRows) -> None:
        reason = None
        if self.num_eval is not None:
            reason = f"task.num_eval={self.num_eval} says it, too; keep one of them"
        elif rows.eval or "num_eval" in self.taken:
            reason = "the task has rows of its own to evaluate on; leave it out, or set task.num_eval"
        if reason:
            raise RecipeError(f"task.eval_share={self.eval_share}: {reason}")

    def _eval_rows(self, rows: TaskRows, trained_on: bool) -> tuple[Rows, str | None]:
        """The rows to evaluate on, and what to say about them."""
        if "num_eval" in self.taken or (rows.eval and self.num_eval is None):
            return rows.eval, None
        if rows.eval:
            return self._draw("num_eval", self.num_eval, rows.eval, rows.notes), None
        held_out = self.num_eval
        if self.eval_share is not None:
            held_out = max(1, round(self.eval_share * len(rows.train)))
        if held_out is not None:
            return self._draw("num_eval", held_out, rows.train, rows.notes), None
        if trained_on:
            return [], "no rows are held out to evaluate on; task.num_eval or task.eval_share would hold some out"
        return rows.train, "no rows are held out: the evaluation is on all of them"

    def _draw(self, option: str, count: int, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> Rows:
        if count > len(rows):
            raise RecipeError(
                f"task.{option}={count}: the task has {len(rows)} rows for it{in_brackets(notes)}; ask for fewer, or "
                "give more rows"
            )
        return random.Random(f"{self.name}/{option.removeprefix('num_')}/{self.seed}").sample(rows, count)

    def _not_in_eval(self, train: Rows, eval_rows: Rows, *, held_out: bool) -> tuple[Rows, str | None]:
        """The training rows without the questions of the eval rows, and what to say about it.

        Args:
            held_out: whether the eval rows were drawn from the training rows: then all of them stand there, by nature.
        """
        found = keys_among(train, eval_rows)
        shared = set(found) - {None}
        if not shared:
            return train, None
        kept = [row for row, key in zip(train, found, strict=True) if key is None]
        num_left_out = len(train) - len(kept)
        if held_out:
            copies = num_left_out - len(eval_rows)
            said = f"{copies} training rows repeat questions that are held out; they are left out"
            return kept, said if copies else None
        in_both = [row for row in eval_rows if question_key(row) in shared]
        said = f"{len(in_both)} of {len(eval_rows)} questions to evaluate on also stand in the training rows"
        if len(in_both) > self.max_overlap * len(eval_rows):
            raise RecipeError(
                f"task.max_overlap={self.max_overlap}: {said}, such as {question_key(in_both[0])[:60]!r}; evaluate on "
                "other rows, or raise max_overlap, which leaves them out of training"
            )
        return kept, f"{said}; {num_left_out} training rows are left out"
