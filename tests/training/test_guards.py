"""What guards see in rows, completions, weights and gradients; each against values by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from rl_posttrain.optim import AdamS
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.usable import is_usable, what_is_wrong
from rl_posttrain.training.algorithms.grpo import nan_std
from rl_posttrain.training.guards import completions, history, weights
from rl_posttrain.training.guards.gate import Gate

# The quickstart of 2026-11-27, by step.
QUICKSTART = {
    "accuracy": [
        .156, .031, .078, .156, .094, .109, .125, .156, .172, .172, .203, .297, .312, .359, .391,
        .547, .672, .547, .609, .594, .688, .875, .672, .875, .891, .875, .781, .984, .953, .953,
    ],
    "entropy": [
        2.308, 2.331, 2.337, 2.223, 2.404, 2.194, 2.277, 2.007, 1.954, 1.931, 1.984, 1.698, 1.623, 1.579, 1.585,
        1.156, 1.114, 1.125, 1.059, .907, .98, .762, .797, .504, .489, .573, .379, .244, .302, .176,
    ],
    "grad_norm": [
        1.726, .718, 1.162, 1.905, 1.765, 1.494, 1.375, 1.535, 1.427, 1.811, 1.963, 2.218, 1.608, 1.629, 2.342,
        1.983, 1.686, 1.822, 2.026, 1.508, 1.757, 1.477, 1.683, 1.723, 1.088, 1.254, 2.209, .524, 2.06, 1.943,
    ],
    "truncated_share": [
        .734, .828, .844, .875, .781, .672, .812, .766, .672, .688, .812, .656, .656, .578, .672,
        .594, .594, .594, .406, .547, .484, .312, .391, .219, .188, .188, .172, .109, .188, .047,
    ],
}  # fmt: skip


def recipe_with(*overrides):
    return load_recipe("quickstart", overrides)


RECIPE = recipe_with()


def spec(name="answer", judges="answer", span=(0.0, 1.0)) -> RewardSpec:
    return RewardSpec(
        name=name, key="rewards.0", fn=name, args={}, function=len, arguments={}, weight=1.0, on_error="stop",
        isolated=False, timeout_s=1.0, import_timeout_s=1.0, tasks=None, judges=judges, range=span,
    )  # fmt: skip


def rows(**columns):
    """Rows from columns; a single number stands on every row."""
    length = max(len(column) for column in columns.values() if isinstance(column, list))
    columns = {key: column if isinstance(column, list) else [column] * length for key, column in columns.items()}
    return [{"step": step, **dict(zip(columns, values, strict=True))}
            for step, values in enumerate(zip(*columns.values(), strict=True), start=1)]  # fmt: skip


def everything(recipe, found):
    """What all guards of rows say after each of the steps."""
    said = []
    for end in range(1, len(found) + 1):
        part = found[:end]
        said += [
            history.gradient_norm(recipe, part[-1]["grad_norm"], part[:-1]),
            history.entropy(recipe, [spec()], part),
            history.reward_collapse(recipe, part),
            completions.truncation(recipe, part, end),
        ]
    return [finding for finding in said if finding is not None]


def test_no_guard_sees_anything_in_the_quickstart():
    assert everything(RECIPE, rows(reward=QUICKSTART["accuracy"], **QUICKSTART)) == []


def test_nor_when_it_goes_on_after_it_has_learned():
    longer = {key: column + [column[-1]] * 40 for key, column in QUICKSTART.items()}
    longer["entropy"] = QUICKSTART["entropy"] + [0.001] * 40
    assert everything(RECIPE, rows(reward=longer["accuracy"], **longer)) == []


def test_the_norm_of_a_gradient_is_held_against_the_highest_of_the_last_steps():
    found = rows(grad_norm=[1.0] * 11 + [3.0] + [0.5] * 4)
    assert history.gradient_norm(RECIPE, 30.0, found) is None  # 10 times the highest, not more
    assert history.gradient_norm(RECIPE, 31.0, found).what == (
        "the gradient's norm is 31; the highest of the last 16 steps was 3"
    )
    assert history.gradient_norm(recipe_with("guards.gradient_norm.factor=11"), 31.0, found) is None
    # Only 4 of the window of 4 count, and fewer than after_steps say nothing.
    short = recipe_with("guards.gradient_norm={window: 4, after_steps: 4}")
    assert history.gradient_norm(short, 5.1, found) is not None
    assert history.gradient_norm(RECIPE, 1e9, found[:9]) is None


def test_a_step_that_was_skipped_for_its_norm_is_no_measure_of_the_next():
    found = rows(grad_norm=[1.0] * 12 + [500.0])
    assert history.gradient_norm(RECIPE, 400.0, found) is None
    found[-1]["guards/gradient_norm"] = 1
    assert history.gradient_norm(RECIPE, 400.0, found) is not None


def test_a_norm_below_the_limit_of_clipping_is_never_too_large():
    found = rows(grad_norm=[0.001] * 20)
    assert history.gradient_norm(RECIPE, RECIPE.optimizer.max_grad_norm, found) is None
    assert history.gradient_norm(RECIPE, 1.001 * RECIPE.optimizer.max_grad_norm, found) is not None


def test_entropy_collapse_is_one_if_the_task_is_not_learned():
    entropy = [1.0] * 5 + [0.01] * 10
    found = rows(entropy=entropy, reward=0.3, accuracy=0.3)
    assert history.entropy(RECIPE, [spec()], found[:-1]) is None  # the mean has one high step
    finding = history.entropy(RECIPE, [spec()], found)
    assert (finding.guard, finding.since) == ("entropy", 6)
    assert "0.01 nats" in finding.what
    assert finding.override == ("optimizer.lr=1e-06", "--allow-change", "optimizer.lr")
    assert history.entropy(RECIPE, [spec()], rows(entropy=entropy, reward=0.95, accuracy=0.95)) is None


def test_without_a_judge_learned_is_near_the_highest_reward_or_the_best_so_far():
    low = [0.01] * 20
    known, unknown = [spec(judges=None, span=(-1.0, 1.0))], [spec(judges=None, span=None)]
    assert history.entropy(RECIPE, known, rows(entropy=low, reward=0.7)) is not None
    assert history.entropy(RECIPE, known, rows(entropy=low, reward=0.85)) is None
    rises = [step / 20 for step in range(20)]
    assert history.entropy(RECIPE, unknown, rows(entropy=low, reward=rises)) is None
    assert history.entropy(RECIPE, unknown, rows(entropy=low, reward=rises[::-1])) is not None
    assert history.entropy(RECIPE, unknown, rows(entropy=low, reward=0.3)) is not None


def test_reward_collapse_is_most_of_the_gain_lost():
    up = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8]
    finding = history.reward_collapse(RECIPE, rows(reward=[*up, *[0.05] * 5]))
    assert finding.what == "the reward is 0.05 in the mean of 5 steps, and was 0.8 at its best"
    assert finding.since == 13
    assert history.reward_collapse(RECIPE, rows(reward=[*up, *[0.25] * 5])) is None  # above a quarter
    assert history.reward_collapse(RECIPE, rows(reward=[*up, *[0.05] * 4])) is None  # not for 5 steps yet
    # Rewards below zero: from -10 up to -1, and back to -9.
    below = [-10.0, -8, -6, -4, -3, -2, -1, -1, -1, -1, -1]
    assert history.reward_collapse(RECIPE, rows(reward=[*below, *[-9.0] * 5])) is not None
    assert history.reward_collapse(RECIPE, rows(reward=[*below, *[-7.0] * 5])) is None


def test_a_reward_that_is_low_and_noisy_has_not_collapsed():
    generator = torch.Generator().manual_seed(0)
    for rate in (0.02, 0.05, 0.1, 0.3):
        for _ in range(50):
            rewards = torch.binomial(torch.full((60,), 32.0), torch.full((60,), rate), generator=generator) / 32
            found = rows(reward=rewards.tolist())
            assert not any(history.reward_collapse(RECIPE, found[:end]) for end in range(1, 61))


def test_after_a_return_to_a_checkpoint_the_steps_before_it_are_no_collapse():
    found = rows(reward=[0.8] * 12 + [0.05] * 5)
    assert history.reward_collapse(RECIPE, found) is not None
    found[-1]["rolled_back_to"] = 10
    assert history.reward_collapse(RECIPE, found) is None
    assert history.reward_collapse(RECIPE, [*found, *rows(reward=[0.05] * 5)]) is not None


def rollouts(rewards, *, texts=None, finish_reason="stop", **named):
    """One rollout a reward; `named` are further rewards."""
    texts = texts or [f"text {place}" for place in range(len(rewards))]
    return [
        {"reward": reward, "completion": text, "finish_reason": finish_reason,
         "rewards": {"answer": reward, **{name: values[place] for name, values in named.items()}}}
        for place, (reward, text) in enumerate(zip(rewards, texts, strict=True))
    ]  # fmt: skip


def test_shares_of_groups():
    drawn = rollouts([0, 1, 1, 1, None, 0.5, None, None], texts=list("aabbabba"))
    assert completions.shares(drawn, 2, by_group=True) == {"teaching_share": 1 / 4, "equal_share": 2 / 4}
    assert completions.shares(drawn, 4, by_group=True) == {"teaching_share": 1 / 2, "equal_share": 0.0}
    assert completions.shares(drawn, 2, by_group=False)["teaching_share"] == 1.0
    assert completions.shares(rollouts([1, 1, 1]), 1, by_group=False) == {"teaching_share": 0.0, "equal_share": None}


REASONS = {
    "all are wrong": rollouts([0.0] * 8),
    "all are right": rollouts([1.0] * 8),
    "all are cut at rollout.max_new_tokens=16": rollouts([0.0] * 8, finish_reason="length"),
    "none has the form that is asked for": rollouts([0.0] * 8, form=[0.0] * 8),
    "every completion got the reward 0.5": rollouts([0.5] * 8),
    "in each group all got the same reward": rollouts([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("why", REASONS)
def test_that_no_group_teaches_has_a_reason(why):
    drawn = REASONS[why]
    specs = [spec()] if why != "every completion got the reward 0.5" else [spec(judges=None)]
    specs += [spec("form", "form")] if "form" in drawn[0]["rewards"] else []
    judges = judging_rewards(specs)

    def after(num_steps):
        return completions.no_group_teaches(
            RECIPE, drawn, judges, rows(teaching_share=[1.0] + [0.0] * num_steps), num_steps + 1
        )

    assert after(2) is None
    assert after(4) is None
    assert after(3).only_warns
    last = after(20)
    assert (last.what, last.since) == (f"no group has taught anything for 20 steps, since {why}", 2)
    assert last.only_warns == (why == "all are right")
    if "cut" in why:
        assert last.override == ("rollout.max_new_tokens=64", "--allow-change", "rollout.max_new_tokens")


def test_equal_completions_are_no_fault_of_a_policy_that_has_learned():
    found = rows(teaching_share=[0.0] * 3, equal_share=[0.75, 1.0, 0.75])
    assert "optimizer.lr" in completions.equal_completions(RECIPE, 0.5, found, 3).fix
    cold = recipe_with("rollout.temperature=1e-6")
    assert completions.equal_completions(cold, None, found, 3).fix == "raise rollout.temperature=1e-06"
    assert completions.equal_completions(RECIPE, 0.95, found, 3) is None
    assert completions.equal_completions(RECIPE, 0.5, found[1:], 2) is None
    teaching = rows(teaching_share=[0.1] * 3, equal_share=0.75)
    assert completions.equal_completions(RECIPE, 0.5, teaching, 3) is None
    assert completions.equal_completions(cold, 0.5, teaching, 3) is not None


def test_a_cold_temperature_is_said_before_the_first_step():
    assert completions.too_cold(RECIPE) is None
    assert completions.too_cold(recipe_with("rollout.temperature=1e-6")).startswith("rollout.temperature=1e-06: ")
    assert completions.too_cold(recipe_with("rollout.temperature=1e-6", "guards.equal_completions=off")) is None


def test_truncation_is_said_once_after_the_third_step_and_names_the_limit():
    found = rows(truncated_share=[0.9, 0.9, 0.95, 1.0])
    assert [completions.truncation(RECIPE, found[:end], end) is not None for end in (1, 2, 3, 4)] == [
        False, False, True, False,
    ]  # fmt: skip
    finding = completions.truncation(RECIPE, found[:3], 3)
    assert finding.what == "in the first 3 steps 92% of the completions were cut at rollout.max_new_tokens=16"
    assert completions.truncation(RECIPE, rows(truncated_share=[0.9, 0.9, 0.89]), 3) is None


def test_rewards_of_which_no_advantage_can_be_made():
    assert all(map(is_usable, (None, 0.0, -1.5, 1e18, -1e18)))
    assert not any(map(is_usable, (math.nan, math.inf, -math.inf, 1.1e18)))
    assert [what_is_wrong(value) for value in (math.nan, -math.inf)] == [
        "nan", "-inf (infinite, or larger than any float)",
    ]  # fmt: skip
    # What the limit is for: the standard deviation of a group in float32.
    assert nan_std(torch.tensor([1e18, 0.0]), 0).isfinite()
    assert not nan_std(torch.tensor([1e20, 0.0]), 0).isfinite()


def test_weights_that_a_run_starts_from():
    def said(*tensors):
        heard = []
        named = [(f"layer{place}", tensor) for place, tensor in enumerate(tensors)]
        assert [name for name, _ in weights.checked(named, heard.append)] == [name for name, _ in named]
        return heard

    good, zero, vector = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(3)
    assert said(good, zero, vector) == said(good.bfloat16()) == said(vector) == []
    assert said(zero, zero.bfloat16(), vector) == ["all of its matrices are zero, so no gradient reaches them"]
    bad = torch.tensor([[1.0, math.nan], [math.inf, 1.0]])
    assert said(good, bad) == ["2 of 4 numbers of layer1 are not finite"]


def test_an_update_is_held_against_the_weights():
    assert weights.change(RECIPE, 0.5, 1.0) is None
    assert weights.change(RECIPE, 0.51, 1.0).what == "the update's norm is 0.51, and that of all weights was 1"
    for norm in (math.nan, math.inf):
        assert weights.change(RECIPE, norm, 1.0) is not None
    assert weights.change(recipe_with("guards.weights.max_change=2"), 1.9, 1.0) is None


def test_an_update_that_weight_decay_explains_does_not_blame_the_rate():
    decays = recipe_with("optimizer.lr=1e-3", "optimizer.weight_decay=1e6")
    assert weights.change(decays, 900.0, 1.0).fix == "lower optimizer.weight_decay=1e+06"
    assert weights.change(recipe_with("optimizer.weight_decay=0.1"), 900.0, 1.0).fix == "lower optimizer.lr=1e-05"


def test_updates_that_change_nothing_are_seen_where_rewards_differ_and_the_rate_is_not_0():
    def found(**columns):
        return weights.unchanged(rows(**{"update_norm": [0.0] * 3, "lr": 1e-5, "teaching_share": 0.5} | columns))

    assert found().what == "no weight has changed for 3 steps, though rewards differed"
    assert found().since == 1
    assert found(update_norm=[0.0, 0.0]) is None
    assert found(update_norm=[0.0, 1e-9, 0.0]) is None
    assert found(lr=[0.0, 1e-5, 1e-5]) is None  # the first step of a warm-up
    assert found(teaching_share=0.0) is None
    assert found(skipped_updates=1) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_weight_that_is_not_finite_is_found(dtype):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).to(dtype)
    assert weights.are_finite(model)
    model[1].weight.data[0, 1] = torch.finfo(dtype).max  # finite, though its square is not
    assert weights.are_finite(model)
    for value in (math.nan, math.inf, -math.inf):
        model[1].bias.data[1] = value
        assert not weights.are_finite(model)


def test_a_closed_gate_changes_neither_weights_nor_state():
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = AdamS([{"params": [parameter]} for parameter in parameters], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1.0)
    norms, answers = [], [False, True]
    gate = Gate(lambda norm: norms.append(norm) or answers.pop(0))
    gate.on_train_begin(None, None, None, optimizer=SimpleNamespace(optimizer=optimizer))
    for is_open in (False, True):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 2.0)
        gate.clipped(None if is_open else torch.tensor(7.0))
        for _ in range(2):  # as DeepSpeed steps, a group at a time
            optimizer.step()
        schedule.step()
        assert [torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters] == [not is_open] * 2
        assert bool(optimizer.state) == is_open
        gate.next_update()
    assert norms == [7.0, pytest.approx(2.0 * math.sqrt(5))]  # the second one it found itself
    assert (gate.num_asked, gate.num_made) == (2, 1)
