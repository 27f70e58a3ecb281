"""Runs of other programs at several paths: read, joined where several files are one run, named, and grouped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.study.foreign.files import name_of, read_foreign, says_the_seed_alone
from rl_posttrain.study.foreign.log import Log
from rl_posttrain.study.foreign.names import Named, listed, named_columns
from rl_posttrain.study.foreign.run import ForeignRun
from rl_posttrain.study.foreign.seeds import (
    LOOKED_FOR,
    PROPOSED_GROUP,
    Place,
    group_pattern,
    place_by_pattern,
    places_by_names,
)


@dataclass(frozen=True)
class Foreign:
    """Runs of other programs.

    Attributes:
        runs: by the path that was named.
        left_out: of each path or run that cannot be read, its name and the reason.
        notices: what a reader must know, in sentences.
    """

    runs: dict[Path, list[ForeignRun]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_foreign_runs(
    paths: Sequence[Path],
    *,
    reward_column: str | None = None,
    step_column: str | None = None,
    group: str | None = None,
    folders_are_tasks: bool = False,
) -> Foreign:
    """The runs of other programs at `paths`.

    Args:
        reward_column, step_column: the columns that are reward and step; by default the known names.
        group: a regular expression with a group ``variant`` and perhaps ``seed``, searched in each run's name, or else
            in its path; by default seeds are known by their usual spellings.
        folders_are_tasks: whether runs in different folders are of different tasks, and not of different variants.

    Raises:
        RunError: `group` is no such expression.
    """
    pattern = None if group is None else group_pattern(group)
    found = Foreign()
    logs: list[tuple[Path, Log]] = []
    for path in paths:
        try:
            logs += [(path, log) for log in read_foreign(path)]
        except RunError as error:
            found.left_out.append(str(error))
    read: list[tuple[Path, Log, Named]] = []
    for path, log in _joined(logs):
        try:
            read.append((path, log, named_columns(log, reward_column, step_column)))
        except RunError as error:
            found.left_out.append(str(error))
    found.notices.extend(_notices_on_rewards([named for _, _, named in read]))
    said: dict[str, list[str]] = {}
    for _, log, named in read:
        for notice in named.notices:
            said.setdefault(notice, []).append(log.run)
    found.notices.extend(f"{_some(runs)}: {notice}" for notice, runs in said.items())
    places = _places([log for _, log, _ in read], pattern, folders_are_tasks, found)
    for (path, log, named), place in zip(read, places, strict=True):
        if place is not None:
            run = ForeignRun(log.path, log.run, place.variant, place.seed, named.columns, log.planned_steps, place.task)
            found.runs.setdefault(path, []).append(run)
    return found


def _joined(logs: list[tuple[Path, Log]]) -> list[tuple[Path, Log]]:
    """One log a run: files that share a run are joined, unless both have other values of one metric."""
    joined: list[tuple[Path, Log]] = []
    for path, log in logs:
        for place, (first, before) in enumerate(joined):
            if log.shared is not None and log.shared == before.shared and _agree(before, log):
                both = replace(before, tables=before.tables + log.tables, notices=before.notices + log.notices)
                joined[place] = (first, both)
                break
        else:
            joined.append((path, log))
    names = [log.run for _, log in joined]
    return [
        (path, replace(log, run=f"{name_of(log.path)}-{log.run}"))
        if _has_runs(log) and (names.count(log.run) > 1 or says_the_seed_alone(log.run))
        else (path, log)
        for path, log in joined
    ]


def _has_runs(log: Log) -> bool:
    """Whether a file names the runs that are in it, so that its own name is another."""
    return log.shared is not None and log.shared[0] == "W&B"


def _agree(one: Log, other: Log) -> bool:
    """Whether two logs can be of one run: no metric has two values at one step."""
    for table in one.tables:
        for more in other.tables:
            axis = next(iter(set(table.columns) & set(more.columns) & {"step", "Step"}), None)
            for name in set(table.columns) & set(more.columns) - {axis, "Wall time"}:
                if axis is None or not _same_values(table, more, axis, name):
                    return False
    return True


def _same_values(one, other, axis: str, name: str) -> bool:
    first, second = (
        dict(zip(table.columns[axis].tolist(), table.columns[name].tolist(), strict=True)) for table in (one, other)
    )
    both = [(first[step], second[step]) for step in first.keys() & second.keys()]
    return all(np.array_equal(left, right, equal_nan=True) for left, right in both)


def _notices_on_rewards(read: Sequence[Named]) -> list[str]:
    notices, kinds = [], {}
    for named in read:
        kinds.setdefault((named.reward, named.other_rewards), []).append(named)
    for (reward, others), runs in kinds.items():
        if others:
            also = listed(list(others))
            notices.append(
                f"the reward of {len(runs)} runs is their column {reward}; they have {also}, too (--reward-column)"
            )
    rewards = {named.reward for named in read}
    if len({re.sub(r"^train/", "", reward.strip().lower()) for reward in rewards}) > 1:
        notices.append(f"rewards of different names are compared: {listed(sorted(rewards))}; --reward-column takes one")
    return notices


def _places(
    logs: Sequence[Log], pattern: re.Pattern[str] | None, folders_are_tasks: bool, found: Foreign
) -> list[Place | None]:
    if pattern is not None:
        places = [place_by_pattern(pattern, log.run, log.path.as_posix()) for log in logs]
        for log, place in zip(logs, places, strict=True):
            if place is None:
                found.left_out.append(f"{log.path}: --group finds nothing in its name {log.run!r}, nor in its path")
        return places
    named = places_by_names([log.run for log in logs])
    # A seed that the file itself records counts where the name says none.
    given = [
        place if place.seed is not None else Place(place.variant, log.seed)
        for place, log in zip(named, logs, strict=True)
    ]
    guessed = [log.run for log, place in zip(logs, given, strict=True) if place.guessed]
    if guessed:
        found.notices.append(
            f"the number at the end of {_some(guessed)} is taken as the seed, for the names differ in nothing else; "
            "--group says otherwise"
        )
    without = [log.run for log, place in zip(logs, given, strict=True) if place.seed is None]
    if without and len(logs) > 1:
        found.notices.append(
            f"no seed was found in {_some(without)}: looked for {LOOKED_FOR}; {PROPOSED_GROUP} sets it"
        )
    return given if folders_are_tasks else _by_folder(logs, given)


def _by_folder(logs: Sequence[Log], places: list[Place]) -> list[Place]:
    """Files that name no seed are runs of one variant where they lie in one folder, and others lie in another."""
    folders = {
        index: log.path.resolve().parent
        for index, (log, place) in enumerate(zip(logs, places, strict=True))
        if place.seed is None and not _has_runs(log)
    }
    if 1 < len(set(folders.values())) < len(folders):
        return [
            replace(place, variant=folders[index].name) if index in folders else place
            for index, place in enumerate(places)
        ]
    return places


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
