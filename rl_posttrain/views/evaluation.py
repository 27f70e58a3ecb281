"""What `rl-posttrain eval` shows: progress while it draws, and tables of results."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.evaluations import read_questions
from rl_posttrain.study.questions import differences
from rl_posttrain.views.text import duration, make_console, printable

# Names and words of what stands in the table, in its order; pass@k and maj@k follow accuracy.
_ROWS = {
    "accuracy": "accuracy",
    "well_formed": "well-formed",
    "right_and_well_formed": "right and well-formed",
    "unreadable": "no readable answer",
    "reward": "reward",
    "length": "completion tokens",
    "truncated": "cut at the limit",
}
_SECONDS_BETWEEN_LINES = 10.0
_MEANING = "± is one standard error over questions; docs/evaluating.md says what each number means"


class Progress:
    """Progress on standard error: a line that is redrawn in a terminal, else a line every ten seconds."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._console = make_console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._what, self._last_line = "", 0.0

    def __enter__(self) -> Self:
        if self._draws:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._draws:
            self._live.stop()

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def note(self, text: str) -> None:
        """A message of one line."""
        if not self._quiet:
            self._console.print(Text(printable(text)), soft_wrap=True)

    def begin(self, model: str, task: str, num_questions: int, num_samples: int) -> None:
        """The evaluation of a model on a task begins."""
        samples = f" x {num_samples} samples" if num_samples > 1 else ""
        self._what, self._last_line = f"{model} on {task}", 0.0
        self.note(f"{self._what}: {num_questions:,} questions{samples}")

    def progress(self, num_done: int, num_samples: int, num_tokens: int, seconds: float) -> None:
        """So many samples are drawn, with so many tokens, in so many seconds."""
        left = seconds / num_done * (num_samples - num_done)
        speed = num_tokens / seconds if seconds else 0.0
        line = (
            f"  {num_done:,}/{num_samples:,} samples  {speed:,.0f} tokens/s  {duration(seconds)} elapsed, "
            f"{duration(left)} left"
        )
        if self._draws:
            self._live.update(Text(line))
        elif seconds - self._last_line >= _SECONDS_BETWEEN_LINES or num_done == num_samples:
            self._last_line = seconds
            self.note(line)


