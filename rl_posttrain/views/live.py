"""What a user sees while a run trains: a view that is redrawn in place, in a terminal that can draw it.

It shows metrics rows as `metrics.jsonl` has them (docs/metrics.md). Text that comes from a model or a data set is not
trusted: control characters are shown as escapes, rich markup is not read, and a text of any length takes one line.
"""

import time
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from rl_posttrain.runs.metrics import METRICS, PHASES
from rl_posttrain.runs.series import number, smooth
from rl_posttrain.views.plain import PlainDisplay
from rl_posttrain.views.progress import Progress
from rl_posttrain.views.text import (
    as_text,
    duration,
    evaluation_text,
    make_console,
    printable,
    shown,
    sparkline,
    tail,
    trouble_text,
)

_PHASE_LOOKS = (("█", "blue"), ("░", "magenta"), ("▓", "yellow"), ("▒", "cyan"))  # character and colour, in turn
_LABEL_WIDTH = 11


def make_display(
    *, name: str, num_steps: int, device: str, console: Console | None = None
) -> "LiveDisplay | PlainDisplay":
    """A `LiveDisplay` where the console is a terminal that can draw it, else a `PlainDisplay`.

    Args:
        name: the run's name.
        num_steps: steps that the recipe asks for, those before a resume included.
        device: what the run computes on, in words.
        console: where to write; by default the standard output.
    """
    if console is None:
        console = make_console()
    if console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf"):
        return LiveDisplay(name=name, num_steps=num_steps, device=device, console=console)
    return PlainDisplay(name=name, num_steps=num_steps, device=device, console=console)


class LiveDisplay:
    """One view, redrawn in place: progress, reward over the run, the last step's metrics, and one completion."""

    def __init__(self, *, name: str, num_steps: int, device: str, console: Console):
        self._progress = Progress(num_steps)
        self._console = console
        self._title = Text(f" {printable(name)} on {printable(device)} ", style="bold")
        self._phase, self._phase_since = "starting", time.monotonic()
        self._evaluation = ""
        self._sample: dict[str, Any] | None = None
        self._live = Live(console=console, get_renderable=self.view, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            self.phase(f"stopped by {kind.__name__}")
        self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text)))

    def phase(self, text: str) -> None:
        self._phase, self._phase_since = printable(text), time.monotonic()

    def resumed(self, rows: list[dict]) -> None:
        self._progress.resume(rows)
        for row in rows:
            self._keep_evaluation(row)

    def evaluated(self, metrics: dict) -> None:
        self._evaluation = f"before: {evaluation_text(metrics)}"

    def step(self, row: dict, samples: list[dict]) -> None:
        self._progress.add(row)
        self._keep_evaluation(row)
        if samples:
            self._sample = dict(samples[0])
        self._live.refresh()

    def finish(self) -> None:
        self.phase("finished")
        self._live.refresh()

    def _keep_evaluation(self, row: dict) -> None:
        if evaluation := evaluation_text(row):
            self._evaluation = f"step {row['step']}: {evaluation}"

    def view(self) -> Panel:
        """The view as it is now, as wide as the console and not higher."""
        width = max(self._console.width - 4, 1)  # the panel's border and padding
        lines = [*self._progress_lines(width), *self._metric_lines(width), *self._sample_lines(width)]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        # One row for the cursor below the panel, two for its border. On a low screen the sample is cut off.
        return Panel(Group(*lines[: max(self._console.height - 3, 1)]), title=self._title, border_style="dim")

    def _progress_lines(self, width: int) -> list[Text]:
        progress = self._progress
        left, elapsed = duration(progress.seconds_left()), duration(progress.elapsed_seconds())
        head = f"step {progress.steps_done}/{progress.num_steps}"
        times = f"{elapsed} elapsed, {left} left"
        bar = max(width - len(head) - len(times) - 4, 0)
        filled = round(bar * min(progress.steps_done / progress.num_steps, 1))
        line = Text.assemble((head, "bold"), "  ", ("━" * filled, "green"), ("─" * (bar - filled), "dim"), "  ", times)
        now = Text(self._phase)
        if self._phase != "finished":
            now.append(f"  {duration(time.monotonic() - self._phase_since)}", style="dim")
        return [line, _labelled("now", now), Text()]

    def _metric_lines(self, width: int) -> list[Text]:
        rows = self._progress.rows
        if not rows:
            return [Text("no step finished yet", style="dim")]
        row = rows[-1]
        rewards = [number(row, "reward") for row in rows]
        mean = {"reward": smooth(rewards[-5:], 5)[-1]}
        lines = [_labelled("reward", Text(f"{shown(row, 'reward', '.3f')}   mean of 5 {shown(mean, 'reward', '.3f')}"))]
        if finite := [value for value in rewards if value is not None]:
            low, high = f"{min(finite):.2f} ", f" {max(finite):.2f}"
            line = sparkline(rewards, width - _LABEL_WIDTH - len(low) - len(high))
            lines.append(_labelled("", Text.assemble((low, "dim"), (line, "green"), (high, "dim"))))
        texts: dict[str, list[str]] = {}  # of each line, in the order of METRICS
        for metric in METRICS:
            if metric.live_line and metric.name in row:
                texts.setdefault(metric.live_line, []).append(f"{metric.label} {shown(row, metric.name, metric.form)}")
        lines += [_labelled(label, Text("   ".join(found))) for label, found in texts.items()]
        if trouble := trouble_text(row):
            lines.append(_labelled("trouble", Text(trouble, "red")))
        lines += self._phase_lines(row, width - _LABEL_WIDTH)
        if self._evaluation:
            lines.append(_labelled("eval", Text(self._evaluation)))
        return lines

    def _phase_lines(self, row: dict, width: int) -> list[Text]:
        """Seconds of the last step by phase: numbers, and below them a bar with the same characters."""
        seconds = {name: number(row, f"time/{name}") or 0.0 for name in PHASES if f"time/{name}" in row}
        total = sum(seconds.values())
        if not total:
            return []
        names, bar, start = Text(), Text(), 0.0
        for place, (name, spent) in enumerate(seconds.items()):
            character, colour = _PHASE_LOOKS[place % len(_PHASE_LOOKS)]
            names.append(f"{character} ", colour).append(f"{name} {spent:.1f}   ")
            # Rounding where parts end, not how long they are, keeps the whole bar as wide as the line.
            cells = round((start + spent) / total * width) - round(start / total * width)
            bar.append(character * cells, colour)
            start += spent
        return [_labelled("seconds", names), _labelled("", bar)]

    def _sample_lines(self, width: int) -> list[Text]:
        if self._sample is None:
            return []
        sample, width = self._sample, max(width - _LABEL_WIDTH, 1)
        answer = printable(as_text(sample.get("answer")), width)
        return [
            Text(),
            _labelled("prompt", Text(tail(as_text(sample.get("prompt")), width), "dim")),
            _labelled("completion", Text(printable(as_text(sample.get("completion")), width))),
            _labelled("scored", Text(f"{shown(sample, 'reward', '.3f')}   answer {answer}")),
        ]


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f"{label:{_LABEL_WIDTH}}", "dim"), text)
