"""The display of `train` for pipes, log files and terminals that cannot draw: one line per step."""

from typing import Self

from rich.console import Console
from rich.text import Text

from rl_posttrain.runs.metrics import METRICS, PHASES
from rl_posttrain.runs.series import numbers, smooth
from rl_posttrain.views.progress import Progress
from rl_posttrain.views.text import duration, evaluation_text, printable, shown, trouble_text


class PlainDisplay:
    """One line per step, without escape codes."""

    def __init__(self, *, name: str, num_steps: int, device: str, console: Console):
        self._progress = Progress(num_steps)
        self._console = console
        self._heading = f"{name} on {device}, {num_steps} steps"

    def __enter__(self) -> Self:
        self.note(self._heading)
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Nothing to do: every line is written already."""

    def note(self, text: str) -> None:
        line = printable(text).encode(self._console.encoding, "backslashreplace").decode(self._console.encoding)
        self._console.print(Text(line), soft_wrap=True)

    def phase(self, text: str) -> None:
        """Not shown: a line for every phase would hide the steps."""

    def resumed(self, rows: list[dict]) -> None:
        self._progress.resume(rows)
        if rewards := numbers(rows, "reward"):
            mean = smooth(rewards, 5)[-1]
            self.note(f"resumed after step {self._progress.steps_done}  reward, mean of 5: {mean:.2f}")

    def evaluated(self, metrics: dict) -> None:
        self.note(f"before training  eval {evaluation_text(metrics)}")

    def step(self, row: dict, samples: list[dict]) -> None:
        progress = self._progress
        progress.add(row)
        width = len(str(progress.num_steps))
        parts = [f"step {progress.steps_done:{width}}/{progress.num_steps}"]
        parts += [
            f"{metric.label} {shown(row, metric.name, metric.column)}"
            for metric in METRICS
            if metric.column and metric.name in row
        ]
        phases = " ".join(f"{name} {shown(row, f'time/{name}', '.1f')}" for name in PHASES if f"time/{name}" in row)
        seconds = progress.last_step_seconds
        parts.append(f"{'-' if seconds is None else f'{seconds:.1f}':>5} s" + (f" ({phases})" if phases else ""))
        parts.append(f"left {duration(progress.seconds_left())}")
        if evaluation := evaluation_text(row):
            parts.append(f"eval {evaluation}")
        if trouble := trouble_text(row):
            parts.append(trouble)
        self.note("  ".join(parts))

    def finish(self) -> None:
        self.note(f"finished {self._progress.steps_done} steps in {duration(self._progress.elapsed_seconds())}")
