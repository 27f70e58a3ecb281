"""Muon over a whole model against torch's Muon and AdamW, each on its own part."""

import copy

import pytest
import torch
from torch import nn

from rl_posttrain.optim import Muon


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 7, bias=False)


def go(model, optimizers, steps, schedules=()):
    for step in steps:
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for stepping in (*optimizers, *schedules):
            stepping.step()


def schedule(optimizer):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 5)


@pytest.mark.parametrize("adjust_lr_fn", ["match_rms_adamw", "original"])
def test_hidden_matrices_take_torchs_muon_and_all_else_its_adamw(adjust_lr_fn):
    torch.manual_seed(0)
    model = Model()
    copied = copy.deepcopy(model)
    options = {"lr": 0.1, "weight_decay": 0.2}
    ours = Muon.from_model(model, momentum=0.8, betas=(0.7, 0.9), adjust_lr_fn=adjust_lr_fn, **options)
    matrices = [copied.hidden.weight]
    others = [parameter for parameter in copied.parameters() if parameter is not copied.hidden.weight]
    theirs = (
        torch.optim.Muon(matrices, momentum=0.8, adjust_lr_fn=adjust_lr_fn, **options),
        torch.optim.AdamW(others, betas=(0.7, 0.9), **options),
    )
    go(model, [ours], range(4), [schedule(ours)])
    go(copied, theirs, range(4), [schedule(optimizer) for optimizer in theirs])
    for parameter, expected in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    assert len(ours.state) == 6
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_goes_on_exactly_from_a_state_dict():
    torch.manual_seed(0)
    straight = Model()
    model = copy.deepcopy(straight)
    go(straight, [Muon.from_model(straight, lr=0.1)], range(4))
    optimizer = Muon.from_model(model, lr=0.1)
    go(model, [optimizer], range(2))
    resumed = Muon.from_model(model, lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    go(model, [resumed], range(2, 4))
    for parameter, expected in zip(model.parameters(), straight.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_group_that_comes_later_is_stepped_on():
    model, late = Model(), nn.Linear(3, 3)
    optimizer = Muon.from_model(model, lr=0.1)
    optimizer.add_param_group({"params": [late.weight], "update": "muon"})
    optimizer.add_param_group({"params": [late.bias], "update": "adamw", "lr": 0.0})
    before = copy.deepcopy(late)
    go(late, [optimizer], [0])
    assert not torch.equal(late.weight, before.weight)
    assert torch.equal(late.bias, before.bias)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"params": [nn.Parameter(torch.zeros(2, 2))]}], r"Invalid update: None; .*Muon\.from_model"),
        ([{"params": [nn.Parameter(torch.zeros(4))], "update": "muon"}], "muon is for matrices"),
    ],
)
def test_groups_that_it_does_not_take(groups, message):
    with pytest.raises(ValueError, match=message):
        Muon(groups)
