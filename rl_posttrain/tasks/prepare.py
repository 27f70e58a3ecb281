"""From what a task returns to rows with prompts; and the digest by which results name their rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.tasks.readers import check_text
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.template_files import read_system
from rl_posttrain.tasks.templates import Asked, load_template

# For tasks of your own that give questions and whose recipe names no template.
DEFAULT_TEMPLATE = "qa"


def render_rows(rows: TaskRows, *, template: str | None, system: str | None) -> TaskRows:
    """The same rows, each with its `prompt`.

    Args:
        template: a template's name or file; None for `qa`, or for rows whose prompts are ready.
        system: the system message, or the path of a .txt file with it; None for none, or for the template's own.

    Raises:
        RecipeError: a template or a system message is given, but the prompts are ready; or they cannot be used.
    """
    both = (*rows.train, *rows.eval)
    if not both:
        raise RecipeError("task: it gave no rows, neither to train nor to evaluate on; give it some")
    if any("prompt" in row for row in both):
        for key, value in (("template", template), ("system", system)):
            if value is not None:
                raise RecipeError(
                    f"task.{key}={value}: the task's rows have their prompts ready, and nothing is added to them; "
                    f"leave task.{key} out, or let the task give `question` in place of `prompt`"
                )
        return rows
    template = template or DEFAULT_TEMPLATE
    make_prompt = load_template(template)
    system = None if system is None else read_system(system)

    def with_prompt(row: dict[str, Any]) -> dict[str, Any]:
        asked = Asked(row["question"], rows.request, rows.examples, system, row)
        return {"prompt": make_prompt(asked)} | row

    return replace(
        rows,
        train=[with_prompt(row) for row in rows.train],
        eval=[with_prompt(row) for row in rows.eval],
        template=template,
    )


def check_returned(made: Any, name: str) -> None:
    """Fail on what a task's function must not return.

    Raises:
        RecipeError: it is no `TaskRows` with lists of rows, or a row has no question and no prompt of a kind that all
            have.
    """
    where = f"task.name={name}"
    if not isinstance(made, TaskRows):
        kind = "None" if made is None else f"a value of the type {type(made).__name__}"
        raise RecipeError(f"{where}: returned {kind}; return TaskRows(train=[...], eval=[...])")
    kinds: dict[str, str] = {}
    for part in ("train", "eval"):
        rows = getattr(made, part)
        if not isinstance(rows, list):
            raise RecipeError(f"{where}: {part} is of the type {type(rows).__name__}; give TaskRows a list of rows")
        for number, row in enumerate(rows, 1):
            kinds.setdefault(_kind_of(row, f"{where}: row {number} of {part}"), f"row {number} of {part}")
    if len(kinds) > 1:
        (first, one), (second, other) = list(kinds.items())[:2]
        raise RecipeError(f"{where}: {one} has {first} and {other} has {second}; give all rows one form")


def _kind_of(row: Any, where: str) -> str:
    """What a row asks with: a question, or a prompt that is a text or chat messages."""
    if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
        raise RecipeError(f"{where} is of the type {type(row).__name__}; a row is a dict from names to values")
    key = "prompt" if "prompt" in row else "question"
    value = row.get(key)
    if value is None:
        raise RecipeError(f"{where} has neither `question`, a text, nor `prompt` ({', '.join(row)}); give it one")
    if isinstance(value, str):
        check_text(value, where)
        if not value.strip():
            raise RecipeError(f"{where} has an empty `{key}`; write one, or leave the row out")
        return f"a `{key}` of text" if key == "prompt" else "a `question`"
    is_chat = isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)
    if key == "question" or not is_chat:
        wanted = "a text" if key == "question" else "a text, or a list of chat messages with role and content"
        raise RecipeError(f"{where} has a `{key}` of the type {type(value).__name__} ({value!r:.60}); it is {wanted}")
    check_text([message["content"] for message in value], where)
    if not value[-1]["content"].strip():
        raise RecipeError(f"{where} has an empty message at its end; write one, or leave the row out")
    return "a `prompt` of chat messages"


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over all columns of `rows`, in their order; the order of a row's columns does not matter."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def as_table(rows: list[dict], name: str) -> Any:
    """Rows as a `datasets.Dataset`, which TRL's trainer takes.

    Args:
        name: of the task, for errors.

    Raises:
        RecipeError: a column has values that no table takes.
    """
    import datasets
    from pyarrow.lib import ArrowException

    try:
        return datasets.Dataset.from_list(rows)
    except (ArrowException, OverflowError, TypeError) as error:
        reason = one_line(error, limit=200)
        raise RecipeError(
            f"task.name={name}: a column of its rows has values that no table takes ({reason}); give each column "
            "texts, numbers, or lists of them"
        ) from error
