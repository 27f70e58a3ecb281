"""What a user sees while a comparison runs: a live view in a terminal, else a line whenever a run starts or ends."""

import time
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_posttrain.study.plan import PlannedRun
from rl_posttrain.study.runner import Runner
from rl_posttrain.views.text import duration, make_console, printable, shown

_REDRAW_S = 2.0


class ComparisonDisplay:
    """Shows the runs that are done, running and failed, and the time left.

    Use it as a context manager, and give its method `show` to `Runner.run`.

    Args:
        runs: all runs of the comparison.
        stderr: write to the standard error, so that the standard output has nothing but JSON.
        console: where to write instead.
    """

    def __init__(self, runs: list[PlannedRun], *, stderr: bool = False, console: Console | None = None):
        self._console = console or make_console(stderr=stderr)
        self._runs = runs
        self._started = time.monotonic()
        self._steps_before = {run: run.steps_done() for run in runs}
        self._drawn = 0.0
        self._said: set[str] = set()
        self._finished_before = {run.path.name for run in runs if run.is_finished()}
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False) if live else None

    def __enter__(self) -> Self:
        names = dict.fromkeys(run.variant for run in self._runs)
        done = f"; already finished: {len(self._finished_before)}" if self._finished_before else ""
        self._console.print(Text(f"{len(self._runs)} runs of {', '.join(names)}{done}"), soft_wrap=True)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._live:
            self._live.stop()

    def show(self, runner: Runner) -> None:
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
            ended = run not in runner.running and run not in runner.waiting and name not in self._finished_before
            if ended and name not in self._said:
                self._said.add(name)
                if name in runner.failed:
                    text = f"{name} FAILED   {printable(runner.failed[name])}"
                else:
                    row = run.directory().last_row() or {}
                    text = f"{name} finished   reward {shown(row, 'reward', '.2f')}   {self._heading(runner)}"
                self._console.print(Text(text), soft_wrap=True)

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
