"""Stochastic rounding of SCALE: the same bits in every way, every role moves on average, exact resume."""

import copy

import pytest
import torch
from test_scale import Conv1D, Experts
from torch import nn

from rl_posttrain.errors import EngineError
from rl_posttrain.optim import SCALE, build_optimizer
from rl_posttrain.optim.rounding import store, tensor_key

WAYS = [True, False]


class Everything(nn.Module):
    """Every role: norms along rows and columns, of several pieces and slabs, momentum, and Adam for the vectors."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(700, 500), nn.Linear(500, 64)
        self.conv, self.experts, self.transposed_experts = Conv1D(), Experts(False), Experts(True)
        self.norm, self.lm_head = nn.LayerNorm(64), nn.Linear(64, 700, bias=False)


def everything(dtype=torch.bfloat16):
    torch.manual_seed(0)
    model = Everything().to(dtype)
    # One matrix is not contiguous.
    model.conv.weight.data = model.conv.weight.data.t().contiguous().t()
    return model


def train(model, steps, gradient_of, optimizer=None, **options):
    optimizer = optimizer or SCALE.from_model(model, **{"stochastic_rounding": True} | options)
    for step in steps:
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = gradient_of(parameter)
        optimizer.step()
    return optimizer


def are_equal(one, other):
    return [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]


def test_every_way_rounds_alike():
    """Weights that only decay are the same fp32 numbers in every way, so that nothing but the bits can differ."""
    settings = {"lr": 0.1, "weight_decay": 0.03}
    models = [everything(), everything(), everything()]
    for model, fused in zip(models, WAYS, strict=False):
        train(model, range(3), torch.zeros_like, fused=fused, **settings)
    train(models[2], range(3), torch.zeros_like, stochastic_rounding=False, **settings)
    assert all(are_equal(models[0], models[1]))
    for name, one in models[0].named_parameters():
        same = torch.equal(one, models[2].get_parameter(name))
        assert same == ("norm" in name or "bias" in name), name  # vectors do not decay


@pytest.mark.parametrize("fused", WAYS)
def test_a_step_is_rounded_with_the_keys_of_the_step_and_its_tensors(fused):
    """Gradients of one size in whole numbers, without momentum: the step is lr exactly, in fp32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 40, bias=False), nn.Linear(64, 70, bias=False), nn.Embedding(64, 30))
    model.lm_head = nn.Linear(16, 50, bias=False)
    model.bfloat16()
    optimizer = SCALE.from_model(model, lr=2**-13, momentum=0.0, stochastic_rounding=True, fused=fused)
    for step in (1, 2):
        number, expected = 0, []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randint(0, 2, parameter.shape).to(parameter) * 4 - 2
                value = parameter.detach().float() - 2**-13 * parameter.grad.float().sign()
                expected.append((parameter, torch.empty_like(parameter)))
                store(expected[-1][1], value, tensor_key(step, number))
                number += 1
        optimizer.step()
        for parameter, right in expected:
            assert torch.equal(parameter, right), tuple(parameter.shape)


@pytest.mark.parametrize("fused", WAYS)
def test_steps_too_small_for_bf16_arrive_on_average(fused):
    """Gradients of one size: each step of each role is lr, a 40th of what bf16 can tell at 1."""
    settings = {"lr": 1e-4, "fused": fused}
    by_chance, nearest = everything(), everything()
    for model in (by_chance, nearest):
        for parameter in model.parameters():
            nn.init.ones_(parameter)
    train(by_chance, range(50), torch.ones_like, **settings)
    train(nearest, range(50), torch.ones_like, stochastic_rounding=False, **settings)
    for name, parameter in nearest.named_parameters():
        assert parameter.eq(1).all(), name
    for parameters in ([by_chance.norm.weight, by_chance.norm.bias, by_chance.linear.bias], [by_chance.lm_head.weight]):
        moved = torch.cat([1 - parameter.detach().float().flatten() for parameter in parameters])
        assert moved.mean().item() == pytest.approx(50e-4, abs=4 * moved.std().item() / moved.numel() ** 0.5)
    for parameter in (by_chance.embedding.weight, by_chance.linear.weight):
        assert (1 - parameter.detach().float()).mean().item() == pytest.approx(50e-4, rel=0.05)


def test_training_goes_on_exactly_from_a_saved_state():
    options = {"lr": 1e-3, "weight_decay": 0.1}
    whole, stopped = everything(), everything()
    train(whole, range(5), torch.randn_like, **options)
    state = copy.deepcopy(train(stopped, range(2), torch.randn_like, **options).state_dict())
    resumed = SCALE.from_model(stopped, stochastic_rounding=True, **options)
    resumed.load_state_dict(state)
    train(stopped, range(2, 5), torch.randn_like, resumed)
    assert all(are_equal(whole, stopped))


def test_weights_of_other_dtypes_are_as_without_it():
    for dtype in (torch.float32, torch.float64):
        models = [everything(dtype), everything(dtype)]
        for model, rounds in zip(models, (True, False), strict=True):
            train(model, range(2), torch.randn_like, lr=1e-3, stochastic_rounding=rounds)
        assert all(are_equal(*models))


def test_a_state_from_before_it_keeps_what_the_optimizer_was_built_with():
    layer = nn.Linear(5, 3, bias=False, dtype=torch.bfloat16)
    state = SCALE.from_model(layer).state_dict()
    for name in ("stochastic_rounding", "rounding_step"):
        del state["param_groups"][0][name]
    loaded = SCALE.from_model(layer, stochastic_rounding=True)
    loaded.load_state_dict(state)
    train(layer, range(2), torch.ones_like, loaded)
    assert loaded.param_groups[0]["stochastic_rounding"]
    assert loaded.param_groups[0]["rounding_step"] == 2


@pytest.mark.parametrize("name", ["adams", "scale"])
def test_a_graph_that_would_repeat_its_bits_is_refused_at_its_capture(name, monkeypatch):
    layer = nn.Linear(5, 3, bias=False, dtype=torch.bfloat16)
    optimizers = [build_optimizer(layer, name, lr=1e-3, stochastic_rounding=rounds) for rounds in (True, False)]
    layer.weight.grad = torch.ones_like(layer.weight)
    before = layer.weight.detach().clone()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(EngineError, match="stochastic_rounding=True: a CUDA graph would repeat the chance of one step"):
        optimizers[0].step()
    assert torch.equal(layer.weight, before)
    optimizers[1].step()
