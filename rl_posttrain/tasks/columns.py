"""From the columns of a file or a data set to rows with a question and a gold."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.golds import gold_of
from rl_posttrain.tasks.readers import Record

Row = dict[str, Any]

# Taken where a recipe says nothing, if a data set has exactly one of them.
_TAKEN = {"question": ("question", "problem", "prompt"), "answer": ("answer", "solution", "reward_model.ground_truth")}
# Proposed where it has none of those.
_PROPOSED = {
    "question": ("question", "problem", "prompt", "query", "input", "instruction", "text", "messages"),
    "answer": ("answer", "solution", "final_answer", "ground_truth", "target", "gold", "output", "label", "response"),
}
# Arguments that the trainer passes to rewards itself.
_OF_TRAINER = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
# Names that say what a row's prompt is made of: a column of the data never becomes one of these by chance.
_OWN = ("question", "prompt")
_MAX_INT = 2**63


class UnusableRow(RecipeError):
    """A row without a question or a gold."""


def rows_from(records: Iterable[Record], where: str, columns: Mapping[str, str | None]) -> list[Row]:
    """Rows with `question`, or a ready `prompt`, with `answer`, and with further columns.

    Args:
        where: the recipe's key and value that name the data, for errors.
        columns: from a row's columns to those of the data; the latter may go into objects by dots, as in
            ``reward_model.ground_truth``. `question` is a text, or chat messages with one of the user, whose text is
            taken. `prompt` is a text, too, which becomes the question; or chat messages, which stay the prompt. An
            `answer` of None: there are no golds. All other columns keep their names.

    Raises:
        RecipeError: a column is missing; or a question or a gold is, in some row.
    """
    rows: list[Row] = []
    used = {*columns.values(), *_OWN}
    for number, record in enumerate(records, 1):
        if number == 1:
            _check_columns(columns, names_in(record), where)
        row = row_from(record, f"{where}: row {number}", columns)
        row |= {name: value for name, value in record.items() if name not in used and name not in row}
        if rows and ("prompt" in row) != ("prompt" in rows[0]):
            raise RecipeError(f"{where}: row {number} is a text and others are chat messages; give all one form")
        rows.append(row)
    return rows


def taken_columns(record: Record, columns: Mapping[str, str | None], where: str) -> tuple[dict[str, str | None], str]:
    """`columns` with a question and an answer, and a sentence on those that are taken by their names; "" for none.

    Raises:
        RecipeError: a name is missing, or more than one would do; the message proposes what to set.
    """
    chosen, found = dict(columns), []
    names = names_in(record)
    for wanted, candidates in _TAKEN.items():
        if wanted in chosen or (wanted == "question" and "prompt" in chosen):
            continue
        present = [name for name in candidates if name in names and name not in columns.values()]
        if wanted == "answer" and "answer" in present:
            present = ["answer"]  # the solution beside it is how one gets there
        if len(present) != 1:
            raise RecipeError(f"{where}: {_which(wanted, present)} ({', '.join(names)}); {_proposal(names, columns)}")
        chosen["prompt" if present[0] == "prompt" else wanted] = present[0]
        found.append(f"{wanted} from {present[0]}")
    return chosen, f"columns taken by their names: {', '.join(found)}" if found else ""


def names_in(record: Record) -> list[str]:
    """The columns of a record, and those inside of objects by dots."""
    names = []
    for name, value in record.items():
        names.append(name)
        if isinstance(value, dict):
            names += [f"{name}.{inner}" for inner in names_in(value)]
    return names


def even_out(rows: list[Row]) -> list[str]:
    """Give all rows the same columns, with values of one kind each, as a table needs them; what to say about it.

    A value that is missing is None. Columns whose values are of several kinds, or integers of more than 64 bits, become
    text. Columns with names of the trainer's are left out.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    if dropped := [name for name in names if name in _OF_TRAINER]:
        for row in rows:
            for name in dropped:
                row.pop(name, None)
    as_text = []
    for name in (name for name in names if name not in _OF_TRAINER):
        values = [row.get(name) for row in rows]
        if not _is_one_kind(values):
            as_text.append(name)
            values = [value if value is None or isinstance(value, str) else _as_text(value) for value in values]
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    said = [f"columns left out, since the trainer passes arguments of these names: {', '.join(dropped)}"]
    return (said if dropped else []) + (
        [f"columns with values of several kinds became text: {', '.join(as_text)}"] if as_text else []
    )


