"""GaLore and Fira against the package's own classes, and LoRA under everything with a low-rank state."""

import copy

import pytest
import pytorch_optimizer
import torch
from conformance import CASES, Model, assert_same, train
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from rl_posttrain.optim import build_optimizer

LOW_RANK = ("galore", "fira", "apollo")
THEIRS = {"galore": pytorch_optimizer.GaLore, "fira": pytorch_optimizer.Fira}


def packages_own(name, model):
    """The package's class on the groups that ours has."""
    groups = [{**group, "params": list(group["params"])} for group in CASES[name].build(model).param_groups]
    return THEIRS[name](groups, eps=1e-6)


@pytest.mark.parametrize("name", THEIRS)
def test_without_zero_gradients_it_is_the_packages_own_step(name):
    ours, theirs = Model(), Model()
    train(ours, CASES[name].build(ours), range(6))
    train(theirs, packages_own(name, theirs), range(6))
    assert_same(ours, theirs)
    assert not torch.equal(ours.mlp.weight, Model().mlp.weight)


@pytest.mark.parametrize("name", THEIRS)
def test_states_of_earlier_versions_go_on_exactly(name):
    """They were the package's: its projector in the state, and a group's steps."""
    straight, model = Model(), Model()
    train(straight, packages_own(name, straight), range(6))
    optimizer = packages_own(name, model)
    train(model, optimizer, range(3))
    again = CASES[name].build(model)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, again, range(3, 6))
    assert_same(model, straight)
    assert all("projector" not in state for state in again.state.values())


@pytest.mark.parametrize("num_steps", [0, 3])
@pytest.mark.parametrize("name", THEIRS)
def test_an_error_in_the_middle_of_a_step_spoils_no_state(name, num_steps):
    model = Model()
    optimizer = CASES[name].build(model)
    train(model, optimizer, range(num_steps))
    get_optimizer_state_dict(model, optimizer)  # makes the state where there is none
    before = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.zero_grad()
    model.loss(3).backward()
    model.mlp.weight.grad.fill_(float("nan"))  # its singular values cannot be found
    with pytest.raises(torch.linalg.LinAlgError):
        optimizer.step()
    after = optimizer.state_dict()
    assert {place: set(state) for place, state in after["state"].items()} == {
        place: set(state) for place, state in before.items()
    }
    assert "step" not in after["param_groups"][0]
    train(model, optimizer, range(4, 6))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_another_projection_is_refused():
    with pytest.raises(ValueError, match="Invalid projection_type: left; GaLore projects the shorter side"):
        type(CASES["galore"].build(Model()))([{"params": [], "rank": 2, "projection_type": "left"}])


class Lora(nn.Module):
    """x W^T + x A^T B^T with B = 0, so that A has a gradient of zero at the first step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(16, 16, bias=False)
        self.base.weight.requires_grad_(False)
        self.lora_A = nn.Linear(16, 8, bias=False)
        self.lora_B = nn.Linear(8, 16, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


@pytest.mark.parametrize("name", LOW_RANK)
def test_both_matrices_of_lora_learn(name):
    """As far as with AdamW, to a factor of a few; with a limit on a first update of zero A moved by nothing at all."""
    moved = {}
    for each in (name, "adamw"):
        model = Lora()
        options = {"rank": 4, "scale": 1.0} if each != "adamw" else {}
        optimizer = build_optimizer(model, each, lr=1e-2, **options)
        begin = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
        for step in range(20):
            torch.manual_seed(step)
            x = torch.randn(64, 16)
            optimizer.zero_grad()
            (model(x) - x.roll(1, dims=1)).square().mean().backward()
            assert step or not model.lora_A.weight.grad.any()
            optimizer.step()
        moved[each] = {path: (model.get_parameter(path) - old).norm().item() for path, old in begin.items()}
    for path in ("lora_A.weight", "lora_B.weight"):
        assert moved[name][path] > 0.2 * moved["adamw"][path], moved
