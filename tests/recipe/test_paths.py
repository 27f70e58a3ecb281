"""Paths in recipes: `~`, variables and the working directory are filled in once, when a recipe is loaded."""

import copy
from pathlib import Path

import pytest
import yaml
from test_recipe import MINIMAL

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.evaluation import evaluation_for
from rl_posttrain.recipe.load import load_recipe


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, a variable and a working directory."""
    for name in ("home", "data", "here/models/mine"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def load(folder: Path, *overrides: str):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(copy.deepcopy(MINIMAL)))
    return load_recipe(path, overrides)


KEYS = {
    "run.output_dir": "{}/x",
    "model.name": "{}/x",
    "critic.model": "{}/x",
    "algorithm.name": "{}/x.py:Mine",
    "optimizer.name": "{}/x.py:Mine",
    "critic.optimizer.name": "{}/x.py:Mine",
    "rewards.0.fn": "{}/x.py:mine",
    "task.name": "{}/x.py:mine",
    "task.path": "{}/x.jsonl",
    "task.eval_path": "{}/x.jsonl",
    "task.template": "{}/x.txt",
    "task.system": "{}/x.txt",
    "task.filter.difficulty.results": "{}/x",
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("start", "meant"), [("~", "home"), ("$MY_DATA", "data"), ("${MY_DATA}", "data"), (".", "here")]
)
def test_every_path_is_whole_when_a_recipe_is_loaded(home, key, start, meant):
    recipe = load(home, f"{key}='{KEYS[key].format(start)}'")
    value = recipe.model_dump(mode="json")
    for name in key.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    assert value == KEYS[key].format(home / meant)


def test_paths_of_the_parts_of_a_mixture(home):
    parts = "task.parts=[{name: file, path: $MY_DATA/a.jsonl}, {name: '~/b.py:rows', template: t.txt}]"
    one, other = load(home, "task.name=mixture", parts).task.parts
    assert one.options["path"] == f"{home}/data/a.jsonl"
    assert (other.name, other.template) == (f"{home}/home/b.py:rows", f"{home}/here/t.txt")


def test_names_and_texts_stay_as_they_are(home):
    texts = ["task.system='It costs $5.'", "task.template=qa", "task.path=openai/gsm8k", "rewards.0.fn=a.b:c"]
    recipe = load(home, *texts)
    assert (recipe.task.system, recipe.task.template, recipe.task.options) == (
        "It costs $5.", "qa", {"path": "openai/gsm8k"},
    )  # fmt: skip
    assert (recipe.model.name, recipe.rewards[0].fn, recipe.optimizer.name) == ("some/model", "a.b:c", "adams")
    # A folder that is there is no name of the hub.
    assert load(home, "model.name=models/mine").model.name == f"{home}/here/models/mine"


def test_a_run_is_in_one_folder_whose_recipe_means_the_same_from_everywhere(home, monkeypatch):
    recipe = load(home, "task.template=t.txt", "rewards.0.fn=r.py:pay")
    assert recipe.run.output_dir == f"{home}/here/runs"
    assert str(recipe.run_path) == "runs/minimal"  # shown from here
    (home / "again.yaml").write_text(recipe.to_yaml())
    monkeypatch.chdir(home / "data")
    again = load_recipe(home / "again.yaml")
    assert again == recipe
    assert again.run_path == home / "here/runs/minimal"


def test_an_evaluation_reads_paths_in_the_same_way(home):
    found = evaluation_for("m", task="file", options={}, overrides=["task.path=~/q.jsonl"], recipe=None)
    assert found.task.options["path"] == f"{home}/home/q.jsonl"


def test_an_evaluation_of_a_run_with_servers_draws_in_its_own_process():
    recipe = load_recipe("quickstart_server").model_dump(mode="json")
    found = evaluation_for("m", task=None, options={}, overrides=[], recipe=recipe)
    assert (found.rollout.engine, found.rollout.servers) == ("vllm", ())
    with pytest.raises(RecipeError, match=r"rollout.engine=vllm_server: an evaluation outside of training draws in"):
        evaluation_for(
            "m",
            task=None,
            options={},
            overrides=["rollout.engine=vllm_server", "rollout.servers=[http://127.0.0.1:8000]"],
            recipe=recipe,
        )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("task.path=$NO_SUCH/x.jsonl", "the environment variable NO_SUCH is not set; set it, or write a path"),
        ("run.output_dir=${NO_SUCH}", "the environment variable {NO_SUCH} is not set; set it, or write a path"),
        ("run.output_dir=~nobody_here/x", "there is no user ~nobody_here; write an absolute path"),
    ],
)
def test_what_means_nothing_is_one_line(home, override, told):
    with pytest.raises(RecipeError) as caught:
        load(home, override)
    assert str(caught.value) == f"{override}: {told}"
