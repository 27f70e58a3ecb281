"""Runs that are looked at again and again while they go on. Each look reads what was added since the last one."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import Columns
from rl_posttrain.runs.directory import STOPPED_FILE, RunDirectory
from rl_posttrain.runs.growing import GrowingMetrics
from rl_posttrain.runs.lock import is_locked
from rl_posttrain.study.absent import LOCK_FILE, RECIPES_FOLDER
from rl_posttrain.study.histories import Collection, History, read_runs
from rl_posttrain.study.sources import sources_in

_OUR_FILES = ("recipe.yaml", "metrics.jsonl", "summary.json", STOPPED_FILE)
QUIET_S = 600.0
"""A run of another program has ended once nothing was written to it for so long: no lock tells."""


@dataclass(frozen=True)
class Look:
    """Runs at one moment.

    Attributes:
        collection: None before any of them has something to draw.
        waiting: why there is nothing to draw yet.
        running: names of the runs that go on, with those that a living comparison has not begun.
    """

    collection: Collection | None
    waiting: str
    running: frozenset[str]

    def state_of(self, run: History) -> str:
        """``running``, ``finished`` or ``failed``."""
        return "running" if run.name in self.running else run.outcome.word


class Follower:
    """Looks at the runs at some paths, and in folders also at runs that appear later.

    Args:
        paths: as `read_runs` takes them.
        **settings: other arguments of `read_runs`.
    """

    def __init__(self, paths: Iterable[Path | str], **settings: Any):
        self._paths = [Path(path) for path in paths]
        self._settings = settings
        self._growing: dict[Path, GrowingMetrics] = {}
        self._seen: tuple | None = None

    def look(self) -> Look | None:
        """The runs as they are now; None where nothing has changed since the last look.

        Raises:
            RunError: there is nothing to draw and no run goes on that could bring it, or as `read_runs`.
        """
        sources = self._sources()
        alive = self._alive(sources)
        seen = (tuple(alive), tuple(map(_stamp, sources)))
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            collection = read_runs(self._paths, **self._settings, columns_of=self._columns)
        except RunError as error:
            if not alive:
                raise
            return Look(None, str(error), frozenset(path.name for path in alive))
        everything = [*collection.runs, *collection.absent]
        running = {run.name for run in everything if run.path.resolve() in alive or run.outcome.running}
        return Look(collection, "", frozenset(running))

    def _sources(self) -> list[RunDirectory | Path]:
        found = []
        for path in self._paths:
            try:
                found += sources_in(path)
            except RunError:
                if not _has_comparison(path):
                    raise
        return found

    def _columns(self, run: RunDirectory) -> tuple[Columns, tuple[str, ...]]:
        return self._growing.setdefault(run.path.resolve(), GrowingMetrics(run)).read()

    def _alive(self, sources: list[RunDirectory | Path]) -> list[Path]:
        """What goes on, resolved, in order: runs, and folders of comparisons that have runs to begin."""
        runs = [_path(source).resolve() for source in sources if _goes_on(source)]
        comparisons = [path.resolve() for path in self._paths if _has_comparison(path)]
        return sorted({*runs, *comparisons})


def _has_comparison(folder: Path) -> bool:
    """Whether a living comparison runs in the folder."""
    return is_locked(folder / RECIPES_FOLDER / LOCK_FILE)


def _path(source: RunDirectory | Path) -> Path:
    return source if isinstance(source, Path) else source.path


def _goes_on(source: RunDirectory | Path) -> bool:
    if isinstance(source, RunDirectory):
        return source.is_locked()
    written = max((changed for _, changed, _ in _stamp(source)), default=0)
    return time.time() - written / 1e9 < QUIET_S


def _stamp(source: RunDirectory | Path) -> tuple[tuple[int, int, int], ...]:
    """What tells whether the files of a run have changed: size, time in nanoseconds and inode of each."""
    if isinstance(source, RunDirectory):
        files = [source.path / name for name in _OUR_FILES]
    elif source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.is_file())
    else:
        files = [source]
    return tuple(_stat(file) for file in files)


def _stat(file: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(file)
    except OSError:  # it is not there, or no longer
        return (-1, 0, 0)
    return found.st_size, found.st_mtime_ns, found.st_ino
