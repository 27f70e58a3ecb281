"""Advantages against values worked out by hand, and against TRL's own on the same rewards. PPO's: test_ppo.py."""

import doctest
import importlib
import math
import statistics

import pytest
import torch
import trl
from several_processes import advantages_on

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.training.algorithms.algorithm import Scored, make_algorithm
from rl_posttrain.training.before_update import kl_penalty

NAN = math.nan


def advantages(rewards, *overrides, weights=(1.0,), group_size=4, start=0, num_own=None):
    rewards = torch.tensor(rewards, dtype=torch.float32)
    mask = torch.ones(num_own or len(rewards), 3, dtype=torch.long)
    algorithm = make_algorithm(load_recipe("quickstart", overrides))
    return algorithm.advantages(Scored(rewards, torch.tensor(weights), group_size, start, mask))


@pytest.mark.parametrize("module", ["grpo", "rloo", "reinforce_pp", "ppo"])
def test_the_examples_in_the_docstrings_are_true(module):
    found = doctest.testmod(importlib.import_module(f"rl_posttrain.training.algorithms.{module}"))
    assert found.failed == 0
    assert found.attempted > 0


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


@pytest.mark.parametrize("group_size", [3, 6, 7])
def test_groups_of_equal_rewards_teach_nothing_under_a_group_baseline(group_size):
    """A batch of nothing else is not the rounding of its means, normalized to 1."""
    rewards = [[value] for value in (0.1, 0.7, 1.1) for _ in range(group_size)]
    overrides = ("algorithm.name=reinforce_pp_baseline", f"algorithm.group_size={group_size}")
    found = advantages(rewards, *overrides, "algorithm.micro_batch_size=1", group_size=group_size)
    assert not found.values.any()


