"""Recipes that extend other recipes: what is merged, what is not, and which file an error names."""

import json

import pytest
import yaml

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.files import bundled_recipes, extended_by
from rl_posttrain.recipe.load import load_recipe

BASE = """
run: {name: base-run, seed: 5}
model: {name: some/model}
task: {name: arithmetic, digits: 2, operators: ["+", "-"]}
rewards:
  - {fn: math_accuracy}
  - {fn: think_answer_format, weight: 0.5}
algorithm: {num_steps: 10, prompts_per_step: 8, group_size: 6, micro_batch_size: 12}
optimizer: {lr: 1.0e-6, betas: [0.8, 0.9], lr_by_role: {embeddings: 1.0e-7}}
rollout: {max_new_tokens: 32}
"""


@pytest.fixture
def write(tmp_path):
    def write(**files: str):
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{next(iter(files))}.yaml"

    return write


def error_of(path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_recipe_says_what_differs_along_a_chain(write):
    child = write(
        child="extends: middle.yaml\noptimizer: {lr: 3.0e-6, lr_by_role: {norms: 1.0e-5}}\ntask: {operators: ['*']}\n",
        middle="extends: ./base.yaml\nalgorithm: {num_steps: 20}\noptimizer: {lr: 2.0e-6}\neval: {num_samples: 4}\n",
        base=BASE,
    )
    recipe = load_recipe(child)
    # Mappings are merged key by key, at any depth; the nearest file wins.
    assert (recipe.algorithm.num_steps, recipe.algorithm.group_size) == (20, 6)
    assert recipe.optimizer.lr == 3e-6
    assert recipe.optimizer.options == {"betas": [0.8, 0.9]}
    assert recipe.optimizer.lr_by_role == {"embeddings": 1e-7, "norms": 1e-5}
    # A list takes the place of a list.
    assert recipe.task.options == {"digits": 2, "operators": ["*"]}
    assert recipe.eval.num_samples == 4
    # A run's name is the file's own; its seed is a value like others.
    assert (recipe.run.name, recipe.run.seed) == ("child", 5)


def test_a_list_of_rewards_takes_the_place_of_the_other(write):
    child = write(child="extends: base.yaml\nrewards:\n  - {fn: countdown_equation}\n", base=BASE)
    assert [(reward.fn, reward.weight) for reward in load_recipe(child).rewards] == [("countdown_equation", 1.0)]


def test_null_takes_a_key_away(write):
    child = write(child="extends: base.yaml\noptimizer: {betas: null}\ntask: {digits: null}\n", base=BASE)
    recipe = load_recipe(child)
    assert recipe.optimizer.options == {}
    assert recipe.task.options == {"operators": ["+", "-"]}


def test_a_single_value_and_a_section_take_each_others_place(write):
    child = write(child="extends: base.yaml\ntask: {digits: {a: 1}, operators: x}\n", base=BASE)
    assert load_recipe(child).task.options == {"digits": {"a": 1}, "operators": "x"}


def test_overrides_come_last(write):
    child = write(child="extends: base.yaml\noptimizer: {lr: 3.0e-6}\n", base=BASE)
    recipe = load_recipe(child, ["optimizer.lr=4.0e-6", "rewards.1.weight=0.25"])
    assert recipe.optimizer.lr == 4e-6
    assert recipe.rewards[1].weight == 0.25


def test_the_resolved_recipe_is_whole(write):
    child = write(child="extends: base.yaml\n", base=BASE)
    data = yaml.safe_load(load_recipe(child).to_yaml())
    assert "extends" not in data
    assert data["optimizer"]["betas"] == [0.8, 0.9]
    path = child.parent / "again.yaml"
    path.write_text(yaml.safe_dump(data))
    assert load_recipe(path) == load_recipe(child)


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path, write, monkeypatch):
    write(base=BASE)
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "child.yaml").write_text("extends: ../base.yaml\n")
    monkeypatch.chdir(folder.parent.parent)
    assert load_recipe(folder / "child.yaml").run.seed == 5


