"""Which columns of a log are its step and its reward; all columns under our names."""

import re
from dataclasses import dataclass

import numpy as np

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.runs.columns import Columns
from rl_posttrain.runs.metrics import our_name
from rl_posttrain.runs.reward_names import CLOCK_NAMES, REWARD_NAMES, STEP_NAMES, RewardName, plain
from rl_posttrain.study.foreign.log import Log, Table, one_row_a_step

_MOST_NAMES, _MOST_CHARACTERS = 12, 200  # of columns in a message
_LIKE_A_REWARD = re.compile(r"reward|return|score", re.IGNORECASE)
_PER_EPISODE = {known.name for known in REWARD_NAMES if known.per_episode}


@dataclass(frozen=True)
class Named:
    """The metrics of a run under our names.

    Attributes:
        reward: the column that was taken as the reward.
        other_rewards: columns that could be it, too.
        notices: what a reader must know, in sentences.
    """

    columns: Columns
    reward: str
    other_rewards: tuple[str, ...]
    notices: list[str]


def named_columns(log: Log, reward_column: str | None, step_column: str | None) -> Named:
    """The metrics of a log, one row a step.

    Args:
        reward_column, step_column: names of columns, where the user gave them.

    Raises:
        RunError: no column, or more than one, fits; or there is no such column.
    """
    names = log.names()
    if not names:
        if log.notices:
            raise RunError(f"{log.path}: nothing in it could be read: {'; '.join(log.notices)}; name a whole file")
        raise RunError(f"{log.path}: no finished step yet, so there is nothing to show; wait for its first step")
    others: tuple[str, ...] = ()
    if reward_column is None:
        reward, others = _known_reward(log, names)
    else:
        reward = _as_given("--reward-column", reward_column, names, log)
    tables, notices, renamed = [], list(log.notices), _our_names(names, reward, step_column)
    steps_of = _step_columns(log, reward, step_column, notices)
    for table, step in zip(log.tables, steps_of, strict=True):
        if step is None:
            continue
        kept = table.recorded[step] & np.isfinite(table.columns[step])
        found = {
            renamed[name]: (column[kept], table.recorded[name][kept])
            for name, column in table.columns.items()
            if name in renamed and name != step
        }
        if reward in table.columns:
            _add_seconds(found, table, kept)
        tables.append((table.columns[step][kept], found))
    averaged = {"reward"} if plain(reward) in _PER_EPISODE else set()
    rows = one_row_a_step(tables, averaged)
    if rows.num_repeated:
        notices.append(
            f"{rows.num_repeated:,} values were logged again for their steps, as by a resumed run; the later ones count"
        )
    return Named(rows.columns, reward, others, notices)


def listed(names: list[str]) -> str:
    """Names of columns, for a message of one line, whatever the file is."""
    shown = ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )
    # ascii, because the file may be of any kind.
    return ascii(shown[:_MOST_CHARACTERS])[1:-1] or "none"


def _as_given(option: str, given: str, names: list[str], log: Log) -> str:
    fitting = [name for name in names if name == given] or [name for name in names if plain(name) == plain(given)]
    if not fitting:
        raise RunError(f"{option}={given}: {log.path} has no such column with a number; {did_you_mean(given, names)}")
    return fitting[0]


def _known_reward(log: Log, names: list[str]) -> tuple[str, tuple[str, ...]]:
    fitting: list[tuple[RewardName, list[str]]] = []
    for usable in ([name for name in names if log.has_numbers(name)], names):
        found = [(known, [name for name in usable if plain(name) == known.name]) for known in REWARD_NAMES]
        fitting = fitting or [(known, columns) for known, columns in found if columns]
    if not fitting:
        metrics = [name for name in names if plain(name) not in STEP_NAMES + CLOCK_NAMES]
        likely = [name for name in metrics if _LIKE_A_REWARD.search(name)] or metrics
        raise RunError(
            f"RUN={log.path}: none of its columns is known as a reward; set --reward-column to one of: {listed(likely)}"
        )
    columns = fitting[0][1]
    if len(columns) > 1:
        raise RunError(
            f"RUN={log.path}: several columns could be the reward: {listed(columns)}; set --reward-column to one"
        )
    # An evaluation's reward beside a training reward is another thing.
    others = (name for known, more in fitting[1:] for name in more if not known.name.startswith("eval"))
    return columns[0], tuple(others)


def _our_names(names: list[str], reward: str, step: str | None) -> dict[str, str]:
    """Our name of every column. The reward's name is for the chosen one alone."""
    renamed = {}
    for name in names:
        ours = our_name(name.strip().removeprefix("train/"))
        renamed[name] = name if ours in ("reward", "step") else ours
    for name in names:
        if plain(name) in (*STEP_NAMES, *CLOCK_NAMES, "reward") or name == step:
            del renamed[name]
    return renamed | {reward: "reward"}


def _step_columns(log: Log, reward: str, step_column: str | None, notices: list[str]) -> list[str | None]:
    """The column of the step in every table; None for a table that has none, and no reward."""
    chosen: list[str | None] = []
    for table in log.tables:
        if step_column is not None:
            names = [name for name, found in table.recorded.items() if found.any()]
            if reward in names or any(plain(name) == plain(step_column) for name in names):
                chosen.append(_as_given("--step-column", step_column, names, log))
            else:
                chosen.append(None)
            continue
        fitting = [name for known in STEP_NAMES for name in table.columns if plain(name) == known]
        if not fitting:
            if reward in table.columns:
                raise RunError(
                    f"RUN={log.path}: none of its columns is known as a step; set --step-column to one of: "
                    f"{listed(list(table.columns))}"
                )
            chosen.append(None)
            continue
        chosen.append(_fullest(log, table, fitting, reward, notices))
    return chosen


def _fullest(log: Log, table: Table, fitting: list[str], reward: str, notices: list[str]) -> str:
    """The first column that has a step wherever there is a reward, or else the one that has the most."""
    rows = table.recorded[reward] if reward in table.columns else np.ones(len(table.columns[fitting[0]]), dtype=bool)
    counts = [int(table.recorded[name][rows].sum()) for name in fitting]
    step = fitting[int(np.argmax(counts))]
    if reward not in table.columns:
        return step
    if lacking := int(rows.sum()) - max(counts):
        notices.append(f"{lacking:,} rows with a reward have no {step}, and were left out")
    both = [name for name in fitting if plain(name) != "_step" and name != step and table.recorded[name][rows].all()]
    if other := [name for name in both if not np.array_equal(table.columns[name][rows], table.columns[step][rows])]:
        notices.append(f"steps are those of {step}; {listed(other)} counts otherwise (--step-column takes it)")
    return step


def _add_seconds(found: dict, table: Table, kept: np.ndarray) -> None:
    """Seconds since the first row, from the time of day, where the log has no seconds of its own."""
    clocks = [name for clock in CLOCK_NAMES for name in table.columns if plain(name) == clock]
    if "seconds" in found or not clocks:
        return
    times, recorded = table.columns[clocks[0]][kept], table.recorded[clocks[0]][kept]
    if recorded.any() and np.nanmin(times) > 1e8:  # else it is no time of day
        found["seconds"] = (times - np.nanmin(times), recorded)
