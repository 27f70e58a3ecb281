"""Files of rows for the tests of tasks, and the rows that tasks make of them."""

import json

from rl_posttrain.recipe.resolve import resolve_task
from rl_posttrain.recipe.task_section import TaskSection


def write(path, rows):
    """Write rows as JSON Lines or parquet, by the file's ending; the path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(name, *, prompts_per_step=1, seed=0, **keys):
    """The rows of a task with these keys in the recipe's section, as train gets them; 0 prompts: as eval does."""
    return resolve_task(TaskSection(name=name, **keys), seed=seed).make_rows(prompts_per_step)