def print_evaluations(results: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Print tables of results, one a task, then their breakdowns, comparisons and folders.

    Args:
        results: as `evaluation.alone.evaluate_alone` gives them.
        comparisons: as `study.questions.comparison_of` gives them.
    """
    console = make_console()
    for task in dict.fromkeys(result["title"] for result in results):
        of_task = [result for result in results if result["title"] == task]
        title, table = results_table(of_task)
        console.print(Text(printable(title), style="bold"), soft_wrap=True)
        console.print(table)
        console.print()
        for result in of_task:
            for column, groups in result["by"].items():
                if len(of_task) > 1:
                    console.print(Text(printable(result["model"]), style="bold"), soft_wrap=True)
                console.print(_breakdown_table(column, groups))
                console.print()
        for comparison in comparisons:
            if comparison["task"] == task:
                pair = f"{printable(comparison['model'])} minus {printable(comparison['baseline'])}"
                console.print(Text(pair, style="bold"), soft_wrap=True)
                console.print(_comparison_table(comparison))
                console.print(Text(printable(comparison["sentence"])), soft_wrap=True)
                console.print()
    console.print(Text(_MEANING, style="dim"), soft_wrap=True)
    for result in results:
        console.print(Text(f"samples  {printable(result['folder'])}"), soft_wrap=True)


def print_before_and_after(run: RunDirectory, step: int, console: Console) -> None:
    """Print the evaluations before the first step and after `step`, and their paired differences; nothing without."""
    after, before = run.evaluation(step), run.evaluation(0)
    if after is None:
        return
    console.print(Text(f"\nbefore and after, on held-out rows: {_asked(after)}", style="bold"))
    table = Table(box=None, pad_edge=False)
    if before is None or before["num_questions"] != after["num_questions"]:
        table.add_column("")
        table.add_column(f"after step {step}", justify="right")
        for name, words in _rows(after["metrics"]).items():
            table.add_row(words, with_error(after["metrics"][name]))
    else:
        for heading in ("", "before", f"after step {step}", "difference", "95 % interval"):
            table.add_column(heading, justify="right" if heading else "left")
        questions = [read_questions(run.evaluation_folder(number)) for number in (step, 0)]
        found = differences(*questions, after["num_samples"])
        for name, words in _rows(after["metrics"], before["metrics"]).items():
            cells = [with_error(results["metrics"][name]) for results in (before, after)]
            if name in found:
                difference = found[name]
                cells += [f"{difference.difference:+.3f}", f"{difference.low:+.3f} to {difference.high:+.3f}"]
            table.add_row(words, *cells)
    console.print(table)
    console.print(Text(_MEANING, style="dim"), soft_wrap=True)


def results_table(results: Sequence[Mapping[str, Any]]) -> tuple[str, Table]:
    """What was asked, in words; and a table with a row per metric and a column per model."""
    first = results[0]
    sampling = first["sampling"]
    how = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    samples = f" x {first['num_samples']} samples" if first["num_samples"] > 1 else ""
    task = first["task"]
    template = f", template {task['template']}" if task["template"] else ""
    title = (
        f"{first['title']} (version {task['version']}{template}): {first['num_questions']:,} questions{samples}, {how}"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for result in results:
        # A long name goes on below: cut off, two of them may look alike.
        table.add_column(Text(printable(result["model"]), overflow="fold"), justify="right", overflow="fold")
    for name, words in _rows(*(result["metrics"] for result in results)).items():
        table.add_row(words, *(with_error(result["metrics"][name]) for result in results))
    return title, table


def _asked(results: Mapping[str, Any]) -> str:
    """``32 questions x 4 samples, temperature 1``."""
    samples = f" x {results['num_samples']} samples" if results["num_samples"] > 1 else ""
    temperature = results["sampling"]["temperature"]
    how = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    return f"{results['num_questions']:,} questions{samples}, {how}"


def with_error(estimate: Mapping[str, float | None]) -> str:
    """``0.912 ± 0.021``; a dash where there is no value."""
    value, error = estimate["value"], estimate["error"]
    if value is None:
        return "-"
    form = ".1f" if abs(value) >= 10 else ".3f"
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form}}")


def _rows(metrics: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of the table, each with its words; where there is one reward, it is the weighted sum.

    Args:
        others: further columns. A sum that is the accuracy in every column is left out.
    """
    rows = {}
    for name, words in _ROWS.items():
        if name in metrics:
            rows[name] = words
        if name == "accuracy":
            # pass@1 is the accuracy.
            rows |= {key: key for key in metrics if key.startswith(("pass@", "maj@")) and key != "pass@1"}
    known = {*rows, "pass@1", *_ROWS}
    rewards = {key: key for key in metrics if key not in known}
    if all(_middle(column, "reward") == _middle(column, "accuracy") for column in (metrics, *others)):
        rows.pop("reward", None)
    return rows if len(rewards) == 1 else rows | rewards


def _middle(metrics: Mapping[str, Any], name: str) -> float | None:
    """The value of a metric, or the difference of two values; None where there is none."""
    estimate = metrics.get(name, {})
    return estimate.get("value", estimate.get("difference"))


def _breakdown_table(column: str, groups: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(Text(f"by {printable(column)}", style="bold"))
    table.add_column("questions", justify="right")
    names = list(_rows(*(group["metrics"] for group in groups.values())).items())[:4]
    for _, words in names:
        table.add_column(words, justify="right")
    for value, group in groups.items():
        cells = (with_error(group["metrics"][name]) for name, _ in names)
        table.add_row(Text(printable(value)), f"{group['num_questions']:,}", *cells)
    return table


def _comparison_table(comparison: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("difference", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, words in _rows(comparison["differences"]).items():
        found = comparison["differences"][name]
        table.add_row(words, f"{found['difference']:+.3f}", f"{found['low']:+.3f} to {found['high']:+.3f}")
    return table
