"""DAPO-Math-17k (arXiv:2503.14476): about 17,000 problems whose answers are whole numbers, to train on.

On the hub: BytedTsinghua-SIA/DAPO-Math-17k, split train. It repeats its problems to 1.8 million rows. A row has
`prompt`, one chat message that wraps the problem in an instruction, and `reward_model` with `ground_truth`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rl_posttrain.tasks.published import each_once, published_rows
from rl_posttrain.tasks.readers import Record
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import first_split, load_splits
from rl_posttrain.tasks.templates import BOXED_REQUEST

# What stands around each problem. It asks for "Answer: ...", which is for the task's template to say.
_BEFORE = re.compile(r"\s*Solve the following math problem step by step\. The last line of your response [^\n]*\n+")
_AFTER = re.compile(r'\s*Remember to put your answer on its own line after "Answer:"\.?\s*$')


def dapo_math(*, path: str = "BytedTsinghua-SIA/DAPO-Math-17k") -> TaskRows:
    """Problems to train on, each once and without the instruction: rows with `question` and `answer`.

    `task.num_eval` holds some out.

    Args:
        path: a data set on the hub, a folder or a file, with `prompt` (chat messages or text) and
            `reward_model.ground_truth`.
    """
    notes: list[str] = []
    records = _Different(first_split(load_splits(path), "train"))
    columns = {"question": "prompt", "answer": "reward_model.ground_truth"}
    found = published_rows(records, f"task.path={path}", columns, notes=notes)
    for row in found:
        row["question"] = _AFTER.sub("", _BEFORE.sub("", row["question"], count=1)).strip()
    rows = each_once(found, records.num_repeated + len(found), notes)
    return TaskRows(rows, [], request=BOXED_REQUEST, notes=tuple(notes))


class _Different:
    """The records whose prompts no earlier one has, letter by letter; `num_repeated` counts the others."""

    def __init__(self, records: Iterable[Record]):
        self._records = records
        self.num_repeated = 0

    def __iter__(self) -> Iterator[Record]:
        seen: set[Any] = set()
        for record in self._records:
            prompt = record.get("prompt")
            text = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
            if text in seen:
                self.num_repeated += 1
            else:
                seen.add(text)
                yield record
