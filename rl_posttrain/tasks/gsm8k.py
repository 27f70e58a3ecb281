"""GSM8K (arXiv:2110.14168): word problems of grade-school mathematics, whose answers are whole numbers.

On the hub: openai/gsm8k, subset main, 7,473 rows in train and 1,319 in test, with `question` and `answer`.
"""

from collections.abc import Iterable
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.published import published_rows
from rl_posttrain.tasks.readers import Record
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import load_splits


def gsm8k(*, path: str = "openai/gsm8k") -> TaskRows:
    """Word problems from the Hugging Face hub, or from local files with the same columns.

    Args:
        path: a data set on the hub; or a folder with train* and test* files, or with a subfolder `main` that has them;
            or one file, of which `task.num_eval` or `task.eval_share` holds rows out. Columns: `question`, and `answer`
            with the gold after "####".

    Returns:
        Rows with `question` and `answer` (the text after "####").

    Raises:
        RecipeError: the data cannot be read, has no such column, or lacks a gold.
        HubError: the hub does not give it.
    """
    splits = load_splits(path, hub_subset="main")
    notes: list[str] = []
    train, held_out = (_rows(splits.get(name, ()), f"task.path={path}", notes) for name in ("train", "test"))
    return TaskRows(
        train, held_out, request="Think step by step and end with the final number.", notes=tuple(dict.fromkeys(notes))
    )


def _rows(records: Iterable[Record], where: str, notes: list[str]) -> list[dict[str, Any]]:
    def marked(records: Iterable[Record]) -> Iterable[Record]:
        for record in records:
            if "####" not in str(record.get("answer", "####")):
                question = str(record.get("question"))[:60]
                raise RecipeError(f"{where}: no '####' and gold in the answer to {question!r}; add them")
            yield record

    return published_rows(marked(records), where, {"question": "question", "answer": "answer"}, notes=notes)
