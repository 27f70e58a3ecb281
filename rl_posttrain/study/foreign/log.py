"""What a reader of a format hands over, and how rows as they were logged become one row a step."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rl_posttrain.runs.columns import Columns, columns_of_arrays


@dataclass(frozen=True)
class Table:
    """Rows in the order in which they were logged.

    Attributes:
        columns: name to (N,) float64, NaN where a row has no number.
        recorded: name to (N,) bool: whether a row has a number, finite or not.
    """

    columns: dict[str, np.ndarray]
    recorded: dict[str, np.ndarray]

    @classmethod
    def full(cls, columns: dict[str, np.ndarray]) -> "Table":
        """A table whose rows have a number in every column."""
        return cls(columns, {name: np.ones(len(column), dtype=bool) for name, column in columns.items()})


@dataclass(frozen=True)
class Log:
    """What a file or a folder says of one run.

    Attributes:
        path: the file or folder.
        run: the run's name.
        tables: the metrics, under the names that the other program gives them.
        shared: what other files of the same run share with this one; None where the run has no other file.
        planned_steps: steps that the run was to make, where the file says so.
        seed: the run's seed, where the file says so.
        notices: what a reader must know, in sentences.
    """

    path: Path
    run: str
    tables: list[Table]
    shared: tuple | None = None
    planned_steps: int | None = None
    seed: int | None = None
    notices: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """The names of all columns in their order; those without any number last."""
        names = list(dict.fromkeys(name for table in self.tables for name in table.columns))
        return sorted(names, key=lambda name: not self.has_numbers(name))

    def has_numbers(self, name: str) -> bool:
        return any(table.recorded[name].any() for table in self.tables if name in table.recorded)


@dataclass(frozen=True)
class Steps:
    """Rows brought to one row a step.

    Attributes:
        columns: as of a run directory.
        num_repeated: rewards whose steps were logged again later, so that they do not count.
    """

    columns: Columns
    num_repeated: int


def one_row_a_step(
    tables: Sequence[tuple[np.ndarray, Mapping[str, tuple[np.ndarray, np.ndarray]]]], averaged: Collection[str]
) -> Steps:
    """One row for each step, in the order of the steps.

    A run that is resumed logs steps again: then the later values count, and what was logged before, from that step on,
    does not. Rows of one step without such a return are one row; the last value counts, or the mean for `averaged`.

    Args:
        tables: of each its steps, (N,) finite, and by name the values (N,), and whether they were recorded (N,). Of two
            tables with the same name the later one counts.
        averaged: names of metrics that a step may log several times, such as the return of each episode.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    repeated = 0
    for steps, columns in tables:
        for name, (values, recorded) in columns.items():
            at, kept = (steps, values) if recorded.all() else (steps[recorded], values[recorded])
            if len(at):
                at, kept, again = _once_a_step(at, kept, name in averaged)
                found.setdefault(name, []).append((at, kept))
                repeated += again if name == "reward" else 0
    if not found:
        return Steps({}, 0)
    known = _union([at for parts in found.values() for at, _ in parts])
    values, recorded = {"step": known}, {"step": np.ones(len(known), dtype=bool)}
    for name, parts in found.items():
        values[name], recorded[name] = np.full(len(known), np.nan), np.zeros(len(known), dtype=bool)
        for at, kept in parts:
            places = slice(None) if len(at) == len(known) else np.searchsorted(known, at)
            values[name][places], recorded[name][places] = kept, True
    return Steps(columns_of_arrays(values, recorded), repeated)


def _once_a_step(steps: np.ndarray, values: np.ndarray, average: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps in order, each once, with its value; and how many values do not count."""
    if (np.diff(steps) > 0).all():
        return steps, values, 0
    number = len(steps)
    known, first, place = np.unique(steps, return_index=True, return_inverse=True)
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    resumed = back[first[place[back]] < back]  # it goes back to a step that was logged before
    if len(resumed):
        kept = steps < lowest_after(resumed, steps[resumed], number)
        steps, values = steps[kept], values[kept]
        known, place = np.unique(steps, return_inverse=True)
    if average:
        return known, np.bincount(place, weights=values) / np.bincount(place), number - len(steps)
    last = np.zeros(len(known), dtype=np.int64)
    np.maximum.at(last, place, np.arange(len(steps)))
    return known, values[last], number - len(known)


def lowest_after(places: np.ndarray, steps: np.ndarray, number: int) -> np.ndarray:
    """Of each of `number` rows the lowest of `steps`, which begin at `places`, that begins after it; else infinity."""
    lowest = np.full(number + 1, np.inf)
    np.minimum.at(lowest, places, steps)
    return np.minimum.accumulate(lowest[::-1])[::-1][1:]


def _union(parts: Sequence[np.ndarray]) -> np.ndarray:
    known = max(parts, key=len)
    for steps in parts:
        if not (steps is known or np.array_equal(steps, known)) and not np.isin(steps, known).all():
            known = np.union1d(known, steps)
    return known
