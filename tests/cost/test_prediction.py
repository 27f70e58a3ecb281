"""Seconds of a recipe's step by phase: which passes, links and hand-overs each setting has."""

import dataclasses

import pytest
from by_hand import SHAPE, SPEEDS

from rl_posttrain.cost.links import Devices
from rl_posttrain.cost.prediction import Engines, TokenCounts, Trained, seconds_of_step
from rl_posttrain.cost.step import forward_flops, training_flops
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.sizes import derive_sizes

TOKENS = TokenCounts(prompt=10, mean_new=8, longest_new=8)
TRAINED = Trained(stage=2, values=1300, frozen=False, state_bytes=8 * 1300, weight_width=2, gradient_width=2)
ENGINES = Engines(num=1, devices_each=1, at_once=16, width=2, kv_token_bytes=16)


def seconds(
    recipe_file,
    *overrides,
    num=1,
    nodes=1,
    trained=TRAINED,
    engines=ENGINES,
    staleness=0,
    shape=SHAPE,
    speeds=SPEEDS,
) -> dict[str, float]:
    recipe = load_recipe(recipe_file, overrides)
    engines = dataclasses.replace(engines, num=num) if not engines.apart else engines
    return seconds_of_step(
        recipe, derive_sizes(recipe, num), shape, TOKENS, trained, engines, Devices(num, nodes), speeds, staleness
    )


def test_one_process_by_hand(tiny_recipe):
    found = seconds(tiny_recipe)
    batch = {"tokens": 16 * 18, "context": 18, "scored": 16 * 8}
    flops = training_flops(SHAPE, **batch, recomputes=False)
    assert found["update"] == pytest.approx(flops / SPEEDS.training_flops_per_s)
    assert (found["logprobs"], found["links"], found["other"]) == (0, 0, 0)
    # Master and state read and written, gradient read, weight written; once a step.
    assert found["optimizer"] == pytest.approx((2 * 8 + 2 + 2) * 1300 / SPEEDS.memory_bytes_per_s)
    # Gradients that go into a bucket first, once a micro batch, of which there are four.
    bucket = seconds(tiny_recipe, trained=dataclasses.replace(TRAINED, after_backward=8))["update"] - found["update"]
    assert bucket == pytest.approx(4 * 8 * 1300 / SPEEDS.memory_bytes_per_s)
    # Where weights are their own masters, none is written beside them.
    own = dataclasses.replace(TRAINED, own_masters=True)
    less = found["optimizer"] - seconds(tiny_recipe, trained=own)["optimizer"]
    assert less == pytest.approx(2 * 1300 / SPEEDS.memory_bytes_per_s)
    assert found["sync"] == pytest.approx(2 * 2 * 1300 / SPEEDS.memory_bytes_per_s)  # read and written once
    assert found["step"] == pytest.approx(sum(value for name, value in found.items() if name != "step"))


def test_a_sampler_that_packs_weights_takes_longer(tiny_recipe):
    """1,300 weights of 2 bytes, 80 of the output layer; packed in 1 s a byte, compared in 10."""
    plain = seconds(tiny_recipe)["sync"]
    for tied, packed, compared in ((False, 1300, 2 * 80 + 1220 / 8), (True, 1300 + 80, 80 + 1220 / 8)):
        slow = dataclasses.replace(SPEEDS, packed_byte_s=1.0, compared_byte_s=10.0)
        found = seconds(tiny_recipe, shape=dataclasses.replace(SHAPE, tied=tied), speeds=slow)["sync"]
        assert found - plain == pytest.approx(2 * packed + 20 * compared)


def test_what_needs_more_passes_takes_them(tiny_recipe):
    once = forward_flops(SHAPE, tokens=16 * 18, context=18, scored=16 * 8) / SPEEDS.forward_flops_per_s
    plain = seconds(tiny_recipe)
    for overrides, passes in (
        (["algorithm.num_mini_batches=2"], 1),
        (["algorithm.kl_coef=0.1"], 1),
        (["algorithm.kl_coef=0.1", "algorithm.kl_in=reward", "algorithm.kl_estimator=k1"], 2),
        (["algorithm.name=ppo"], 1),
        (["rollout.max_staleness=1"], 1),  # whose correction needs the policy's log-probabilities
        (["rollout.max_staleness=1", "rollout.importance_correction=none"], 0),
    ):
        assert seconds(tiny_recipe, *overrides)["logprobs"] == pytest.approx(passes * once), overrides
    assert seconds(tiny_recipe, "algorithm.num_epochs=2")["update"] == pytest.approx(2 * plain["update"])
    assert seconds(tiny_recipe, "algorithm.name=ppo")["update"] == pytest.approx(2 * plain["update"])
    assert seconds(tiny_recipe, "algorithm.num_mini_batches=2")["optimizer"] == pytest.approx(2 * plain["optimizer"])
    assert seconds(tiny_recipe, "model.gradient_checkpointing=true")["update"] > 1.2 * plain["update"]
    frozen = dataclasses.replace(TRAINED, values=100, frozen=True, state_bytes=800)
    assert seconds(tiny_recipe, trained=frozen)["update"] < 0.8 * plain["update"]


def test_several_processes_share_the_work_and_send(tiny_recipe):
    one, four = seconds(tiny_recipe), seconds(tiny_recipe, num=4)
    assert four["update"] == pytest.approx(one["update"] / 4)
    # One micro batch on each: gradients reduced once and weights gathered once, three quarters of each.
    whole_s = 2 * 1300 * 0.75 / SPEEDS.node_bytes_per_s
    assert four["links"] == pytest.approx(2 * whole_s)
    three = dataclasses.replace(TRAINED, stage=3)
    assert seconds(tiny_recipe, num=4, trained=three)["links"] == pytest.approx(3 * whole_s)
    # The reference model's pass gathers once more, and so does the hand-over.
    more = seconds(tiny_recipe, "algorithm.kl_coef=0.1", num=4, trained=three)
    assert more["links"] == pytest.approx(4 * whole_s)
    assert more["sync"] - four["sync"] == pytest.approx(whole_s)


def test_engines_apart_get_weights_by_files_and_may_run_ahead(tiny_recipe):
    apart = dataclasses.replace(ENGINES, num=2, apart=True)
    waits, ahead = (seconds(tiny_recipe, engines=apart, staleness=staleness) for staleness in (0, 1))
    # Out of a device, into a file, and into another; then read and written.
    assert waits["sync"] == pytest.approx(
        2 * 2 * 1300 / SPEEDS.host_bytes_per_s + 2 * 2 * 1300 / SPEEDS.memory_bytes_per_s
    )
    trains = waits["update"] + waits["optimizer"]
    assert waits["step"] == pytest.approx(waits["rollout"] + trains + waits["sync"])
    assert ahead["step"] == pytest.approx(max(waits["rollout"], trains) + waits["sync"])
    nodes = [seconds(tiny_recipe, engines=apart, num=2, nodes=nodes)["sync"] for nodes in (1, 2)]
    assert nodes[1] - nodes[0] == pytest.approx(2 * 1300 / SPEEDS.network_bytes_per_s)
    wider = seconds(tiny_recipe, engines=dataclasses.replace(apart, devices_each=4))
    assert wider["rollout"] < 0.5 * waits["rollout"]
