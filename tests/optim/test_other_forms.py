"""AdamW's state in other forms and orders than the optimizer's own: flat dicts, and a trainer's groups."""

import copy

import pytest
import torch
from conformance import CASES, Model, train
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from rl_posttrain.optim import build_optimizer


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", ["adams", "scale", "lion", "apollo"])
def test_adamws_state_in_the_flat_form_of_torch_distributed_checkpoint(name, steps):
    """As in the nested form: taken over, or refused in one line. Both before and after steps of one's own."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model = Model()
    other = torch.optim.AdamW(model.parameters())
    train(model, other, range(3))
    other.zero_grad()
    flat = copy.deepcopy(get_optimizer_state_dict(model, other, options=options))
    optimizer = CASES[name].build(model)
    train(model, optimizer, range(steps))
    optimizer.zero_grad()
    if name in ("lion", "apollo"):
        with pytest.raises(ValueError, match=r"of another optimizer .* cannot go on from; start anew"):
            set_optimizer_state_dict(model, optimizer, flat, options=options)
        return
    with pytest.warns(UserWarning, match="takes over the state of another optimizer"):
        set_optimizer_state_dict(model, optimizer, flat, options=options)
    kept = [parameter for parameter in model.parameters() if "exp_avg" in optimizer.state.get(parameter, {})]
    assert len(kept) == {"adams": 7, "scale": 4}[name]
    for parameter in kept:
        assert torch.equal(optimizer.state[parameter]["exp_avg"], other.state[parameter]["exp_avg"])
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}


class Alike(nn.Module):
    """Norms and biases of one shape, in turn, and matrices of one shape with roles that differ."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4)])
        self.lm_head = nn.Linear(4, 4, bias=False)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("ours", ["adams", "scale"])
def test_groups_by_role_find_their_states_in_a_trainers_two_groups_where_shapes_do_not_tell(ours, named):
    model = Alike()
    decayed = [(name, p) for name, p in model.named_parameters() if p.ndim == 2]
    others = [(name, p) for name, p in model.named_parameters() if p.ndim < 2]
    groups = [{"params": part if named else [p for _, p in part]} for part in (decayed, others)]
    other = torch.optim.AdamW(groups)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    other.step()
    by_role = {"adams": {"lr_by_role": {"norms": 1e-4, "embeddings": 1e-5}}, "scale": {}}[ours]
    optimizer = build_optimizer(model, ours, lr=1e-3, **by_role)
    assert len(optimizer.param_groups) > 2
    with pytest.warns(UserWarning, match="takes over"):
        optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    kept = [parameter for parameter in model.parameters() if "exp_avg" in optimizer.state.get(parameter, {})]
    assert len(kept) == {"adams": 10, "scale": 7}[ours]
    for parameter in kept:
        assert torch.equal(optimizer.state[parameter]["exp_avg"], other.state[parameter]["exp_avg"])
