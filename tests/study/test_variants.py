"""Names of variants, by hand."""

import re

import pytest

from rl_posttrain.study.variants import not_yet_taken, variant_keys, variant_name, variants_of_runs


def recipe(name="adams", **optimizer):
    return {"run": {"name": "x", "seed": 0}, "optimizer": {"name": name, "lr": 1e-5, **optimizer}}


def test_keys_that_make_a_variant():
    keys = variant_keys(
        {
            "run": {"seed": 1},
            "optimizer": {"name": "adams", "lr_by_role": {"norms": 1e-5}, "fused": None, "no_decay": {}},
            "rewards": [{"fn": "math_accuracy"}],
            "checkpoint": {"every_steps": 3},
            "compare": None,
        }
    )
    assert keys == {
        "optimizer.name": "adams",
        "optimizer.lr_by_role.norms": 1e-5,
        "optimizer.no_decay": {},
        "rewards": [{"fn": "math_accuracy"}],
    }


@pytest.mark.parametrize(
    ("section", "named", "name"),
    [
        ({}, [], "adams"),
        ({"lr": 2e-5}, ["optimizer.lr"], "adams-lr=2e-5"),
        ({"lr": 0.001}, ["optimizer.lr"], "adams-lr=0.001"),
        ({"lr": 1e20}, ["optimizer.lr"], "adams-lr=1e20"),
        ({"betas": [0.9, 0.95]}, ["optimizer.betas", "optimizer.lr"], "adams-betas=0.9,0.95-lr=1e-5"),
        ({"betas": (0.9, 0.95)}, ["optimizer.betas"], "adams-betas=0.9,0.95"),
        ({"bias_correction": True}, ["optimizer.bias_correction"], "adams-bias_correction=true"),
        ({"lr_by_role": {"norms": 2e-5}}, ["optimizer.lr_by_role"], "adams-norms=2e-5"),
        ({}, ["optimizer.betas"], "adams"),
        ({"name": "mine/a.py:Sign"}, [], "Sign"),
        ({"name": "a b/$(x)"}, [], "a-b-x"),
        ({"name": "--help"}, [], "help"),
        ({"name": "\u65e5"}, [], "run"),
    ],
)
def test_a_name_by_hand(section, named, name):
    found = variant_name(variant_keys(recipe(**section)), named)
    assert found == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,-]*", found)


def test_keys_of_a_critic_are_not_taken_for_those_of_the_policy():
    critic = {"gae_lambda": 0.95, "warmup_steps": 1, "optimizer": {"name": "adamw", "lr": 1e-4, "warmup_steps": 2}}
    keys = variant_keys(recipe(warmup_steps=3) | {"critic": critic})
    named = ["optimizer.lr", "optimizer.warmup_steps", *(f"critic.{key}" for key in critic)]
    assert variant_name(keys, named) == (
        "adams-lr=1e-5-warmup_steps=3-gae_lambda=0.95-critic.warmup_steps=1-"
        "critic.optimizer=adamw-critic.optimizer.lr=0.0001-critic.optimizer.warmup_steps=2"
    )


def test_runs_of_a_comparison_keep_the_name_in_their_folders():
    runs = [(f"mine-seed{seed}", seed, recipe()) for seed in (0, 1)] + [("theirs-seed0", 0, recipe("adamw"))]
    assert variants_of_runs(runs) == ["mine", "mine", "theirs"]


def test_other_names_come_from_the_recipes():
    runs = [("mine", 0, recipe()), ("mine-seed1", 1, recipe()), ("theirs-seed1", 0, recipe("adamw"))]
    # One of two runs has no such name; the last name has another seed than its recipe.
    assert variants_of_runs(runs) == ["adams", "adams", "adamw"]


def test_one_name_for_two_recipes_is_used_for_neither():
    runs = [("adams-seed0", 0, recipe()), ("adams-seed0", 0, recipe(lr=1e-4))]
    assert variants_of_runs(runs) == ["adams-lr=1e-5", "adams-lr=0.0001"]


def test_two_names_for_one_recipe_are_one_variant():
    runs = [("a-seed0", 0, recipe()), ("b-seed1", 1, recipe()), ("c-seed0", 0, recipe("sgd"))]
    assert variants_of_runs(runs) == ["adams", "adams", "c"]


def test_names_are_never_shared():
    # "x/y" and "x y" become the same characters in a name.
    runs = [("a", 0, recipe("x/y")), ("b", 0, recipe("x y")), ("x-y-seed0", 0, recipe("sgd"))]
    names = variants_of_runs(runs)
    assert len(set(names)) == 3


def test_the_first_number_that_is_free():
    assert not_yet_taken("a", []) == "a"
    assert not_yet_taken("a", ["a", "a-2", "b"]) == "a-3"
