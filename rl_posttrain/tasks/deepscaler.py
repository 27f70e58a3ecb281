"""DeepScaleR: about 40,000 problems of AIME (to 2023), AMC (before 2023), Omni-MATH and STILL to train on.

On the hub: agentica-org/DeepScaleR-Preview-Dataset, split train, with `problem`, `answer` and `solution`.
"""

from rl_posttrain.tasks.published import each_once, published_rows
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.sources import first_split, load_splits
from rl_posttrain.tasks.templates import BOXED_REQUEST


def deepscaler(*, path: str = "agentica-org/DeepScaleR-Preview-Dataset") -> TaskRows:
    """Problems to train on, each once: rows with `question` and `answer`. `task.num_eval` holds some out.

    Args:
        path: a data set on the hub, a folder or a file, with `problem` and `answer`.
    """
    notes: list[str] = []
    columns = {"question": "problem", "answer": "answer"}
    found = published_rows(first_split(load_splits(path), "train"), f"task.path={path}", columns, notes=notes)
    rows = each_once(found, len(found), notes)
    return TaskRows(rows, [], request=BOXED_REQUEST, notes=tuple(notes))
