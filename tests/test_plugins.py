"""Naming code in a recipe: built-ins, modules and files, and arguments checked against signatures."""

import pickle
import sys
from collections.abc import Sequence

import pytest

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.plugins import check_arguments, load_object

TABLE = {"square": "rl_posttrain_test_squares:square", "json": "json:dumps"}


def error_of(function, *arguments, **named) -> str:
    with pytest.raises(RecipeError) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_did_you_mean_tells_the_nearest_or_all():
    assert did_you_mean("adms", ["adamw", "adams", "scale"]) == "did you mean 'adams'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"


def test_a_name_of_the_table_and_a_module_path_are_the_same_object():
    import json

    assert load_object("json", table=TABLE, key="k") is json.dumps
    assert load_object("json:dumps", table=TABLE, key="k") is json.dumps


def test_a_file_is_run_once_and_what_it_holds_can_be_pickled(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text("import pathlib\nruns = pathlib.Path(__file__).with_name('runs')\nruns.open('a').write('x')\n"
                    "def square(x):\n    return x * x\n")  # fmt: skip
    square = load_object(f"{path}:square", table={}, key="k")
    assert square(3) == 9
    monkeypatch.chdir(tmp_path)
    assert load_object("mine.py:square", table={}, key="k") is square
    assert (tmp_path / "runs").read_text() == "x"
    assert pickle.loads(pickle.dumps(square)) is square


def test_two_files_of_one_name_are_two(tmp_path):
    functions = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def name():\n    return {folder!r}\n")
        functions.append(load_object(f"{tmp_path / folder / 'mine.py'}:name", table={}, key="k"))
    assert [function() for function in functions] == ["a", "b"]


def test_names_that_lead_nowhere(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def square(x):\n    return x * x\n")
    assert error_of(load_object, "sqare", table=TABLE, key="rewards.0.fn").startswith(
        "rewards.0.fn=sqare: no built-in of that name; did you mean 'square'?"
    )
    assert "no file" in error_of(load_object, f"{tmp_path}/other.py:x", table=TABLE, key="k")
    assert "has no 'sqare'; did you mean 'square'?" in error_of(load_object, f"{path}:sqare", table=TABLE, key="k")
    assert "importing no_such_package failed: ModuleNotFoundError" in error_of(
        load_object, "no_such_package:x", table=TABLE, key="k"
    )


def test_a_file_that_breaks_is_named_and_may_be_mended(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise RuntimeError('two\\nlines')\n")
    text = error_of(load_object, f"{path}:square", table={}, key="k")
    assert text == f"k={path}:square: running {path} failed: RuntimeError: two lines"
    path.write_text("def square(x)\n")
    assert "SyntaxError" in error_of(load_object, f"{path}:square", table={}, key="k")
    path.write_text("def square(x):\n    return x * x\n# longer, so that no stale bytecode of it is taken\n")
    assert load_object(f"{path}:square", table={}, key="k")(4) == 16
    assert [name for name in sys.modules if name.startswith("rl_posttrain_plugin_mine")]


def some_task(*, seed: int, num_train: int, operators: Sequence[str] = ("+",), share: float = 0.5, plain=None):
    """Stands for a task."""


class SomeOptimizer:
    def __init__(self, params, lr: float, betas: tuple[float, float] = (0.9, 0.95), flag: bool | None = None):
        """Stands for an optimizer."""


def open_ended(completions, threshold: float = 0.5, **kwargs):
    """Stands for a reward."""


def test_arguments_come_back_in_their_declared_types():
    given = {"num_train": 3, "operators": ["+", "-"], "share": 1, "plain": {"any": "thing"}}
    assert check_arguments(some_task, given, key="task", supplied=("seed",)) == given
    betas = check_arguments(SomeOptimizer, {"lr": 1, "betas": [0.9, 0.99]}, key="optimizer", supplied=("params",))
    assert betas == {"lr": 1.0, "betas": (0.9, 0.99)}
    assert isinstance(betas["betas"], tuple)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num_train": 3, "operator": ["+"]},
            "task.operator=['+']: some_task takes no such argument; did you mean",
        ),
        ({"num_train": 3, "seed": 1}, "task.seed=1: some_task takes no such argument; "),  # the project's to pass
        ({"num_train": "many"}, "task.num_train=many: input should be a valid integer"),
        ({"num_train": 3, "share": "half"}, "task.share=half: input should be a valid number"),
        ({"num_train": 3, "operators": 7}, "task.operators=7: "),
        ({}, "task.num_train: missing; some_task needs it, so set it"),
    ],
)
def test_arguments_that_do_not_fit(given, message):
    assert error_of(check_arguments, some_task, given, key="task", supplied=("seed",)).startswith(message)


def test_open_keywords_take_anything_unless_names_are_asked_for():
    given = {"threshold": 1, "anything": 2}
    assert check_arguments(open_ended, given, key="k", supplied=("completions",)) == given
    text = error_of(check_arguments, open_ended, {"treshold": 1}, key="k", supplied=("completions",), named_only=True)
    assert text == "k.treshold=1: open_ended takes no such argument; did you mean 'threshold'?"
    assert check_arguments(open_ended, {"threshold": 1}, key="k", supplied=("completions",), named_only=True)


def test_a_function_without_arguments_of_its_own_says_so():
    def bare(completions, **kwargs):
        """Stands for a reward without options."""

    text = error_of(check_arguments, bare, {"x": 1}, key="k", supplied=("completions",), named_only=True)
    assert text == "k.x=1: bare takes no such argument; it takes none; leave it out"


@pytest.mark.parametrize("thing", [sys, 3, "text", max])
def test_what_has_no_signature_is_a_users_mistake(thing):
    assert "whose arguments Python does not know; name a function or a class" in error_of(
        check_arguments, thing, {}, key="task"
    )
