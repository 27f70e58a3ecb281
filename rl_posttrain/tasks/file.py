"""Your own questions: a local jsonl, json, csv or parquet file, a folder of them, or any data set on the hub."""

from collections.abc import Iterable
from itertools import chain

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.tasks.columns import Row, even_out, rows_from, taken_columns
from rl_posttrain.tasks.readers import Record
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import load_splits

# Splits to evaluate on, the first that there is.
_EVAL_SPLITS = ("test", "validation")


def file(
    *,
    path: str,
    columns: dict[str, str | None] | None = None,
    subset: str | None = None,
    split: str | None = None,
    eval_path: str | None = None,
    eval_split: str | None = None,
    request: str = "",
) -> TaskRows:
    """The rows of a file or a data set, with their questions and golds.

    Rows to evaluate on are those of `eval_path`, else of `eval_split`, else of a split `test` or `validation`. Without
    any, `task.num_eval` or `task.eval_share` holds some of the others out.

    Args:
        path: as in `sources.load_splits`.
        columns: from `prompt` or `question`, `answer`, and any name of your own, to columns of the data, as in
            `columns.rows_from`. All further columns keep their names. A question and an answer that are not named are
            taken by their own names, where those leave no doubt.
        subset: of a data set on the hub.
        split: to train on; None for `train`, or for the only one.
        eval_path: another file, folder or data set, with the same columns.
        eval_split: of `eval_path`, or of `path`.
        request: the form that a reply should have; templates for chat add it to the question.

    Raises:
        RecipeError: the data cannot be read as the options say.
    """
    splits = load_splits(path, subset=subset)
    where = f"task.path={path}"
    train, held_out = _parts(splits, where, split, None if eval_path else eval_split)
    where_eval = where
    if eval_path is not None:
        where_eval = f"task.eval_path={eval_path}"
        found = load_splits(eval_path, key="task.eval_path", subset=subset)
        order = (eval_split,) if eval_split else (*_EVAL_SPLITS, "train", *found)
        held_out = _split(found, order, where_eval, "eval_split")
    notes: list[str] = []
    train_rows, columns = _rows(train, where, columns or {}, notes)
    eval_rows, _ = _rows(held_out, where_eval, columns, notes)
    notes += even_out(train_rows + eval_rows)
    return TaskRows(train_rows, eval_rows, request=request, notes=tuple(dict.fromkeys(notes)))


def _parts(
    splits: dict[str, Iterable[Record]], where: str, split: str | None, eval_split: str | None
) -> tuple[Iterable[Record], Iterable[Record]]:
    """What to train on and what to evaluate on, of the splits of one data set."""
    if eval_split is not None:
        held_out = _split(splits, (eval_split,), where, "eval_split")
    elif split is None:
        held_out = next((splits[name] for name in _EVAL_SPLITS if name in splits), ())
    else:
        held_out = ()
    if split is None and "train" not in splits and held_out:
        return (), held_out
    return _split(splits, (split,) if split else ("train", *splits), where, "split"), held_out


def _split(splits: dict[str, Iterable[Record]], order: Iterable[str], where: str, option: str) -> Iterable[Record]:
    order = list(order)
    found = next((name for name in order if name in splits), None)
    if found is None:
        raise RecipeError(f"task.{option}={order[0]}: {where} has no such split; {did_you_mean(order[0], splits)}")
    return splits[found]


def _rows(
    records: Iterable[Record], where: str, columns: dict[str, str | None], notes: list[str]
) -> tuple[list[Row], dict[str, str | None]]:
    """The rows, and the columns with those that were taken by their names."""
    records = iter(records)
    first = next(records, None)
    if first is None:
        return [], columns
    columns, note = taken_columns(first, columns, where)
    notes += [note] if note else []
    unused = [name for name in ("question", "prompt") if name in first and name not in (*columns, *columns.values())]
    if unused:
        notes.append(f"columns left out, since their names mean what the prompt is made of: {', '.join(unused)}")
    return rows_from(chain([first], records), where, columns), columns
