"""Scoring answers with reasoning-gym's own scorers. Only worker processes import this module.

Some scorers evaluate the answer as Python: four by `eval`, five by sympy's `parse_expr`, which calls it. Here both read
plain values and plain mathematics alone. Whatever else a scorer does with a text, `workers.WorkerPool` limits its time
and memory.
"""

import ast
import builtins
import contextlib
import functools
import io
import json
import math
import re
from typing import Any

import reasoning_gym  # noqa: F401  here, so that no call pays for the import
import sympy
from reasoning_gym.algorithmic import binary_matrix, spiral_matrix, string_insertion
from reasoning_gym.games import countdown, n_queens, puzzle24

from rl_posttrain.rewards.gym_datasets import from_text, make_dataset

# By module; tests/contracts/test_reasoning_gym.py finds the calls.
CALL_EVAL = (binary_matrix, n_queens, spiral_matrix, string_insertion)
IMPORT_PARSE_EXPR = (countdown, puzzle24)

_NOT_MATHEMATICS = re.compile(r"[^A-Za-z0-9+\-*/^(),.!\s]|\.\s*[A-Za-z]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_CONSTANTS = ("E", "I", "oo", "pi", "sqrt")
_parse_expr = sympy.parse_expr


def score(entry: str, answer: str) -> float:
    """What the entry's own data set pays for an answer, from 0 to 1.

    Args:
        entry: as the task `reasoning_gym` writes it: name and config of the data set, question, answer and metadata.
    """
    entry = from_text(entry)
    dataset = _dataset(entry["dataset"], json.dumps(entry["config"], sort_keys=True))
    with contextlib.redirect_stdout(io.StringIO()):
        value = float(dataset.score_answer(answer, entry))
    return 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)


@functools.lru_cache(maxsize=128)
def _dataset(name: str, config: str) -> Any:
    return make_dataset(name, json.loads(config), seed=0, size=1)


def parse_mathematics(text: str, *args: Any, **kwargs: Any) -> Any:
    """`sympy.parse_expr` of numbers, letters, operators and functions; ValueError for anything else."""
    if _NOT_MATHEMATICS.search(text) or any(not _is_harmless(name) for name in _NAME.findall(text)):
        raise ValueError("not an expression of numbers, letters, operators and functions")
    return _parse_expr(text, *args, **kwargs)


def _is_harmless(name: str) -> bool:
    """Whether a name in an expression is a letter, a constant or a function of mathematics, and nothing of Python's."""
    if len(name) == 1 or name in _CONSTANTS:
        return True
    return not hasattr(builtins, name) and isinstance(getattr(sympy, name, None), sympy.FunctionClass)


for _module in CALL_EVAL:
    _module.eval = ast.literal_eval
for _module in (sympy, *IMPORT_PARSE_EXPR):
    _module.parse_expr = parse_mathematics
