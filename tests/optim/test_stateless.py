"""Optimizers that keep nothing: sign_sgd and sgd without momentum, against the rules written out and torch's Adam."""

import copy

import torch
from conformance import CASES, Model, train

from rl_posttrain.optim import build_optimizer
from rl_posttrain.optim.ledger import state_bytes


def test_sign_sgd_moves_each_element_by_its_rate():
    model = Model().double()
    optimizer = build_optimizer(model, "sign_sgd", lr=0.1, weight_decay=0.2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, optimizer, range(1))
    for name, parameter in model.named_parameters():
        decay = 0.2 if parameter.ndim == 2 else 0.0
        signs = (parameter.grad > 0).double() - (parameter.grad < 0).double()
        torch.testing.assert_close(parameter.detach(), (1 - 0.1 * decay) * before[name] - 0.1 * signs)
    assert state_bytes(optimizer) == 0


def test_sign_sgd_is_adam_without_averages():
    ours, theirs = Model().double(), Model().double()
    train(ours, build_optimizer(ours, "sign_sgd", lr=0.01), range(5))
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.0, 0.0), eps=1e-30), range(5))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_signum_takes_the_sign_of_the_average():
    model = Model().double()
    optimizer = build_optimizer(model, "sign_sgd", lr=0.01, momentum=0.9)
    weight, average = model.mlp.weight.detach().clone(), torch.zeros(8, 6, dtype=torch.float64)
    for step in range(4):
        train(model, optimizer, range(step, step + 1))
        average = 0.9 * average + 0.1 * model.mlp.weight.grad
        weight -= 0.01 * average.sign()
    torch.testing.assert_close(model.mlp.weight.detach(), weight)


def test_sgd_without_momentum_is_the_gradient_and_keeps_nothing():
    model = Model().double()
    optimizer = CASES["sgd"].build(model, lr=0.1, momentum=0, weight_decay=0.2)
    before = copy.deepcopy(model)
    train(model, optimizer, range(1))
    old = before.mlp.weight.detach()
    torch.testing.assert_close(model.mlp.weight.detach(), old - 0.1 * (model.mlp.weight.grad + 0.2 * old))
    assert state_bytes(optimizer) == 0
