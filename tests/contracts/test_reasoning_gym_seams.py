"""The seams of reasoning-gym that the task, the reward and its workers use."""

import ast
import inspect
from pathlib import Path

import reasoning_gym
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS

# What runs code that a text holds.
EVALUATES = {"eval", "exec", "parse_expr", "sympify", "lambdify", "literal_eval", "__import__"}


def test_only_the_scorers_that_the_worker_tames_evaluate_an_answer():
    """Calls anywhere in the package but in its compiler of Brainfuck, which only makes questions."""
    found = set()
    for path in Path(reasoning_gym.__file__).parent.rglob("*.py"):
        if "contrib" not in path.parts:
            calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if type(node) is ast.Call)
            names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
            found |= {(path.stem, name) for name in names & EVALUATES}
    of_answers = {
        ("binary_matrix", "eval"),
        ("n_queens", "eval"),
        ("spiral_matrix", "eval"),
        ("string_insertion", "eval"),
        ("countdown", "parse_expr"),
        ("puzzle24", "parse_expr"),
        ("intermediate_integration", "parse_expr"),
        ("polynomial_multiplication", "parse_expr"),
        ("simple_integration", "parse_expr"),
    }
    of_nothing_that_a_model_wrote = {
        ("basic_arithmetic", "eval"),  # makes a question
        ("bitwise_arithmetic", "eval"),  # the entry's problem
        ("codeio", "exec"),  # the data set's own programs, to make a question
        ("generators_00_49", "eval"),  # makes a question
        ("generators_50_99", "eval"),  # makes a question
        ("number_sorting", "eval"),  # the entry's answer
        ("propositional_logic", "parse_expr"),  # a parser of its own
    }
    assert found == of_answers | of_nothing_that_a_model_wrote


def test_the_registry_gives_the_class_of_a_data_set_and_of_its_config():
    dataset_class, config_class = DATASETS["chain_sum"]
    assert issubclass(dataset_class, ProceduralDataset)
    assert {"seed", "size"} <= set(inspect.signature(config_class).parameters)
    assert list(inspect.signature(dataset_class.score_answer).parameters) == ["self", "answer", "entry"]
    item = dataset_class(config_class(seed=0, size=1))[0]
    assert set(item) == {"question", "answer", "metadata"}