def test_a_bundled_recipe_is_extended_by_its_name(write):
    child = write(mine="extends: quickstart\nalgorithm: {num_steps: 3}\n")
    mine, quickstart = load_recipe(child), load_recipe("quickstart")
    assert mine.algorithm == quickstart.algorithm.model_copy(update={"num_steps": 3})
    assert mine.model == quickstart.model


def test_the_bundled_studies_say_only_what_they_study(run_main):
    parents = {name: extended_by(path) for name, path in bundled_recipes().items()}
    assert parents["studies/betas"] == parents["studies/batch"] == parents["arithmetic_r1zero"] == "quickstart"
    assert load_recipe("studies/betas").algorithm == load_recipe("quickstart").algorithm
    _, stdout, _ = run_main("recipes")
    for line in stdout.splitlines():
        assert line.endswith(" Extends quickstart.") == (parents[line.split()[0]] == "quickstart")
    _, stdout, _ = run_main("recipes", "--json")
    assert {name: found["extends"] for name, found in json.loads(stdout).items()} == parents


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a": "a.yaml"}, "a.yaml -> a.yaml"),
        ({"a": "b.yaml", "b": "c.yaml", "c": "a.yaml"}, "a.yaml -> b.yaml -> c.yaml -> a.yaml"),
        ({"a": "b.yaml", "b": "c.yaml", "c": "b.yaml"}, "a.yaml -> b.yaml -> c.yaml -> b.yaml"),
    ],
)
def test_a_circle_is_one_line(write, files, circle):
    path = write(**{name: f"extends: {parent}\n" for name, parent in files.items()})
    last = circle.rpartition(" ")[2]
    assert error_of(path) == (
        f"extends={last}: the recipes extend each other in a circle ({circle}); remove one of the extends"
    )


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("base.yaml", "extends=base.yaml (in FILE): no such file; `rl-posttrain recipes` lists the bundled ones"),
        ("quikstart", "extends=quikstart (in FILE): no file and no bundled recipe of that name; did you mean 'quicks"),
        ("[quickstart]", "extends=['quickstart'] (in FILE): it should be one name or path"),
        ("3", "extends=3 (in FILE): it should be one name or path"),
    ],
)
def test_a_parent_that_is_not_there(write, parent, message):
    child = write(child=f"extends: {parent}\n")
    assert error_of(child).startswith(message.replace("FILE", str(child)))


def test_a_parent_that_is_no_recipe(write):
    child = write(child="extends: base.yaml\n", base="- 1\n")
    assert error_of(child).startswith(f"RECIPE={child.with_name('base.yaml')}: a recipe is a mapping of sections")


def test_an_override_extends_nothing(write):
    assert error_of(write(base=BASE), "extends=quickstart").startswith("extends=quickstart: extends belongs in a ")


def test_an_error_names_the_file_in_which_the_key_stands(write):
    child = write(
        child="extends: base.yaml\noptimizer: {lr: 3.0e-6, schedule: cosin}\n", base=BASE + "distributed: {stage: 1}\n"
    )
    base = child.with_name("base.yaml")
    assert error_of(child) == (
        f"optimizer.schedule=cosin: it should be 'constant', 'linear' or 'cosine' (in {child}); did you mean 'cosine'?"
    )
    fixed = "optimizer.schedule=cosine"
    assert error_of(child, fixed) == (f"distributed.stage=1: unknown key (in {base}); did you mean 'zero_stage'?")
    # An override is in no file, and what it replaces is gone from its file.
    assert " (in " not in error_of(child, "optimizer={lr: 1.0e-6, schedule: cosin}")
    whole = "distributed={stage: 2}"
    assert error_of(child, fixed, whole) == "distributed.stage=2: unknown key; did you mean 'zero_stage'?"
    kept = "distributed={zero_stage: 1}"
    assert error_of(child, fixed, kept, "rewards.0.weight=x").startswith("rewards.0.weight=x: it should be a valid n")
    assert " (in " not in error_of(child, fixed, kept, "rewards.0.weight=x")


def test_of_a_recipe_that_stands_on_its_own_the_file_goes_without_saying(write):
    assert error_of(write(base=BASE + "distributed: {stage: 1}\n")).startswith("distributed.stage=1: unknown key; ")
