"""The folder of an evaluation: what is in it, and reading it back.

settings.json     whatever decides the samples: model, task, sampling, seed
samples.jsonl     one object per sample: prompt, completion, rewards, whether it is right
questions.jsonl   one object per question: its metrics
results.json      every metric with its standard error; written last
"""

from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError
from rl_posttrain.runs.files import read_json_lines, read_json_object

SETTINGS_FILE = "settings.json"
SAMPLES_FILE = "samples.jsonl"
QUESTIONS_FILE = "questions.jsonl"
RESULTS_FILE = "results.json"


def read_results(folder: Path) -> dict[str, Any]:
    """The numbers of an evaluation.

    Raises:
        RunError: there is no finished evaluation, or its file is damaged.
    """
    results = read_json_object(folder / RESULTS_FILE)
    if results is None:
        raise RunError(f"{folder}: no {RESULTS_FILE}; name the folder of an evaluation that has ended")
    return results


def read_questions(folder: Path) -> list[dict[str, Any]]:
    """The questions of an evaluation in order, each with ``prompt``, ``answer`` and its ``metrics``."""
    read_results(folder)
    return read_json_lines(folder / QUESTIONS_FILE)
