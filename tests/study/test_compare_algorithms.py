"""Comparisons of algorithms: each variant has the defaults of its own, and a critic where it needs one."""

from pathlib import Path

import pytest

from rl_posttrain.cost.refusals import check_training
from rl_posttrain.recipe.load import load_recipe, parse_recipe
from rl_posttrain.study.plan import plan_runs, read_plan
from rl_posttrain.study.variants import variants_of_runs

NAMES = ("grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "ppo")
# Of each algorithm: where its KL penalty goes, by which estimator, and what rewards are divided by.
DEFAULTS = {
    "grpo": ("loss", "k3", "group"),
    "rloo": ("reward", "k1", None),
    "reinforce_pp": ("reward", "k1", None),
    "reinforce_pp_baseline": ("loss", "k2", None),
    "ppo": ("reward", "k1", None),
}


def plan(recipe, *vary, optimizers="adams,adamw"):
    names, seeds, settings = read_plan(recipe, optimizers=optimizers, seeds="0,1", vary=vary)
    return plan_runs(recipe, names, seeds, settings, Path("compared"))


@pytest.mark.parametrize("source", ["quickstart", "quickstart_ppo"])
def test_algorithms_can_be_varied_from_each_of_them(source):
    recipe = load_recipe(source)
    runs = plan(recipe, f"algorithm.name={','.join(NAMES)}")
    wanted = [f"{optimizer}-algorithm={name}" for optimizer in ("adams", "adamw") for name in NAMES]
    assert [run.variant for run in runs] == 2 * wanted
    for run in runs:
        section, critic = run.recipe.algorithm, run.recipe.critic
        assert (section.kl_in, section.kl_estimator, section.scale_rewards) == DEFAULTS[section.name]
        assert (critic is not None) == (section.name == "ppo")
        assert run.recipe.optimizer.name == run.variant.partition("-")[0]
        check_training(run.recipe, 1)
        # What is written into the run directory reads back as the same recipe, under the same name.
        assert parse_recipe(run.recipe.model_dump(mode="json")) == run.recipe
    read_back = [(run.recipe.run.name, run.seed, run.recipe.model_dump(mode="json")) for run in runs]
    assert variants_of_runs(read_back) == [run.variant for run in runs]


def test_all_but_what_goes_by_the_algorithm_is_the_recipe():
    recipe = load_recipe("quickstart_ppo", ["critic.gae_lambda=0.95", "critic.optimizer.lr=3.0e-5"])
    grpo, ppo, *_ = (run.recipe for run in plan(recipe, "algorithm.name=grpo,ppo", optimizers="adams"))
    assert ppo.critic == recipe.critic
    own = {"name", "kl_in", "kl_estimator", "scale_rewards"}
    assert grpo.algorithm.model_dump(exclude=own) == ppo.algorithm.model_dump(exclude=own)
    others = {"run", "algorithm", "critic", "compare"}
    assert grpo.model_dump(exclude=others) == ppo.model_dump(exclude=others)


def test_critics_can_be_varied_and_a_critic_that_none_uses_is_a_mistake(run_main, tmp_path):
    runs = plan(load_recipe("quickstart_ppo"), "critic.gae_lambda=0.9,1.0", optimizers="adams")
    assert [run.recipe.critic.gae_lambda for run in runs] == [0.9, 1.0] * 2
    assert len({run.variant for run in runs}) == 2
    arguments = ("--optimizers", "adams", "--vary", "algorithm.name=ppo,grpo", "--vary", "critic.gae_lambda=0.9")
    status, _, stderr = run_main("compare", "quickstart", *arguments, "--out", tmp_path / "compared")
    assert status == 2
    assert stderr.startswith("rl-posttrain: critic.gae_lambda=0.9: algorithm.name=grpo has no critic; ")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "compared").exists()


def test_a_variant_can_bring_its_critic_to_a_recipe_without_one():
    vary = "compare.vary=[{algorithm.name: grpo}, {algorithm.name: ppo, critic.optimizer.lr: 3.0e-5}]"
    grpo, ppo, *_ = (run.recipe for run in plan(load_recipe("quickstart", [vary]), optimizers="adams"))
    assert grpo.critic is None
    assert ppo.critic.optimizer.lr == 3e-5
