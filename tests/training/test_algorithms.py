"""Advantages against values worked out by hand, and against TRL's own on the same rewards."""

import doctest
import math

import pytest
import torch
import trl

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.training.algorithms import grpo
from rl_posttrain.training.algorithms.algorithm import Scored, make_algorithm

NAN = math.nan


def advantages(rewards, *overrides, weights=(1.0,), group_size=4, start=0, num_own=None):
    rewards = torch.tensor(rewards, dtype=torch.float32)
    mask = torch.ones(num_own or len(rewards), 3, dtype=torch.long)
    algorithm = make_algorithm(load_recipe("quickstart", overrides))
    return algorithm.advantages(Scored(rewards, torch.tensor(weights), group_size, start, mask))


def test_the_examples_in_the_docstring_are_true():
    assert doctest.testmod(grpo).failed == 0
    assert doctest.testmod(grpo).attempted > 2


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # Groups (1, 0, 0, 0) and (2, 2, 2, 2); means 1/4 and 2, deviations 1/2 and 0; of all eight 0.99103.
        ("none", [0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0]),
        ("group", [0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, 0, 0, 0, 0]),
        ("batch", [0.75 / 0.99113, -0.25 / 0.99113, -0.25 / 0.99113, -0.25 / 0.99113, 0, 0, 0, 0]),
    ],
)
def test_grpo_by_hand(scale, expected):
    found = advantages([[1], [0], [0], [0], [2], [2], [2], [2]], f"algorithm.scale_rewards={scale}")
    assert found.values.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.metrics["frac_zero_variance"] == (0.0 if scale == "batch" else 0.5)


def test_rewards_are_weighted_and_a_completion_without_any_moves_nothing():
    found = advantages([[1, 0], [NAN, 1], [0, NAN], [NAN, NAN]], "algorithm.scale_rewards=none", weights=(1.0, 0.5))
    # Sums 1, 0.5, 0 and none: the mean is 0.5.
    assert found.values.tolist() == pytest.approx([0.5, 0.0, -0.5, 0.0])


def test_a_process_gets_the_advantages_of_its_own_completions():
    rewards = [[float(value)] for value in (1, 0, 0, 0, 3, 1, 1, 1)]
    whole = advantages(rewards).values
    parts = [advantages(rewards, start=start, num_own=4).values for start in (0, 4)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_equals_trls(aggregation, scale, tmp_path, tiny_model):
    """TRL's own trainer on the same completions and rewards, some of them missing."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    torch.manual_seed(3)
    rewards = torch.rand(16, 2)
    rewards[2, 0], rewards[5, 1] = NAN, NAN
    rewards[7] = NAN
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=16,
        num_generations=4, scale_rewards=scale, multi_objective_aggregation=aggregation, reward_weights=[1.0, 0.3],
        max_completion_length=2,
    )  # fmt: skip

    def given(column):
        return lambda completions, **kwargs: [None if value.isnan() else value.item() for value in rewards[:, column]]

    functions = [given(0), given(1)]
    for number, function in enumerate(functions):
        function.__name__ = f"given_{number}"
    theirs = trl.GRPOTrainer(
        model=str(tiny_model), reward_funcs=functions, args=config,
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 16),
        processing_class=AutoTokenizer.from_pretrained(tiny_model, padding_side="left"),
    )  # fmt: skip
    theirs.model.train()
    expected = theirs._generate_and_score_completions([{"prompt": "1"}] * 16)["advantages"]
    found = advantages(
        rewards.tolist(), f"algorithm.scale_rewards={scale}", f"trl.multi_objective_aggregation={aggregation}",
        weights=(1.0, 0.3),
    )  # fmt: skip
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-6)
    assert found.metrics["frac_zero_variance"] == theirs._metrics["train"]["frac_reward_zero_std"][0]


OWN = """
import torch
from rl_posttrain.training.algorithms.algorithm import Advantages

class Halves:
    def __init__(self, recipe):
        self.size = recipe.algorithm.group_size

    def advantages(self, scored):
        values = torch.full(scored.mask.shape, 0.5)
        values[:, 0] = 1.5
        return Advantages(values, {"group_size_seen": float(self.size)})
"""


def test_an_algorithm_of_ones_own_runs_and_is_recorded(tiny_recipe, tmp_path):
    """Named by file, with one advantage per token: the loop asks for nothing else."""
    from rl_posttrain.training.train import train

    (tmp_path / "halves.py").write_text(OWN)
    recipe = load_recipe(
        tiny_recipe,
        [f"algorithm.name={tmp_path / 'halves.py'}:Halves", "distributed.engine=none", "rollout.engine=transformers",
         "run.name=own-algorithm", "algorithm.num_steps=1"],
    )  # fmt: skip
    run = train(recipe)
    assert run.metrics()[0]["group_size_seen"] == 4.0
    for rollout in run.rollouts(1):
        tokens = rollout["num_tokens"]
        assert rollout["advantage"] == pytest.approx((1.5 + 0.5 * (tokens - 1)) / tokens)


@pytest.mark.parametrize("name", ["gpro", "rl_posttrain.errors:RecipeError"])
def test_what_is_no_algorithm_is_refused(name):
    with pytest.raises(RecipeError, match=f"algorithm.name={name}"):
        make_algorithm(load_recipe("quickstart", [f"algorithm.name={name}"]))
