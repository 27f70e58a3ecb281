"""From what a task returns to rows with prompts; and the digest by which results name their rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rl_posttrain.errors import RecipeError
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
    _check_rows(both)
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


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise RecipeError("task: it gave no rows, neither to train nor to evaluate on; give it some")
    for row in rows:
        if "prompt" not in row and not isinstance(row.get("question"), str):
            raise RecipeError(
                f"task: a row has neither `question`, a text, nor `prompt` ({', '.join(row)}); give it one of them"
            )


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over all columns of `rows`, in their order; the order of a row's columns does not matter."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
