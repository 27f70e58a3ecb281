"""Which rows of a task are left out, by the length of their prompts or by how difficult they are; and their order."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, RunError, did_you_mean, one_line
from rl_posttrain.runs.evaluations import SAMPLES_FILE
from rl_posttrain.runs.files import read_json_lines
from rl_posttrain.tasks.rows import TaskRows

Rows = list[dict[str, Any]]
# Tokens of each of some prompts, which are all of one kind.
CountTokens = Callable[[Sequence[Any]], list[int]]

# The column that holds a row's share of right samples, where it comes from an evaluation.
PASS_RATE = "pass_rate"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Difficulty:
    """Which training rows stay: those whose number is from `low` to `high`, both included.

    Attributes:
        column: that has the number.
        results: the folder of an evaluation instead; the number is the share of a prompt's samples that are right.
    """

    low: float | None
    high: float | None
    column: str | None
    results: str | None

    def __post_init__(self) -> None:
        key = "task.filter.difficulty"
        if self.low is None and self.high is None:
            raise RecipeError(f"{key}.min=null: with max=null it leaves nothing out; set one of them")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise RecipeError(f"{key}.min={self.low:g}: it is above max={self.high:g}; lower it")
        if (self.column is None) == (self.results is None):
            raise RecipeError(
                f"{key}.column={self.column or 'null'}: set either column, which has the numbers, or results, the "
                "folder of an evaluation on these questions"
            )

    def of(self, rows: Rows) -> tuple[Rows, str]:
        """The rows that stay, and what to say about it. A row without a number is left out."""
        column = self.column
        if self.results is not None:
            column, rates = PASS_RATE, pass_rates(self.results)
            rows = [row | {column: rates.get(_key(row["prompt"]))} for row in rows]
        _check_column(rows, column, "task.filter.difficulty.column")
        numbers = [_number(row[column]) for row in rows]
        if self.results is not None and numbers.count(None) == len(rows):
            raise RecipeError(
                f"task.filter.difficulty.results={self.results}: it has none of the {len(rows)} training prompts; "
                "evaluate these questions, with the same task.template and task.system"
            )
        kept = [row for row, number in zip(rows, numbers, strict=True) if number is not None and self._keeps(number)]
        low, high = ("" if bound is None else f"{bound:g}" for bound in (self.low, self.high))
        said = f"difficulty, {column} from {low or 'any'} to {high or 'any'}: {_counts(kept, rows)} training rows stay"
        num_unknown = numbers.count(None)
        return kept, said + (f" ({num_unknown} have no {column})" if num_unknown else "")

    def _keeps(self, number: float) -> bool:
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


@dataclass(frozen=True)
class Filters:
    """What a recipe leaves out of the rows that a task gives, and how it orders the training rows.

    Attributes:
        max_prompt_tokens: of rows to train and to evaluate on.
        difficulty: of training rows.
        order_by: a column: its lowest first, or with a minus in front of it its highest first. None: no order.
    """

    max_prompt_tokens: int | None = None
    difficulty: Difficulty | None = None
    order_by: str | None = None

    def of(self, rows: TaskRows, *, count_tokens: CountTokens | None, trained_on: bool) -> TaskRows:
        """The rows that stay, in their order, with a note for each step.

        Args:
            rows: with their prompts.
            count_tokens: by the model's tokenizer; needed for `max_prompt_tokens`.
            trained_on: False where a model is only evaluated: then the training rows stay as they are.

        Raises:
            RecipeError: no row is left; there is no such column; or the results of an evaluation cannot be read.
        """
        train, held_out, notes = rows.train, rows.eval, []
        if self.max_prompt_tokens is not None:
            held_out, said = self._short(held_out, count_tokens, "eval")
            notes += [said] if held_out != rows.eval else []
            if trained_on:
                train, said = self._short(train, count_tokens, "training")
                notes.append(said)
        if trained_on and self.difficulty is not None:
            train, said = self.difficulty.of(train)
            _check_some_left(train, rows.train, "task.filter.difficulty", said)
            notes.append(said)
        if trained_on and self.order_by is not None:
            train, said = _ordered(train, self.order_by)
            notes.append(said)
        return replace(rows, train=train, eval=held_out, notes=(*rows.notes, *notes))

    def _short(self, rows: Rows, count_tokens: CountTokens, kind: str) -> tuple[Rows, str]:
        lengths = count_tokens([row["prompt"] for row in rows]) if rows else []
        kept = [row for row, length in zip(rows, lengths, strict=True) if length <= self.max_prompt_tokens]
        said = f"prompts of at most {self.max_prompt_tokens} tokens: {_counts(kept, rows)} {kind} rows stay"
        _check_some_left(kept, rows, f"task.filter.max_prompt_tokens={self.max_prompt_tokens}", said)
        return kept, said


def pass_rates(folder: str) -> dict[str, float]:
    """For each prompt of an evaluation, as `_key` writes it, the share of its samples that are right.

    Args:
        folder: that `rl-posttrain eval` wrote.

    Raises:
        RecipeError: it has no samples that can be read.
    """
    right: dict[str, list[bool]] = {}
    try:
        for sample in read_json_lines(Path(folder).expanduser() / SAMPLES_FILE):
            if sample["right"] is not None:
                right.setdefault(_key(sample["prompt"]), []).append(bool(sample["right"]))
    except (OSError, KeyError, RunError) as error:
        reason = f"a line has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise RecipeError(
            f"task.filter.difficulty.results={folder}: {SAMPLES_FILE} cannot be read there ({reason}); name "
            "the folder that `rl-posttrain eval` wrote"
        ) from error
    return {prompt: sum(found) / len(found) for prompt, found in right.items()}


def _ordered(rows: Rows, order_by: str) -> tuple[Rows, str]:
    """Rows in the order of a column, equal ones as they stood, those without a value last; and what to say."""
    column = order_by.removeprefix("-")
    if not column:
        raise RecipeError(f"task.order_by={order_by}: names no column; name one, or leave it out")
    _check_column(rows, column, "task.order_by")
    known = [row for row in rows if not _is_missing(row[column])]
    unknown = [row for row in rows if _is_missing(row[column])]
    if not known:
        raise RecipeError(f"task.order_by={order_by}: no row has a value there; name another column, or leave it out")
    numbers = [_number(row[column]) for row in known]
    keys: list[Any] = [str(row[column]) for row in known] if None in numbers else numbers
    sign = -1 if order_by.startswith("-") else 1
    ranks = {key: sign * rank for rank, key in enumerate(sorted(set(keys)))}
    places = sorted(range(len(known)), key=lambda place: ranks[keys[place]])
    first, last = (known[places[end]][column] for end in (0, -1))
    said = f"training rows in the order of {order_by}, from {first} to {last}; they are not shuffled"
    return [known[place] for place in places] + unknown, said


def _number(value: Any) -> float | None:
    """The number that a value is, or the first that its text has, as in "Level 3"; None where there is none."""
    if isinstance(value, (int, float)):
        return None if _is_missing(value) else float(value)
    found = _NUMBER.search(value) if isinstance(value, str) else None
    return float(found[0]) if found else None


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as parquet files have it, is not equal to itself


def _check_column(rows: Sequence[Mapping[str, Any]], column: str, key: str) -> None:
    for row in rows:
        if column not in row:
            raise RecipeError(f"{key}={column}: the task's rows have no such column; {did_you_mean(column, row)}")


def _check_some_left(kept: Rows, rows: Rows, key: str, said: str) -> None:
    if rows and not kept:
        raise RecipeError(f"{key}: it leaves no row ({said}); loosen it")


def _counts(kept: Rows, rows: Rows) -> str:
    return f"{len(kept):,} of {len(rows):,}"


def _key(prompt: Any) -> str:
    """A prompt, which is text or chat messages, as one text."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
