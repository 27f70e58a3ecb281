"""OlympiadBench (arXiv:2402.14008): olympiad problems; here the 674 of mathematics in English, as text, with an answer.

On the hub: Hothan/OlympiadBench, subset OE_TO_maths_en_COMP, split train, with `question`, `final_answer` (a list) and
`subfield`.
"""

from rl_posttrain.tasks.published import rows_to_evaluate_on
from rl_posttrain.tasks.rows import TaskRows


def olympiad_bench(*, path: str = "Hothan/OlympiadBench", subset: str = "OE_TO_maths_en_COMP") -> TaskRows:
    """Problems to evaluate on: rows with `question`, `answer` (several golds are joined by commas) and `subject`.

    Args:
        path: a data set on the hub, a folder or a file, with `question` and `final_answer`.
        subset: of the data set on the hub.
    """
    columns = {"question": "question", "answer": "final_answer"}
    return rows_to_evaluate_on(path, columns, {"subject": "subfield"}, hub_subset=subset)
