"""Predicted bytes by hand, and what an optimizer really holds."""

import pytest
import torch

from rl_posttrain.optim import optimizer_class_and_arguments
from rl_posttrain.optim.ledger import STATE_VALUES, predict_memory

N = 1000
COMMON = {"dtype": "bfloat16", "engine": "deepspeed", "reference_model": False, "rollout_copy": False}

# Bytes a parameter on each of 4 devices: weights, gradients, fp32 masters, optimizer state of one value and of two.
BY_STAGE = {
    0: (2, 2, 4, 4, 8),
    1: (2, 2, 1, 1, 2),
    2: (2, 0.5, 1, 1, 2),
    3: (0.5, 0.5, 1, 1, 2),
}


@pytest.mark.parametrize("stage", BY_STAGE)
@pytest.mark.parametrize(("optimizer", "place"), [("adams", 3), ("adamw", 4)])
def test_what_zero_shards_over_four_devices(stage, optimizer, place):
    row = BY_STAGE[stage]
    ledger = predict_memory(N, optimizer=optimizer, zero_stage=stage, world_size=4, **COMMON)
    got = (ledger.weights, ledger.gradients, ledger.masters, ledger.optimizer_state)
    assert got == tuple(N * width for width in (*row[:3], row[place]))
    assert (ledger.reference_model, ledger.rollout_weights) == (0, 0)
    assert ledger.total() == sum(got)


def test_on_one_device_adams_keeps_four_bytes_a_parameter_less():
    totals = {
        name: predict_memory(N, optimizer=name, zero_stage=2, world_size=1, **COMMON).total() for name in STATE_VALUES
    }
    assert totals["adamw"] - totals["adams"] == 4 * N
    assert totals == {
        "adams": (2 + 2 + 4 + 4) * N,
        "adamw": (2 + 2 + 4 + 8) * N,
        "sgd": (2 + 2 + 4 + 4) * N,
        "lion": (2 + 2 + 4 + 4) * N,
    }


def test_copies_for_reference_and_rollouts():
    options = COMMON | {"reference_model": True, "rollout_copy": True}
    ledger = predict_memory(N, optimizer="adams", zero_stage=3, world_size=4, **options)
    assert ledger.reference_model == 2 * N / 4
    assert ledger.rollout_weights == 2 * N  # the engine holds the whole model on each device


def test_without_deepspeed_weights_are_their_own_masters():
    ledger = predict_memory(N, optimizer="adams", zero_stage=2, world_size=4, **COMMON | {"engine": "none"})
    assert vars(ledger) == {
        "weights": 4 * N, "gradients": 4 * N, "masters": 0, "optimizer_state": 4 * N,
        "reference_model": 0, "rollout_weights": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("stage", "masters"), [(0, 0), (1, N), (3, N)])
def test_fp32_has_masters_where_zero_partitions_them(stage, masters):
    ledger = predict_memory(N, optimizer="adamw", zero_stage=stage, world_size=4, **COMMON | {"dtype": "float32"})
    assert ledger.masters == masters
    assert ledger.weights == (N if stage == 3 else 4 * N)


def test_an_optimizer_that_is_not_known_is_not_guessed_at():
    ledger = predict_memory(N, optimizer="torch.optim:SGD", zero_stage=1, world_size=4, **COMMON)
    assert ledger.optimizer_state is None
    assert ledger.total() is None
    assert ledger.weights == 2 * N


def test_shards_are_rounded_up():
    assert predict_memory(3, optimizer="adams", zero_stage=3, world_size=4, **COMMON).weights == 2  # 6 bytes over 4


@pytest.mark.parametrize("name", STATE_VALUES)
def test_the_table_holds_what_the_optimizers_hold(name):
    cls, arguments = optimizer_class_and_arguments(name, lr=0.1, weight_decay=0.0, options={})
    parameter = torch.nn.Parameter(torch.zeros(100, 10))
    parameter.grad = torch.ones_like(parameter)
    optimizer = cls([parameter], **arguments)
    optimizer.step()
    held = sum(value.numel() for value in optimizer.state[parameter].values() if value.shape == parameter.shape)
    assert held == STATE_VALUES[name] * parameter.numel()
