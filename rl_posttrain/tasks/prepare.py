"""From what a task returns to rows with prompts; and the digest by which results name their rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.templates import render

# For tasks of your own that give questions and whose recipe names no template.
DEFAULT_TEMPLATE = "qa"


def render_rows(rows: TaskRows, *, template: str | None, system: str | None) -> TaskRows:
    """The same rows, each with its `prompt`.

    Args:
        template: a template's name; None for `qa`, or for rows whose prompts are ready.
        system: the system message; None for none, or for the template's own.

    Raises:
        RecipeError: a template or a system message is given, but the prompts are ready; or there is no such template.
    """
    both = (*rows.train, *rows.eval)
    if any("prompt" in row for row in both):
        for key, value in (("template", template), ("system", system)):
            if value is not None:
                raise RecipeError(
                    f"task.{key}={value}: the task's rows have their prompts ready, and nothing is added to them; "
                    f"leave task.{key} out, or let the task give `question` in place of `prompt`"
                )
        return rows
    template = template or DEFAULT_TEMPLATE

    def with_prompt(row: Mapping[str, Any]) -> dict[str, Any]:
        prompt = render(template, row["question"], request=rows.request, examples=rows.examples, system=system)
        return {"prompt": prompt} | row

    return replace(
        rows,
        train=[with_prompt(row) for row in rows.train],
        eval=[with_prompt(row) for row in rows.eval],
        template=template,
    )


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over all columns of `rows`, in their order; the order of a row's columns does not matter."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
