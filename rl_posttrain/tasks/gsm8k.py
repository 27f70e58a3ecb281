"""GSM8K (arXiv:2110.14168): word problems of grade-school mathematics, whose answers are whole numbers."""

import random
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, class_and_message
from rl_posttrain.tasks.rows import TaskRows, check_at_least

FILE_READERS = {".jsonl": "json", ".parquet": "parquet"}
GOLD_MARK = "####"


def gsm8k(
    *,
    num_train: int | None = None,
    num_eval: int | None = None,
    seed: int,
    path: str = "openai/gsm8k",
) -> TaskRows:
    """Word problems from the Hugging Face hub, or from local files with the same columns.

    A training question that is also an eval question is left out of train.

    Args:
        num_train: rows to train on, drawn by `seed`; None for all.
        num_eval: rows to evaluate on, drawn by `seed` from the test split; None for all.
        seed: decides which rows are drawn, and their order.
        path: a data set on the hub; or a folder with train*.jsonl and test*.jsonl (or .parquet), or with a subfolder
            `main` that has them; or one such file, which is split into train and eval rows. Columns: `question`, and
            `answer` with the gold after "####".

    Returns:
        Rows with `question` and `answer` (the text after "####").

    Raises:
        RecipeError: the data cannot be read, has no such column, lacks a gold, or has too few rows.
    """
    if num_train is not None:
        check_at_least("num_train", num_train, 1)
    if num_eval is not None:
        check_at_least("num_eval", num_eval, 0)
    splits = _load(path)
    if "test" not in splits and num_eval is None:
        raise RecipeError("task.num_eval=null: a single file has no test split; say how many rows to hold out")
    eval_pool = splits.get("test", splits["train"])
    eval_rows = _draw("num_eval", num_eval, eval_pool, f"gsm8k/eval/{seed}", path)
    held_out = {_identity(row) for row in eval_rows}
    train_pool = [row for row in splits["train"] if _identity(row) not in held_out]
    train_rows = _draw("num_train", num_train, train_pool, f"gsm8k/train/{seed}", path)
    return TaskRows(
        train=[_row(row, path) for row in train_rows],
        eval=[_row(row, path) for row in eval_rows],
        request="Think step by step and end with the final number.",
    )


def _load(path: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split: train and test, or train alone when `path` is one file."""
    import datasets  # slow to import, and other tasks do not need it

    source = _source(path)
    try:
        loaded = datasets.load_dataset(**source)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RecipeError(
            f"task.path={path}: loading failed ({class_and_message(error)}); check the name, the network or the file"
        ) from error
    missing = [
        f"{column} in {name}"
        for name, split in loaded.items()
        for column in ("question", "answer")
        if column not in split.column_names
    ]
    if missing:
        raise RecipeError(f"task.path={path}: has no column {', '.join(missing)}; name the columns question and answer")
    return {name: split.to_list() for name, split in loaded.items()}


def _source(path: str) -> dict[str, Any]:
    """The arguments of `datasets.load_dataset` for a hub name, a folder or a file."""
    local = Path(path).expanduser()
    if not local.exists():
        if local.suffix in FILE_READERS or path.startswith(("/", ".", "~")):
            raise RecipeError(f"task.path={path}: no such file or folder; correct it, or name a data set on the hub")
        return {"path": path, "name": "main"}
    if local.is_file():
        if local.suffix not in FILE_READERS:
            raise RecipeError(f"task.path={path}: not of a known kind; give a {' or '.join(FILE_READERS)} file")
        return {"path": FILE_READERS[local.suffix], "data_files": {"train": [str(local)]}}
    folder = local / "main" if (local / "main").is_dir() else local
    for suffix, reader in FILE_READERS.items():
        files = {split: [str(file) for file in sorted(folder.glob(f"{split}*{suffix}"))] for split in ("train", "test")}
        if all(files.values()):
            return {"path": reader, "data_files": files}
    raise RecipeError(f"task.path={path}: no train* and test* files there; put train.jsonl and test.jsonl into it")


def _identity(row: dict[str, Any]) -> str:
    return " ".join(str(row["question"]).split())


def _draw(option: str, count: int | None, rows: list[dict[str, Any]], seed: str, path: str) -> list[dict[str, Any]]:
    if (1 if count is None else count) > len(rows):
        shown = "null" if count is None else count
        raise RecipeError(
            f"task.{option}={shown}: {path} has {len(rows)} rows for it; ask for fewer, or give more rows"
        )
    return random.Random(seed).sample(rows, len(rows) if count is None else count)


def _row(row: dict[str, Any], path: str) -> dict[str, Any]:
    _, mark, gold = str(row["answer"]).rpartition(GOLD_MARK)
    if not mark or not gold.strip():
        question = str(row["question"])[:60]
        raise RecipeError(f"task.path={path}: no '{GOLD_MARK}' and gold in the answer to {question!r}; add them")
    return {"question": str(row["question"]).strip(), "answer": gold.strip()}
