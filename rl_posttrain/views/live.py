"""What a user sees while a run goes on: one live view in a terminal, one line a step everywhere else.

Both show metrics rows as `metrics.jsonl` holds them (docs/metrics.md). Text that comes from a model or a data set is
not trusted: control characters are shown as escapes, rich markup is not read, and any length takes one line.
"""

import statistics
import sys
import time
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from rl_posttrain.runs.metrics import PHASES
from rl_posttrain.runs.series import number, numbers, smooth, step_seconds
from rl_posttrain.views.text import as_text, duration, evaluation_text, printable, shown, sparkline, tail, trouble_text

_PHASE_LOOKS = {"rollout": ("█", "blue"), "reward": ("░", "magenta"), "update": ("▓", "yellow"), "sync": ("▒", "cyan")}
_LABEL_WIDTH = 11
_METRIC_LINES = {  # of the live view: label, and of each metric its key, text and format
    "answers": (("accuracy", "accuracy {}", ".3f"), ("well_formed", "well-formed {}", ".3f")),
    "length": (("completion_length", "{} tokens", ".1f"), ("truncated_share", "truncated {}", ".1%")),
    "update": (
        ("entropy", "entropy {}", ".3f"),
        ("grad_norm", "grad norm {}", ".3f"),
        ("lr", "lr {}", ".1e"),
        ("kl", "kl {}", ".4f"),
    ),
}


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
        # rich takes FORCE_COLOR, which CI services set, for a terminal; a live view would fill their logs with codes.
        console = Console(force_terminal=None if sys.stdout.isatty() else False)
    if console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf"):
        return LiveDisplay(name=name, num_steps=num_steps, device=device, console=console)
    return PlainDisplay(name=name, num_steps=num_steps, device=device, console=console)


class Progress:
    """The rows so far and what follows from them in time."""

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.rows: list[dict] = []
        self.last_step_seconds: float | None = None
        self._seconds_before = self._last_seconds = 0.0
        self._started = time.monotonic()
        self._recent: list[float] = []  # replaced and not appended to: the live view reads it from another thread
        self._first = True

    def resume(self, rows: list[dict]) -> None:
        self.rows = list(rows)
        self._seconds_before = self._last_seconds = max(numbers(rows, "seconds"), default=0.0)
        self._recent = step_seconds(rows)[1:][-10:]

    def add(self, row: dict) -> None:
        seconds = number(row, "seconds")
        self.last_step_seconds = None if seconds is None else seconds - self._last_seconds
        if seconds is not None:
            # A process's first step also compiles and fills caches: it says nothing about the steps to come.
            if not self._first:
                self._recent = [*self._recent, seconds - self._last_seconds][-10:]
            self._last_seconds = seconds
        self._first = False
        self.rows.append(row)

    @property
    def steps_done(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    def elapsed_seconds(self) -> float:
        """Seconds of this process (start-up included) and of the steps before it."""
        return self._seconds_before + time.monotonic() - self._started

    def seconds_left(self) -> float | None:
        """Mean seconds of the last 10 steps times the steps to go; None until there is a step to go by."""
        steps_left = self.num_steps - self.steps_done
        if steps_left <= 0:
            return 0.0
        return statistics.fmean(self._recent) * steps_left if self._recent else None


class PlainDisplay:
    """One line a step, for pipes, log files and terminals that cannot draw; no escape codes."""

    def __init__(self, *, name: str, num_steps: int, device: str, console: Console):
        self._progress = Progress(num_steps)
        self._console = console
        self._heading = f"{name} on {device}, {num_steps} steps"

    def __enter__(self) -> Self:
        self.note(self._heading)
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Nothing to give back: every line is already written."""

    def note(self, text: str) -> None:
        line = printable(text).encode(self._console.encoding, "backslashreplace").decode(self._console.encoding)
        self._console.print(Text(line), soft_wrap=True)

    def phase(self, text: str) -> None:
        """Not shown: a line for every phase would bury the steps."""

    def resumed(self, rows: list[dict]) -> None:
        self._progress.resume(rows)
        if rewards := numbers(rows, "reward")[-5:]:
            self.note(
                f"resumed after step {self._progress.steps_done}  reward, mean of 5: {statistics.fmean(rewards):.2f}"
            )

    def step(self, row: dict, samples: list[dict]) -> None:
        progress = self._progress
        progress.add(row)
        width = len(str(progress.num_steps))
        parts = [f"step {progress.steps_done:{width}}/{progress.num_steps}"]
        for key, label, form in (
            ("reward", "reward", "5.2f"),
            ("accuracy", "accuracy", "4.2f"),
            ("completion_length", "length", "6.1f"),
            ("entropy", "entropy", "5.2f"),
            ("grad_norm", "grad", "6.2f"),
        ):
            if key in row:
                parts.append(f"{label} {shown(row, key, form)}")
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
        """The view as it stands, as wide as the console and no higher."""
        width = max(self._console.width - 4, 1)  # the panel's border and padding
        lines = [*self._progress_lines(width), *self._metric_lines(width), *self._sample_lines(width)]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        # One row for the cursor below the panel and two for its border; what is cut off on a low screen is the sample.
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
        for label, parts in _METRIC_LINES.items():
            texts = [text.format(shown(row, key, form)) for key, text, form in parts if key in row]
            if texts:
                lines.append(_labelled(label, Text("   ".join(texts))))
        if trouble := trouble_text(row):
            lines.append(_labelled("trouble", Text(trouble, "red")))
        lines += self._phase_lines(row, width - _LABEL_WIDTH)
        if self._evaluation:
            lines.append(_labelled("eval", Text(self._evaluation)))
        return lines

    def _phase_lines(self, row: dict, width: int) -> list[Text]:
        """Seconds of the last step by phase: as numbers, and as a bar of the same characters below them."""
        seconds = {name: number(row, f"time/{name}") or 0.0 for name in PHASES if f"time/{name}" in row}
        total = sum(seconds.values())
        if not total:
            return []
        names, bar, start = Text(), Text(), 0.0
        for name, spent in seconds.items():
            character, colour = _PHASE_LOOKS[name]
            names.append(f"{character} ", colour).append(f"{name} {spent:.1f}   ")
            # Ends are rounded and not lengths, so that the bar is as wide as the line whatever the shares are.
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
