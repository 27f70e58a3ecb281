"""Values of recipes, overrides and options: YAML 1.2, strict types, no key twice."""

from pathlib import Path

import pytest
import yaml
from test_recipe import MINIMAL, changed, error_of

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import check_arguments
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.study.plan import read_plan


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("algorithm.num_steps", True, "algorithm.num_steps=True: it should be a valid integer; set such a value"),
        ("algorithm.num_steps", "010", "algorithm.num_steps=010: it should be a valid integer; write it as 10"),
        ("algorithm.num_steps", "1:30", "algorithm.num_steps=1:30: it should be a valid integer; set such a value"),
        ("algorithm.num_steps", 8.0, "algorithm.num_steps=8.0: it should be a valid integer; set such a value"),
        ("optimizer.lr", "1e-5", "optimizer.lr=1e-5: it should be a valid number; write it as 1e-05"),
        ("optimizer.lr", True, "optimizer.lr=True: it should be a valid number; set such a value"),
        ("optimizer.lr_by_role", {"norms": True}, "optimizer.lr_by_role.norms=True: it should be a valid number; set"),
        ("distributed.zero_stage", "2", "distributed.zero_stage=2: it should be 0, 1, 2 or 3; write it as 2"),
        ("distributed.zero_stage", True, "distributed.zero_stage=True: it should be a valid integer; set such a value"),
        ("eval.at_start", "yes", "eval.at_start=yes: it should be true or false; write it as true"),
        ("eval.at_start", "Off", "eval.at_start=Off: it should be true or false; write it as false"),
        ("eval.at_start", 1, "eval.at_start=1: it should be true or false; set such a value"),
        ("run.seed", 2**32, "run.seed=4294967296: it should be less than 4294967296; set such a value"),
        ("run.seed", 2**64, "run.seed=18446744073709551616: it should be less than 4294967296; set such a value"),
        ("compare", {"seeds": [2**64]}, "compare.seeds.0=18446744073709551616: it should be less than 4294967296; set"),
        ("eval.k", [], "eval.k=[]: it should have an entry or more; set such a value"),
        ("eval.k", [True], "eval.k.0=True: it should be a valid integer; set such a value"),
        ("rewards.0.range", [False, True], "rewards.0.range.0=False: it should be a valid number; set such a value"),
    ],
)
def test_types_are_strict(key, value, told):
    assert error_of(changed(key, value)).startswith(told)


@pytest.mark.parametrize("override", ["algorithm.num_steps=010", "algorithm.num_steps=true", "eval.at_start=yes"])
def test_types_of_overrides_are_strict(file, override):
    with pytest.raises(RecipeError, match=f"^{override.replace('true', 'True')}: it should be "):
        load_recipe(file, [override])


def test_numbers_of_overrides_are_those_of_yaml_1_2(file):
    recipe = load_recipe(file, ["optimizer.lr=1e-5", "task.digits=1e-5", "trl.top_k=no", "task.other=010"])
    assert recipe.optimizer.lr == 1e-5
    assert (recipe.task.options, recipe.trl) == ({"digits": 1e-5, "other": "010"}, {"top_k": "no"})


def test_a_key_that_stands_twice_is_named_with_both_lines(file):
    file.write_text(file.read_text() + "eval:\n  every_steps: 2\n  k: [1]\n  every_steps: 3\n")
    lines = file.read_text().splitlines()
    places = [number for number, line in enumerate(lines, 1) if "every_steps" in line]
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value) == (
        f"RECIPE={file}: cannot be read as YAML: the key every_steps stands twice, on line {places[0]} and line "
        f"{places[1]}; correct the file"
    )


def test_a_key_that_stands_twice_in_an_override_or_a_varied_value(file):
    with pytest.raises(RecipeError, match=r"optimizer={lr: 1, lr: 2}: .*the key lr stands twice"):
        load_recipe(file, ["optimizer={lr: 1, lr: 2}"])
    for values in ("{norms: 1, norms: 2}", "[1"):
        with pytest.raises(RecipeError, match=r"--vary=optimizer.lr_by_role=.*: a value is not valid YAML"):
            read_plan(load_recipe(file), optimizers=None, seeds=None, vary=[f"optimizer.lr_by_role={values}"])


def test_values_of_a_comparison_are_those_of_a_recipe(file):
    _, _, settings = read_plan(load_recipe(file), optimizers=None, seeds=None, vary=["optimizer.lr=1e-5,1e-6"])
    assert settings == [{"optimizer.lr": 1e-5}, {"optimizer.lr": 1e-6}]


def task(
    digits: int = 1, share: float = 0.5, quick: bool = False, years: tuple[int, ...] = (), folder: Path = Path(".")
) -> None:
    """Options of every type that a task may have."""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"digits": True}, "task.digits=True: input should be a valid integer; set a value of the type int"),
        ({"digits": "010"}, "task.digits=010: input should be a valid integer; set a value of the type int"),
        ({"digits": 2.0}, "task.digits=2.0: input should be a valid integer; set a value of the type int"),
        ({"share": False}, "task.share=False: input should be a valid number; set a value of the type float"),
        ({"quick": "yes"}, "task.quick=yes: input should be a valid boolean; set a value of the type bool"),
        ({"quick": 1}, "task.quick=1: input should be a valid boolean; set a value of the type bool"),
        ({"years": [24, True]}, "task.years=[24, True]: input should be a valid integer; set a value of the type tup"),
    ],
)
def test_types_of_options_are_strict(options, told):
    with pytest.raises(RecipeError) as caught:
        check_arguments(task, options, key="task")
    assert str(caught.value).startswith(told)


def test_options_become_what_their_function_declares():
    given = {"digits": 2, "share": 1, "quick": True, "years": [24, 25], "folder": "x"}
    made = check_arguments(task, given, key="task")
    assert made == {"digits": 2, "share": 1.0, "quick": True, "years": (24, 25), "folder": Path("x")}
