"""Seconds of a step's parts and of links, each by hand."""

import dataclasses

import pytest
from by_hand import SHAPE, SPEEDS

from rl_posttrain.cost import step
from rl_posttrain.cost.devices import DEVICES, published_speeds
from rl_posttrain.cost.links import (
    Devices,
    all_gather_s,
    ring_bytes_per_s,
    update_traffic,
    update_traffic_s,
)
from rl_posttrain.cost.model_shape import shape_of
from rl_posttrain.models.find import model_without_weights, published_config


def test_a_shape_has_all_values_of_the_published_model():
    config = published_config("Qwen/Qwen2.5-1.5B")
    model = model_without_weights(config)
    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    shape = shape_of(config, num_parameters=count, tensors=len(parameters))
    vectors = sum(parameter.numel() for parameter in parameters if parameter.ndim == 1)
    assert shape.layers * shape.layer_parameters + shape.head_parameters + vectors == count
    assert (SHAPE.layer_parameters, SHAPE.head_parameters) == (576, 80)


def test_operations_by_hand():
    # 3 tokens: 2 x 576 for the products, 4 x 5 x 8 for attention to 5 tokens, in two layers; 1 token scored.
    assert step.forward_flops(SHAPE, tokens=3, context=5, scored=1) == 3 * 2 * (1152 + 160) + 160
    layers, head = 3 * 2 * (1152 + 160), 160
    common = {"tokens": 3, "context": 5, "scored": 1}
    assert step.training_flops(SHAPE, **common, recomputes=False) == 3 * layers + 4 * head
    assert step.training_flops(SHAPE, **common, recomputes=True) == 4 * layers + 4 * head
    assert step.training_flops(SHAPE, **common, recomputes=True, frozen=True) == 3 * layers + 3 * head


def test_token_steps_and_waves():
    rollout = step.Rollout(
        completions=8, distinct_prompts=2, prompt_tokens=10, mean_new_tokens=20, longest_new_tokens=50
    )
    assert step.token_steps(rollout, at_once=8) == 50  # all fit: the longest decides
    assert step.token_steps(rollout, at_once=2) == 80  # 160 tokens on two places
    assert step.sequences_that_fit(1000.0, kv_token_bytes=4, tokens=60) == 4
    assert step.sequences_that_fit(10.0, kv_token_bytes=4, tokens=60) == 1


def test_decoding_is_bound_by_memory_or_by_arithmetic():
    common = {"context": 20, "width": 2, "kv_token_bytes": 4, "devices": 1}
    values = 2 * 576 + 80
    by_memory = (2 * values + 3 * 20 * 4) / 1e4
    assert step.token_step_s(SHAPE, 3, **common, speeds=SPEEDS) == pytest.approx(by_memory)
    slow = dataclasses.replace(SPEEDS, decode_flops_per_s=1e3, token_step_s=7.0)
    flops = 3 * 2 * (1152 + 4 * 20 * 8) + 3 * 160
    assert step.token_step_s(SHAPE, 3, **common, speeds=slow) == pytest.approx(flops / 1e3 + 7)
    halved = step.token_step_s(SHAPE, 3, **common | {"devices": 2}, speeds=SPEEDS)
    assert halved == pytest.approx(by_memory / 2)


def test_a_rollout_is_prompts_and_token_steps():
    rollout = step.Rollout(
        completions=4, distinct_prompts=1, prompt_tokens=10, mean_new_tokens=5, longest_new_tokens=10
    )
    common = {"width": 2, "kv_token_bytes": 4, "speeds": SPEEDS}
    prefill = step.forward_flops(SHAPE, tokens=10, context=5, scored=1) / 2e5
    # 20 tokens in 10 steps: two sequences in the mean, with 12.5 tokens each.
    each = step.token_step_s(SHAPE, 2, context=12.5, devices=1, **common)
    assert step.rollout_s(SHAPE, rollout, at_once=4, **common) == pytest.approx(prefill + 10 * each)


def test_starting_kernels_bounds_small_passes():
    assert step.passes_s(1e6, passes=3, layers=2, flops_per_s=1e5, layer_s=0.5) == 10
    assert step.passes_s(1e5, passes=3, layers=2, flops_per_s=1e5, layer_s=0.5) == 3


def test_an_optimizer_reads_all_and_writes_all_but_gradients():
    # AdamS on 100 values: master and one state of 4 bytes each read and written, gradient read, bf16 weight written.
    seconds = step.optimizer_s(values=100, state_bytes=800, weight_width=2, gradient_width=4, bytes_per_s=10)
    assert seconds == (1600 + 600) / 10


def test_what_engines_move_around_the_optimizers_step():
    # Plain PyTorch reads the gradient for its norm; reads and writes it to clip it.
    assert step.engine_bytes(deepspeed=False, gradient_width=4) == 12
    # DeepSpeed: 4 read, 8 written and read again; 4 + 4 to flatten; 8 to clip; 4 of the master read.
    assert step.engine_bytes(deepspeed=True, gradient_width=4) == 20 + 8 + 8 + 4
    assert step.engine_bytes(deepspeed=True, gradient_width=2) == 18 + 4 + 6 + 8 + 4
    common = {"values": 100, "state_bytes": 800, "weight_width": 2, "gradient_width": 4, "bytes_per_s": 10}
    assert step.optimizer_s(**common, around=12) - step.optimizer_s(**common) == 120


def test_overlap_leaves_the_slower_one():
    parts = {"rollout": 5.0, "update": 3.0, "sync": 1.0}
    assert step.step_s(**parts, max_staleness=0) == 9
    assert step.step_s(**parts, max_staleness=1) == 6
    assert step.step_s(rollout=2.0, update=3.0, sync=1.0, max_staleness=4) == 4


def test_a_ring_is_as_fast_as_its_slowest_link():
    assert ring_bytes_per_s(Devices(8), SPEEDS) == 100
    assert ring_bytes_per_s(Devices(16, nodes=2), SPEEDS) == 80  # eight ports of 10 between two nodes
    assert ring_bytes_per_s(Devices(32, nodes=2), SPEEDS) == 100
    assert ring_bytes_per_s(Devices(2, nodes=2), SPEEDS) == 10
    # Each of 4 devices receives three quarters of 800 bytes.
    assert all_gather_s(800, Devices(4), SPEEDS) == 6
    assert all_gather_s(800, Devices(1), SPEEDS) == 0


@pytest.mark.parametrize(("stage", "gradients", "weights"), [(None, 2, 0), (0, 2, 0), (1, 1, 1), (2, 4, 1), (3, 4, 8)])
def test_what_each_stage_sends_for_four_micro_batches(stage, gradients, weights):
    traffic = update_traffic(stage, micro_batches=4)
    assert (traffic.gradients, traffic.weights) == (gradients, weights)
    sizes = {"weights_bytes": 200.0, "gradients_bytes": 400.0}
    seconds = update_traffic_s(traffic, **sizes, devices=Devices(4), speeds=SPEEDS)
    assert seconds == pytest.approx((gradients * 400 + weights * 200) * 3 / 4 / 100)
    assert update_traffic_s(traffic, **sizes, devices=Devices(1), speeds=SPEEDS) == 0


def test_a_published_device_reaches_less_than_it_says():
    for device in DEVICES.values():
        speeds = published_speeds(device)
        assert 0.3 * device.flops_per_s < speeds.training_flops_per_s < 0.5 * device.flops_per_s
        assert speeds.memory_bytes_per_s < device.memory_bytes_per_s
        assert speeds.node_bytes_per_s < device.node_bytes_per_s
