"""APOLLO against its rule written out in float64 with the projections that it drew."""

import copy

import pytest
import torch
from torch import nn

from rl_posttrain.optim.apollo import APOLLO


def reference(weight, gradients, projections, *, lr, weight_decay, scale, by_channel):
    """The paper's algorithm on a matrix whose rows are the longer side: channels are rows, and R = G P^T."""
    mean = square = limit = None
    for step, (gradient, projection) in enumerate(zip(gradients, projections, strict=True), start=1):
        low = gradient @ projection.T
        mean = 0.1 * low if mean is None else 0.9 * mean + 0.1 * low
        square = 0.001 * low**2 if square is None else 0.999 * square + 0.001 * low**2
        adapted = (mean / (1 - 0.9**step)) / (square / (1 - 0.999**step)).sqrt()
        if by_channel:
            factor = torch.tensor([a.norm() / r.norm() for a, r in zip(adapted, low, strict=True)], dtype=low.dtype)
            update = gradient * factor[:, None]
        else:
            update = gradient * (adapted.norm() / low.norm())
        # The limit is on the length before the bias correction, as in the authors' code.
        correction = (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        length = update.norm() / correction
        if limit is not None and length > 1.01 * limit:
            update, length = update * (1.01 * limit / length), 1.01 * limit
        limit = length
        weight = weight * (1 - lr * weight_decay) - lr * scale**0.5 * update
    return weight


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("scale_type", "rank", "scale"), [("channel", 3, 1.0), ("tensor", 1, 128.0)])
def test_a_matrix_moves_by_its_scaled_gradient(scale_type, rank, scale, transposed):
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=False).double()  # [7, 5]
    expected = layer.weight.detach().clone()
    if transposed:
        layer.weight = nn.Parameter(layer.weight.detach().T.clone())
    optimizer = APOLLO.from_model(
        layer, lr=0.1, weight_decay=0.2, rank=rank, scale=scale, scale_type=scale_type, update_proj_gap=2, eps=1e-15
    )
    gradients, projections = [], []
    for step in range(5):
        gradient = torch.randn(7, 5, dtype=torch.float64) * (step + 1)  # grows, so that the limit holds
        layer.weight.grad = gradient.T.clone() if transposed else gradient.clone()
        optimizer.step()
        gradients.append(gradient)
        projections.append(optimizer.state[layer.weight]["projection"].clone())
    expected = reference(
        expected, gradients, projections, lr=0.1, weight_decay=0.2, scale=scale, by_channel=scale_type == "channel"
    )
    found = layer.weight.detach().T if transposed else layer.weight.detach()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert optimizer.state[layer.weight]["exp_avg"].shape == ((rank, 7) if transposed else (7, rank))
    assert torch.equal(projections[0], projections[1])
    assert not torch.equal(projections[1], projections[2])


def test_everything_else_takes_adamw():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7)).double()
    copied = copy.deepcopy(model)
    ours = APOLLO.from_model(model, lr=0.1, rank=2, weight_decay=0.2, eps=1e-15)
    theirs = torch.optim.AdamW(copied.parameters(), lr=0.1, weight_decay=0.2, eps=1e-15)
    for _ in range(3):
        for parameter, other in zip(model.parameters(), copied.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        ours.step()
        theirs.step()
    for parameter, other in list(zip(model.parameters(), copied.parameters(), strict=True))[1:]:
        torch.testing.assert_close(parameter, other)


def test_projections_do_not_hang_on_what_else_is_drawn():
    """Processes that hold the same weights draw other completions, and must not drift apart."""
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(5, 7, bias=False))
        optimizer = APOLLO.from_model(layers, rank=2)
        for parameter in layers.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        drawn.append([optimizer.state[parameter]["projection"] for parameter in layers.parameters()])
    assert all(map(torch.equal, *drawn))
    assert not torch.equal(*drawn[0])
