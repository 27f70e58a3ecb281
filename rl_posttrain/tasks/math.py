r"""MATH (arXiv:2103.03874): competition mathematics in five levels; evaluated on MATH-500 (arXiv:2305.20050).

On the hub: DigitalLearningGmbH/MATH-lighteval, 7,500 rows in train, with `problem`, `solution` (the gold in its last
\boxed{}), `level` ("Level 3") and `type`; and HuggingFaceH4/MATH-500, 500 rows in test, with `problem`, `answer`,
`level` (3) and `subject`. MATH-500 is part of MATH's test split, which is not read here. Models of the Qwen2.5 family
have seen MATH-500 (arXiv:2507.10532).
"""

import re
from collections.abc import Iterable
from itertools import chain

from rl_posttrain.tasks.columns import Row
from rl_posttrain.tasks.overlap import without
from rl_posttrain.tasks.published import published_rows
from rl_posttrain.tasks.readers import Record
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import first_split, load_splits
from rl_posttrain.tasks.templates import BOXED_REQUEST


def math(
    *,
    trained_on: bool,
    path: str = "DigitalLearningGmbH/MATH-lighteval",
    eval_path: str = "HuggingFaceH4/MATH-500",
    train_levels: tuple[int, ...] | None = None,
) -> TaskRows:
    """Problems of MATH to train on, without those of MATH-500, and MATH-500 to evaluate on.

    Args:
        trained_on: False where a model is only evaluated: then `path` is not read.
        path: to train on: a data set on the hub, a folder or a file. `qwedsacf/competition_math` has all 12,500
            problems in one split; those of MATH-500 are left out.
        eval_path: to evaluate on, the same.
        train_levels: train on these levels only, of 1 to 5; None for all.

    Returns:
        Rows with `question`, `answer`, `level` (1 to 5, None where it is unknown) and `subject`.
    """
    notes: list[str] = []
    splits = load_splits(eval_path, key="task.eval_path")
    held_out = _rows(first_split(splits, "test", "train"), f"task.eval_path={eval_path}", notes)
    train: list[Row] = []
    if trained_on:
        found = _rows(first_split(load_splits(path), "train"), f"task.path={path}", notes)
        train = without(found, held_out)
        if num_left_out := len(found) - len(train):
            notes.append(f"{num_left_out} training rows are left out: they are among those to evaluate on")
        train = [row for row in train if train_levels is None or row["level"] in train_levels]
    return TaskRows(train, held_out, request=BOXED_REQUEST, notes=tuple(notes))


def _rows(records: Iterable[Record], where: str, notes: list[str]) -> list[Row]:
    records = iter(records)
    first = next(records)
    columns = {"question": "problem", "answer": "answer" if "answer" in first else "solution"}
    optional = {"level": "level", "subject": "subject" if "subject" in first else "type"}
    records = map(_without_unmarked_solution, chain([first], records))
    rows = published_rows(records, where, columns, optional, notes=notes)
    for row in rows:
        digits = re.search(r"\d+", str(row["level"]))
        row["level"] = int(digits[0]) if digits else None
    return rows


def _without_unmarked_solution(record: Record) -> Record:
    """A solution that boxes nothing has no gold that could be told from its text."""
    marked = any(mark in str(record.get("solution")) for mark in (r"\boxed", r"\fbox"))
    return record if marked else record | {"solution": None}
