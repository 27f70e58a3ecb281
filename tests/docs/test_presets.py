"""docs/algorithms.md: each preset's keys are a recipe that can be trained, and its own algorithm trains."""

import re

import pytest
import torch
from pages import ROOT, write_examples

from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.training.algorithms import ALGORITHMS
from rl_posttrain.training.algorithms.algorithm import Scored, make_algorithm
from rl_posttrain.training.backends.backend import make_backend
from rl_posttrain.training.train import train
from rl_posttrain.training.trl_config import grpo_config

PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("<!-- presets -->")[2].partition("<!-- end of presets -->")[0].strip().splitlines()[2:]
]
PRESETS = {name: (re.findall(r"`([^`]+)`", keys), recipe.strip(" |")) for name, _, keys, recipe in ROWS}
PUBLISHED = {
    "GRPO", "Dr. GRPO", "DAPO", "GSPO", "CISPO", "RLOO", "REINFORCE++", "REINFORCE++ with baseline", "PPO", "VC-PPO",
    "VAPO",
}  # fmt: skip


def preset(name: str):
    """The quickstart with the preset's keys, long enough for a warm-up, in micro batches that fit mini batches."""
    return load_recipe("quickstart", ["algorithm.micro_batch_size=1", "algorithm.num_steps=60", *PRESETS[name][0]])


def test_every_preset_is_in_the_table_and_every_algorithm_in_the_other():
    assert set(PRESETS) == PUBLISHED
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Presets")[0], re.MULTILINE)) == set(ALGORITHMS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_keys_of_a_preset_are_a_recipe_that_trl_takes(name):
    recipe = preset(name)
    sizes = derive_sizes(recipe, 1)
    resolve(recipe)
    make_algorithm(recipe)
    config = grpo_config(recipe, sizes, make_backend(recipe, sizes), on_cpu=True)
    for key in (key for key in PRESETS[name][0] if key.startswith("trl.")):
        field, _, value = key.removeprefix("trl.").partition("=")
        assert str(getattr(config, field)) == value


@pytest.mark.parametrize("name", [name for name, (_, recipes) in PRESETS.items() if recipes])
def test_the_recipes_of_a_preset_have_its_algorithm(name):
    recipes = [word for word in re.findall(r"`([\w.]+)`", PRESETS[name][1]) if word in bundled_recipes()]
    assert recipes
    for recipe in map(load_recipe, recipes):
        assert recipe.algorithm.name == preset(name).algorithm.name
        if name in ("Dr. GRPO", "GRPO"):
            assert recipe.algorithm.scale_rewards == preset(name).algorithm.scale_rewards
            assert recipe.algorithm.kl_bias_correction == preset(name).algorithm.kl_bias_correction


def test_the_algorithm_with_a_critic_trains(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_examples("docs/algorithms.md", tmp_path) == ["my_actor_critic.py", "my_actor_critic.yaml"]
    recipe = load_recipe(
        "my_actor_critic.yaml",
        [f"model.name={tiny_model}", "rollout.engine=transformers", "rollout.max_new_tokens=4", "logging.trackers=[]",
         "distributed.engine=none", "checkpoint.every_steps=0", "checkpoint.final_model=false", "task.num_train=8",
         "task.num_eval=2", "algorithm.num_steps=2", "algorithm.prompts_per_step=8", "algorithm.group_size=1",
         "algorithm.micro_batch_size=4", "algorithm.num_mini_batches=2", "algorithm.num_epochs=1"],
    )  # fmt: skip
    rows = train(recipe).metrics()
    assert len(rows) == 2
    assert rows[1]["value_loss"] > 0
    assert rows[1]["lr/critic"] == recipe.critic.optimizer.lr
    assert {"advantage_mean", "advantage_std"} <= rows[0].keys()


def test_the_algorithm_with_a_critic_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_examples("docs/algorithms.md", tmp_path)
    algorithm = load_object("my_actor_critic.py:ActorCritic", table={}, key="example")(
        load_recipe("my_actor_critic.yaml", ["critic.whiten_advantages=false"])
    )
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    values = torch.tensor([[0.5, 0.25, 0.0, 9.0], [0.5, 0.5, 9.0, 9.0]])
    scored = Scored(torch.tensor([[1.0], [0.0]]), torch.tensor([2.0]), 1, 0, mask, values=values)
    found = algorithm.advantages(scored)
    assert found.returns.tolist() == [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]
    assert found.values.tolist() == [[1.5, 1.75, 2.0], [-0.5, -0.5, 0.0]]
