"""What `rl-posttrain golds` prints: a table by kind of gold, then examples of what went wrong."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from rl_posttrain.views.text import make_console, printable

_MEANING = "rewrites must be paid, near misses must not; docs/tasks.md says how they are made"


def print_golds(result: Mapping[str, Any]) -> None:
    """Print the counts of each kind and of all, then the failures that are shown.

    Args:
        result: as `scoring.trial.try_golds` gives it, with ``source``.
    """
    console = make_console()
    tried, different, rows = (result[name] for name in ("num_tried", "num_different", "num_rows"))
    title = f"{result['source']}: {tried:,} of {different:,} different golds ({rows:,} rows)"
    console.print(Text(printable(title)), soft_wrap=True)
    table = Table(box=None)
    table.add_column("kind", no_wrap=True)
    for name in ("golds", "unread", "rewrites paid", "near misses paid"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, counts in result["kinds"].items():
        table.add_row(kind, *_cells(counts))
    table.add_row("all", *_cells(result["total"]), style="bold")
    console.print(table)
    console.print(Text(_MEANING), soft_wrap=True)
    for kind, counts in result["kinds"].items():
        for failure in counts["failures"]:
            said = "not paid" if failure["should_be"] else "PAID, and wrong"
            line = f"{kind}, {said}: gold {failure['gold']} | {failure['completion']} | {failure['rule']}"
            console.print(Text(printable(line)), soft_wrap=True)


def _cells(counts: Mapping[str, int]) -> list[str]:
    right = f"{counts['rewrites_paid']:,} of {counts['rewrites']:,}"
    if counts["rewrites"]:
        right += f" {counts['rewrites_paid'] / counts['rewrites']:7.2%}"
    wrong = f"{counts['near_misses_paid']:,} of {counts['near_misses']:,}"
    return [f"{counts['golds']:,}", f"{counts['unread']:,}", right, wrong]