def test_a_process_gets_the_advantages_of_its_own_completions():
    rewards = [[float(value)] for value in (1, 0, 0, 0, 3, 1, 1, 1)]
    whole = advantages(rewards).values
    parts = [advantages(rewards, start=start, num_own=4).values for start in (0, 4)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_equals_trls(aggregation, scale, tmp_path, tiny_model):
    options = {"scale_rewards": scale, "multi_objective_aggregation": aggregation}
    theirs = trainer_of_trl("GRPO", tmp_path, tiny_model, **options)
    expected = theirs._generate_and_score_completions([{"prompt": "1"}] * 16)["advantages"]
    found = advantages(
        REWARDS.tolist(), f"algorithm.scale_rewards={scale}", f"trl.multi_objective_aggregation={aggregation}",
        weights=(1.0, 0.3),
    )  # fmt: skip
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-6)
    assert found.metrics["frac_zero_variance"] == theirs._metrics["train"]["frac_reward_zero_std"][0]


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_rloo_equals_trls(kl_coef, tmp_path, tiny_model):
    """Also with its KL penalty, of a policy that has moved away from the reference model."""
    theirs = trainer_of_trl("RLOO", tmp_path, tiny_model, beta=kl_coef, normalize_advantages=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    batch = theirs._generate_and_score_completions([{"prompt": "1"}] * 16)
    mask, known = batch["completion_mask"], {}
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attended = torch.cat([batch["prompt_mask"], mask], dim=1)
    models = {"old_per_token_logps": theirs.model} | ({"ref_per_token_logps": theirs.ref_model} if kl_coef else {})
    with torch.no_grad():
        for name, model in models.items():
            known[name] = theirs._get_per_token_logps_and_entropies(model, ids, attended, mask.size(1))[0]
    recipe = load_recipe("quickstart", ["algorithm.name=rloo", f"algorithm.kl_coef={kl_coef}"])
    penalty = kl_penalty(recipe.algorithm, known, mask)
    assert (penalty is None) == (kl_coef == 0.0)
    found = make_algorithm(recipe).advantages(
        Scored(REWARDS, torch.tensor([1.0, 0.3]), 4, 0, mask.long(), kl_penalty=penalty)
    )
    torch.testing.assert_close(found.values, batch["advantages"], rtol=1e-5, atol=1e-6)
    without = make_algorithm(recipe).advantages(Scored(REWARDS, torch.tensor([1.0, 0.3]), 4, 0, mask.long())).values
    assert ((found.values - without).abs().max() > 1e-3) == (kl_coef > 0)


torch.manual_seed(3)
REWARDS = torch.rand(16, 2)
REWARDS[2, 0], REWARDS[5, 1] = NAN, NAN
REWARDS[7] = NAN


def trainer_of_trl(name, folder, model, **options):
    """TRL's own trainer, whose two reward functions pay `REWARDS`, some of them missing."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    config = getattr(trl, f"{name}Config")(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=16,
        num_generations=4, reward_weights=[1.0, 0.3], max_completion_length=2, **options,
    )  # fmt: skip

    def given(column):
        return lambda completions, **kwargs: [None if value.isnan() else value.item() for value in REWARDS[:, column]]

    functions = [given(0), given(1)]
    for number, function in enumerate(functions):
        function.__name__ = f"given_{number}"
    trainer = getattr(trl, f"{name}Trainer")(
        model=str(model), reward_funcs=functions, args=config,
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 16),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )  # fmt: skip
    trainer.model.train()
    return trainer


# REINFORCE++: rewards 2, 0, 1 and none; lengths 3, 1, 2 and 2; the third one is left out of the loss in one test.
PAID = [[2.0], [0.0], [1.0], [NAN]]
LENGTHS = (3, 1, 2, 2)
PENALTY = [[0.1, 0.2, 0.3], [0.4, 0, 0], [-0.1, 0.2, 0], [0.5, 0.5, 0]]


def reinforce_pp(*overrides, name="reinforce_pp", penalty=True, left_out=(), group_size=2, num_processes=1):
    mask = (torch.arange(3) < torch.tensor(LENGTHS)[:, None]).long()
    mask[list(left_out)] = 0
    penalties = torch.tensor(PENALTY) * mask if penalty else None
    algorithm = make_algorithm(load_recipe("quickstart", [f"algorithm.name={name}", *overrides]))
    scored = Scored(torch.tensor(PAID), torch.ones(1), group_size, 0, mask, kl_penalty=penalties)
    return advantages_on(num_processes, algorithm, scored)


def normalized(rows):
    """Rows of what tokens still get, None where it does not count; less their mean, over their deviation over n."""
    values = [value for row in rows for value in row if value is not None]
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    return [[0.0 if value is None else (value - mean) / std for value in row] for row in rows], mean, std


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize(
    ("options", "to_go"),
    [
        ({"penalty": False}, [[2, 2, 2], [0, None, None], [1, 1, None], [None] * 3]),
        # Less the KL penalty of this token and those after it: 2 - 0.6, 2 - 0.5, 2 - 0.3; 0 - 0.4; 1 - 0.1, 1 - 0.2.
        ({}, [[1.4, 1.5, 1.7], [-0.4, None, None], [0.9, 0.8, None], [None] * 3]),
        ({"left_out": [2]}, [[1.4, 1.5, 1.7], [-0.4, None, None], [None] * 3, [None] * 3]),
        # Means of the groups: 1 of the first two, and 1 of the third, the only one of its group that was judged.
        (
            {"name": "reinforce_pp_baseline"},
            [[0.4, 0.5, 0.7], [-1.4, None, None], [-0.1, -0.2, None], [None] * 3],
        ),
        # One group of four, on whichever process its completions are; its mean is 1.
        (
            {"name": "reinforce_pp_baseline", "group_size": 4, "penalty": False},
            [[1, 1, 1], [-1, None, None], [0, 0, None], [None] * 3],
        ),
    ],
    ids=["plain", "penalty", "left-out", "baseline", "baseline-of-four"],
)
def test_reinforce_pp_by_hand_on_any_number_of_processes(options, to_go, num_processes):
    parts = reinforce_pp(num_processes=num_processes, **options)
    expected, mean, std = normalized(to_go)
    found = torch.cat([part.values for part in parts])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)
    for part in parts:
        assert part.metrics == pytest.approx({"advantage_mean": mean, "advantage_std": std}, abs=1e-6)


def test_equal_rewards_are_no_advantage_and_no_division_by_zero():
    algorithm = make_algorithm(load_recipe("quickstart", ["algorithm.name=reinforce_pp", "algorithm.group_size=1"]))
    for mask in (torch.ones(4, 3, dtype=torch.long), torch.zeros(4, 3, dtype=torch.long)):
        found = algorithm.advantages(Scored(torch.ones(4, 1), torch.ones(1), 1, 0, mask))
        assert found.values.tolist() == [[0.0] * 3] * 4


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
