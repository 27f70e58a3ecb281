"""Minerva Math (arXiv:2206.14858): 272 problems of MIT's undergraduate courses in science, with numbers and formulas.

On the hub: math-ai/minervamath, split test, with `question` and `answer`.
"""

from rl_posttrain.tasks.published import rows_to_evaluate_on
from rl_posttrain.tasks.rows import TaskRows


def minerva(*, path: str = "math-ai/minervamath") -> TaskRows:
    """Problems to evaluate on: rows with `question` and `answer`.

    Args:
        path: a data set on the hub, a folder or a file, with `question` and `answer`.
    """
    return rows_to_evaluate_on(path, {"question": "question", "answer": "answer"})
