"""AMC 2023: 40 problems of the American Mathematics Competitions, AMC 12, without their choices.

On the hub: math-ai/amc23, split test, with `question` and `answer`.
"""

from rl_posttrain.tasks.published import rows_to_evaluate_on
from rl_posttrain.tasks.rows import TaskRows


def amc(*, path: str = "math-ai/amc23") -> TaskRows:
    """Problems to evaluate on: rows with `question` and `answer`.

    Args:
        path: a data set on the hub, a folder or a file, with `question` and `answer`.
    """
    return rows_to_evaluate_on(path, {"question": "question", "answer": "answer"})
