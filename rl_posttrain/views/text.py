"""Text for a terminal: escaped, shortened, and with a dash for numbers that are missing.

Text that comes from a model or a data set is not trusted: nothing here lets it move a cursor or break a line.
"""

import math
import statistics
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from rl_posttrain.runs.series import number

_BLOCKS = "▁▂▃▄▅▆▇█"


def make_console(*, stderr: bool = False) -> Console:
    """A console on the standard output or error.

    Where FORCE_COLOR is set, as CI services do, rich thinks that it writes to a terminal; live views would then fill
    log files with escape codes. So only a real terminal counts as one.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(force_terminal=None if stream.isatty() else False, stderr=stderr)


def printable(text: str, limit: int = 1000) -> str:
    """The first `limit` characters of `text`, with nothing that moves a cursor, turns text around or breaks a line.

    A newline is shown as an arrow; other control, format, surrogate and unassigned characters as Python escapes.
    """
    shown_text = "".join(
        "↵" if character == "\n" else character if _is_harmless(character) else ascii(character)[1:-1]
        for character in text[:limit]
    )
    return shown_text + "…" * (len(text) > limit)


def _is_harmless(character: str) -> bool:
    category = unicodedata.category(character)
    return not category.startswith("C") and category not in ("Zl", "Zp")


def tail(text: str, width: int) -> str:
    """The end of `text` in at most `width` cells, as `printable` shows it."""
    end = printable(text[-width:])
    if len(text) <= width and cell_len(end) <= width:
        return end
    while end and cell_len(end) > width - 1:
        end = end[1:]
    return f"…{end}"


def as_text(value: Any) -> str:
    """A prompt, completion or answer as one text; of chat messages, the last one's."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return "" if value is None else str(value)


def shown(row: dict, key: str, form: str) -> str:
    """`row[key]` in the format `form`; a dash of the same width where it is missing, null or not finite."""
    value = number(row, key)
    return format(value, form) if value is not None else format("-", f">{len(format(0.0, form))}")


def evaluation_text(row: dict) -> str:
    """The row's `eval/...` values in one line; empty where no evaluation followed the step."""
    keys = [key for key in row if key.startswith("eval/") and not key.endswith("_error")]
    if "eval/accuracy" in keys:  # pass@1 is the same number
        keys = [key for key in keys if key != "eval/pass@1"]
    # A narrow screen cuts off the end of the line, so the most important values come first.
    keys.sort(key=lambda key: not key.startswith(("eval/accuracy", "eval/pass@", "eval/maj@")))
    parts = []
    for key in keys:
        error = f" ±{shown(row, f'{key}_error', '.3f')}" if f"{key}_error" in row else ""
        parts.append(f"{key.removeprefix('eval/')} {shown(row, key, '.3f')}{error}")
    return "  ".join(parts)


def trouble_text(row: dict) -> str:
    """What went wrong in a step, in one line; empty if nothing did.

    The shares of rewards that failed and of answers not judged in time, and what guards saw and did.
    """
    shares = [key for key in row if key.endswith(("/errors", "/timeout")) and row[key]]
    found = [f"{key} {shown(row, key, '.1%')}" for key in shares]
    found += [key for key in row if key.startswith("guards/") and row[key]]
    if number(row, "skipped_updates"):
        found.append(f"skipped updates {shown(row, 'skipped_updates', '.0f')}")
    if number(row, "rolled_back_to") is not None:
        found.append(f"back to step {shown(row, 'rolled_back_to', '.0f')}")
    return "  ".join(found)


def duration(seconds: float | None) -> str:
    """Seconds in words: 42s, 1m52s, 2h05m, 3d04h; a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """`values` as block characters from their minimum (lowest block) to their maximum (full block).

    More values than `width` are averaged into `width` bins; fewer take one character each. The scale goes from the
    lowest to the highest value, not bin, so it fits the minimum and maximum that are printed beside it. A bin without a
    finite value is a space; values that are all equal are drawn at half height.
    """
    values = [math.nan if value is None else float(value) for value in values]
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(values))
    if count < 1 or not finite:
        return " " * max(count, 0)
    low, high = min(finite), max(finite)
    drawn = []
    for index in range(count):
        part = values[index * len(values) // count : (index + 1) * len(values) // count]
        part = [value for value in part if math.isfinite(value)]
        if not part:
            drawn.append(" ")
        elif high == low:
            drawn.append(_BLOCKS[3])
        else:
            share = (statistics.fmean(part) - low) / (high - low)
            drawn.append(_BLOCKS[round(share * (len(_BLOCKS) - 1))])
    return "".join(drawn)
