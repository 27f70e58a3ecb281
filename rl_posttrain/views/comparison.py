"""What a user sees while a comparison runs: a live view in a terminal, else lines now and then.

There is a line whenever a run starts or ends, and at every tenth of a run's steps.
"""

import statistics
import time
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_posttrain.runs.series import number
from rl_posttrain.study.plan import PlannedRun
from rl_posttrain.study.runner import Runner
from rl_posttrain.views.text import duration, make_console, printable, shown

_REDRAW_S = 2.0


class ComparisonDisplay:
    """Shows the runs that are done, running and failed, and the time left.

    Use it as a context manager, and give its method `show` to `Runner.run`.

    Args:
        runs: all runs of the comparison.
        jobs: how many of them run at the same time.
        title: what they are for, where a comparison has several parts.
        stderr: write to the standard error, so that the standard output has nothing but JSON.
        console: where to write instead.
    """

    def __init__(
        self,
        runs: list[PlannedRun],
        *,
        jobs: int = 1,
        title: str = "",
        stderr: bool = False,
        console: Console | None = None,
    ):
        self._console = console or make_console(stderr=stderr)
        self._runs, self._jobs, self._title = runs, jobs, title
        self._started = time.monotonic()
        self._steps_before = {run: run.steps_done() for run in runs}
        self._drawn = 0.0
        self._said: set[str] = set()
        self._tenths = {run: _tenth(run, done) for run, done in self._steps_before.items()}
        self._finished_before = {run.path.name for run in runs if run.is_finished()}
        self._told_time = False
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False) if live else None

    def __enter__(self) -> Self:
        names = dict.fromkeys(run.variant for run in self._runs)
        done = f"; already finished: {len(self._finished_before)}" if self._finished_before else ""
        title = f"{self._title}: " if self._title else ""
        lengths = " or ".join(map(str, dict.fromkeys(run.num_steps for run in self._runs)))
        heading = f"{title}{len(self._runs)} runs of {', '.join(names)}, {lengths} steps each{done}"
        self._console.print(Text(heading), soft_wrap=True)
        if len(self._finished_before) < len(self._runs):
            self._console.print(Text(self._time_before()), soft_wrap=True)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._live:
            self._live.stop()

    def show(self, runner: Runner) -> None:
        if not self._told_time and (left := self.seconds_left(runner)) is not None:
            self._told_time = True
            self._console.print(Text(f"about {duration(left)} left, by the first steps"), soft_wrap=True)
        if self._live is None:
            self._say(runner)
        elif time.monotonic() - self._drawn > _REDRAW_S or not runner.running:
            self._drawn = time.monotonic()
            self._live.update(self._view(runner), refresh=True)

    def seconds_left(self, runner: Runner) -> float | None:
        """Steps left over the steps per second of this process, with the start-up of the runs; None before a step."""
        made = 0
        for run in self._runs:
            done = run.steps_done()
            # A run that restarts, or resumes from an earlier checkpoint, has fewer steps than before.
            self._steps_before[run] = min(self._steps_before[run], done)
            made += done - self._steps_before[run]
        left = sum(run.num_steps - run.steps_done() for run in [*runner.running, *runner.waiting])
        return (time.monotonic() - self._started) / made * left if made > 0 else None

    def _time_before(self) -> str:
        """How long the missing runs will take, from runs of the folder that are finished."""
        made = [run.directory().last_row() or {} for run in self._runs if run.is_finished()]
        paces = [row["seconds"] / row["step"] for row in made if number(row, "seconds") and row["step"]]
        if not paces:
            return "no run is finished yet: how long they take is said after the first steps"
        self._told_time = True
        left = sum(run.num_steps - self._steps_before[run] for run in self._runs if not run.is_finished())
        seconds = left * statistics.fmean(paces) / self._jobs
        return f"about {duration(seconds)} left, by {len(paces)} finished run{'s' * (len(paces) > 1)}"

    def _heading(self, runner: Runner) -> str:
        finished = len(self._runs) - len(runner.waiting) - len(runner.running) - len(runner.failed)
        failed = f", {len(runner.failed)} failed" if runner.failed else ""
        left = duration(self.seconds_left(runner))
        return f"{finished}/{len(self._runs)} runs done, {len(runner.running)} running{failed}, left {left}"

    def _say(self, runner: Runner) -> None:
        for run in self._runs:
            name = run.path.name
            if run in runner.running and f"start {name}" not in self._said:
                self._said.add(f"start {name}")
                self._console.print(Text(f"{name} started   {self._heading(runner)}"), soft_wrap=True)
            self._say_steps(run, runner)
            ended = run not in runner.running and run not in runner.waiting and name not in self._finished_before
            if ended and name not in self._said:
                self._said.add(name)
                if name in runner.failed:
                    text = f"{name} FAILED   {printable(runner.failed[name])}"
                else:
                    row = run.directory().last_row() or {}
                    text = f"{name} finished   reward {shown(row, 'reward', '.2f')}   {self._heading(runner)}"
                self._console.print(Text(text), soft_wrap=True)

    def _say_steps(self, run: PlannedRun, runner: Runner) -> None:
        """A line where a run has come to another tenth of its steps."""
        row = run.directory().last_row() if run in runner.running and run.directory() else None
        if row is None or _tenth(run, row["step"]) <= self._tenths[run] or row["step"] >= run.num_steps:
            return
        self._tenths[run] = _tenth(run, row["step"])
        text = f"{run.path.name} step {row['step']}/{run.num_steps}   reward {shown(row, 'reward', '.2f')}"
        self._console.print(Text(f"{text}   {self._heading(runner)}"), soft_wrap=True)

    def _view(self, runner: Runner) -> Group:
        table = Table.grid(padding=(0, 2))
        for run in runner.running:
            directory = run.directory()
            row = (directory.last_row() if directory else None) or {}
            step = row.get("step", 0)
            state = Text(f"step {step}/{run.num_steps}" if step else "starting")
            bar = ProgressBar(total=run.num_steps, completed=step, width=24)
            table.add_row(Text(run.path.name), bar, state, Text(f"reward {shown(row, 'reward', '.2f')}"))
        failed = [Text(f"{name} failed: {printable(said)}", "red") for name, said in runner.failed.items()]
        return Group(Text(self._heading(runner), "bold"), table, *failed)


def _tenth(run: PlannedRun, step: int) -> int:
    return 10 * step // run.num_steps