def _which(wanted: str, present: list[str]) -> str:
    if present:
        return f"{' and '.join(present)} could each be the {wanted}; the columns are"
    return f"no column is called like {'a question' if wanted == 'question' else 'an answer'}; the columns are"


def _proposal(names: list[str], columns: Mapping[str, str | None]) -> str:
    """What to set, from the names that are there."""
    taken = set(columns.values())
    by_last = {name.rpartition(".")[2].lower(): name for name in reversed(names) if name not in taken}
    mapping = {name: source for name, source in columns.items() if source in names}
    for wanted, candidates in _PROPOSED.items():
        if wanted in mapping or (wanted == "question" and "prompt" in mapping):
            continue
        best = next((by_last[candidate] for candidate in candidates if candidate in by_last), "...")
        mapping["prompt" if wanted == "question" else wanted] = best
    return f"set task.columns={{{', '.join(f'{name}: {source}' for name, source in mapping.items())}}}"


def _check_columns(columns: Mapping[str, str | None], names: list[str], where: str) -> None:
    for name, source in columns.items():
        if source is None and name in _OWN:
            raise RecipeError(f"{where}: task.columns gives the {name} no column; {_proposal(names, {})}")
        if source is not None and source not in names:
            raise RecipeError(
                f"{where}: has no column {source!r} for the {name}, but {', '.join(names)}; {_proposal(names, columns)}"
            )


def row_from(record: Record, where: str, columns: Mapping[str, str | None]) -> Row:
    """The `columns` of one record.

    Raises:
        UnusableRow: it has no question or no gold.
        RecipeError: the question is neither a text nor chat messages that end with the user's.
    """
    row: Row = {}
    for name, source in columns.items():
        value = None if source is None else value_in(record, source)
        if name in _OWN:
            row |= _question(value, name, source, where)
        elif name == "answer" and source is not None:
            row["answer"] = gold_of(value)
            if row["answer"] is None:
                raise UnusableRow(f"{where} has no gold in {source!r} ({value!r:.60}); write one, or remove the row")
        else:
            row[name] = value
    return row


def value_in(record: Record, source: str) -> Any:
    """The value of a column; None where this record has none."""
    if source in record:
        return record[source]
    value: Any = record
    for name in source.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _question(value: Any, name: str, source: str | None, where: str) -> Row:
    if isinstance(value, str) and value.strip():
        return {"question": value.strip()}
    if value is None or value in ("", []) or isinstance(value, str):
        raise UnusableRow(f"{where} has an empty {source!r}; write a question into it, or remove the row")
    if not isinstance(value, list) or not all(_is_message(message) for message in value):
        raise RecipeError(
            f"{where} has a value of the type {type(value).__name__} in {source!r}; a question is a text, or a list of "
            "chat messages with role and content"
        )
    messages = [{"role": message["role"], "content": message["content"]} for message in value]
    if messages[-1]["role"] != "user":
        raise RecipeError(f"{where} has messages in {source!r} that do not end with the user's; leave the reply out")
    if not messages[-1]["content"].strip():
        raise UnusableRow(f"{where} has an empty message of the user in {source!r}; write one, or remove the row")
    if name == "prompt":
        return {"prompt": messages}
    said = [message["content"] for message in messages if message["role"] != "system"]
    if len(said) != 1:
        raise UnusableRow(
            f"{where} has {len(said)} messages in {source!r}; keep them by task.columns={{prompt: {source}}}"
        )
    return {"question": said[0].strip()}


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _is_one_kind(values: list[Any]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return all(abs(value) < _MAX_INT for value in values if type(value) is int)
    if len(kinds) > 1:
        return False
    if not kinds & {list, dict}:
        return True
    import pyarrow

    try:
        pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError):
        return False
    return True


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)
