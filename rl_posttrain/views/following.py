"""What `curves --follow` shows while runs go on: a live view in a terminal, else a line now and then."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_posttrain.errors import RunError, did_you_mean
from rl_posttrain.runs.metrics import METRICS, find_metric
from rl_posttrain.runs.picture import COLOURS
from rl_posttrain.study.following import Follower, Look
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.views.terminal import plot
from rl_posttrain.views.text import printable

LOOK_S, WATCH_S = 2.0, 10.0
SAY_S = 60.0
_SHORTEST_SLEEP_S = 0.1
# A look may take this share of the time at most: long runs are looked at less often.
_BUSY = 0.25
_STYLES = {"running": "cyan", "finished": "green", "failed": "red"}


def looks(follower: Follower, every_s: float = LOOK_S) -> Iterator[Look]:
    """The runs whenever something has changed, until none goes on any more.

    Whoever iterates works in between; the longer that takes, the rarer the looks are.
    """
    while True:
        started = time.monotonic()
        look = follower.look()
        if look is not None:
            yield look
            if not look.running:
                return
        took = time.monotonic() - started
        until = started + max(every_s, took / _BUSY)
        while time.monotonic() < until:  # in short parts, so that Ctrl-C is heard
            time.sleep(_SHORTEST_SLEEP_S)


def follow_curves(
    follower: Follower, *, keys: Sequence[str], axis: str, smoothing: int, every_run: bool, console: Console
) -> Collection:
    """Show runs until none goes on; returns them as they are then.

    Args:
        keys, axis, smoothing, every_run: as `print_curves` takes them. A run that has not recorded a key yet is left
            out of its plot.

    Raises:
        RunError: there is nothing to follow, or no run recorded a key that is no known metric either.
    """
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    said = _Lines(console)
    with live or nullcontext():
        for look in looks(follower):
            if look.collection is not None:
                for key in keys:
                    _refuse_unknown(key, look.collection)
            if live is None:
                said.show(look)
                continue
            plots = [_plot_if_any(look, key, axis, smoothing, every_run, console) for key in keys]
            view = Group(_heading(look), *itertools.chain(*plots), _table(look, console.height))
            live.update(view, refresh=True)
    return look.collection


def watched(
    follower: Follower, write: Callable[[Collection], Path], console: Console, every_s: float = WATCH_S
) -> Collection:
    """Write a page whenever runs have changed, with a line for each writing; returns the runs when all have ended.

    Args:
        write: makes the page of some runs, and returns it. It is not called for the last ones, which are returned.
        every_s: seconds between two looks, at least.

    Raises:
        RunError: there is nothing to watch.
    """
    for look in looks(follower, every_s):
        if look.running:
            page = write(look.collection) if look.collection else None
            line = f"{time.strftime('%H:%M:%S')}  {page or 'no page yet'}  {_counts(look) or look.waiting}"
            console.print(Text(printable(line)), soft_wrap=True)
    return look.collection


def _plot_if_any(look: Look, key: str, axis: str, smoothing: int, every_run: bool, console: Console) -> list[Text]:
    """The plot of the runs that recorded `key`; a line for each run while there are colours for all.

    The mean of a variant is that of its finished runs, which would hide the others.
    """
    runs = look.collection.runs if look.collection else []
    recorded = [run for run in runs if len(run.points(key, axis)[0])]
    if recorded:
        shown, single = replace(look.collection, runs=recorded), every_run or len(recorded) <= len(COLOURS)
        try:
            return [*plot(shown, key, axis=axis, smoothing=smoothing, every_run=single, console=console), Text()]
        except RunError as error:
            return [Text(str(error), "yellow"), Text()]
    return [Text(f"{key}: no run has recorded it yet", "yellow"), Text()]


def _refuse_unknown(key: str, collection: Collection) -> None:
    if find_metric(key) is None and not any(key in run.columns for run in collection.runs):
        known = {metric.name for metric in METRICS} | {name for run in collection.runs for name in run.columns}
        raise RunError(f"--key={key}: no run has recorded it, and no metric has this name; {did_you_mean(key, known)}")


def _heading(look: Look) -> Text:
    return Text(_counts(look) or printable(look.waiting), "bold")


def _counts(look: Look) -> str:
    if look.collection is None:
        return ""
    words = [look.state_of(run) for run in [*look.collection.runs, *look.collection.absent]]
    return ", ".join(f"{words.count(word)} {word}" for word in _STYLES if word in words)


def _table(look: Look, height: int) -> Table:
    """A line for each run; where there are more than the terminal has lines, those that go on come first."""
    table = Table.grid(padding=(0, 2))
    if look.collection is None:
        return table
    runs = sorted([*look.collection.runs, *look.collection.absent], key=lambda run: look.state_of(run) != "running")
    most = max(4, height - 22)
    for run in runs[:most]:
        word = look.state_of(run)
        table.add_row(Text(run.name), Text(word, _STYLES[word]), Text(_progress(run, word)))
    if len(runs) > most:
        table.add_row(Text(f"and {len(runs) - most} more"))
    return table


def _progress(run: History, word: str) -> str:
    if not isinstance(run, History):
        return run.outcome.reason
    reward = run.points("reward")[1][-5:].mean()
    step = f"step {run.columns['step'][-1]:g}/{'?' if run.plan_is_guessed else run.num_planned or '?'}"
    why = f"   {run.outcome.reason}" if word == "failed" else ""
    return f"{step}   reward {reward:.3f}{why}"


class _Lines:
    """For what is no terminal: a line when a run appears or ends, and now and then one for each that goes on."""

    def __init__(self, console: Console):
        self._console = console
        self._said: dict[str, tuple[str, float]] = {}

    def show(self, look: Look) -> None:
        if look.collection is None:
            self._say("", "waiting", look.waiting)
            return
        for run in [*look.collection.runs, *look.collection.absent]:
            word = look.state_of(run)
            self._say(run.name, word, f"{run.name} {word}   {_progress(run, word)}".rstrip())

    def _say(self, name: str, word: str, line: str) -> None:
        before, at = self._said.get(name, ("", 0.0))
        if word != before or (word == "running" and time.monotonic() - at > SAY_S):
            self._said[name] = word, time.monotonic()
            self._console.print(Text(printable(line)), soft_wrap=True)
