"""AdamS by hand, its bound, and its behaviour as an optimizer of torch; test_adams_ways.py has the reference."""

import inspect
import itertools
import math
import warnings

import pytest
import torch
from adams_reference import train

from rl_posttrain.optim import AdamS, adams


def test_a_constant_gradient_by_hand():
    # Step 1: 0.1 / sqrt(0.05). Step 2: 0.19 / sqrt(0.95 * 0.1**2 + 0.05). Step 3: 0.271 / sqrt(0.95 * 0.19**2 + 0.05).
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    gradient = torch.full((1,), 3.0, dtype=torch.float64)
    _, after = train(parameter, [gradient] * 3, lr=1.0, eps=1e-12)
    steps = [-after[0].item(), (after[0] - after[1]).item(), (after[1] - after[2]).item()]
    assert steps == pytest.approx([0.4472, 0.7789, 0.9334], abs=5e-5)


def test_the_authors_first_step_is_ten_times_the_papers():
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    options = {"lr": 1.0, "eps": 1e-12, "bias_correction": True}
    _, after = train(parameter, [torch.full((1,), 3.0, dtype=torch.float64)] * 2, **options)
    # Step 1: 1 / sqrt(0.05). Step 2, with 1 - 0.9**2 = 0.19: 1 / sqrt(0.95 * (0.1 / 0.19)**2 + 0.05).
    assert -after[0].item() == pytest.approx(4.4721, abs=1e-4)
    assert (after[0] - after[1]).item() == pytest.approx(1.78697, abs=1e-4)


def test_bias_correction_counts_for_each_parameter():
    """ZeRO-3 calls step() once for each part of the model."""
    parts = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    optimizer = AdamS(parts, lr=1.0, bias_correction=True)
    for part in parts:
        part.grad = torch.ones_like(part)
        optimizer.step()
        part.grad = None
    torch.testing.assert_close(parts[0], parts[1])
    assert [optimizer.state[part]["step"].item() for part in parts] == [1, 1]


@pytest.mark.parametrize(("betas", "bound"), [((0.9, 0.95), 1.0260), ((0.9, 0.999), 3.2880)])
def test_no_element_moves_further_than_the_bound(betas, bound):
    beta1, beta2 = betas
    assert math.sqrt(beta1**2 / beta2 + (1 - beta1) ** 2 / (1 - beta2)) == pytest.approx(bound, abs=1e-4)
    parameter = torch.nn.Parameter(torch.zeros(4096, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    optimizer = AdamS([parameter], lr=1.0, betas=betas)
    largest = 0.0
    for step in range(60):
        before = parameter.detach().clone()
        noise = torch.randn(4096, generator=generator, dtype=torch.float64)
        # For a third of them the gradient that moves an element furthest: m (1 - beta1) beta2 / (beta1 (1 - beta2)).
        momentum = optimizer.state[parameter].get("exp_avg", torch.ones_like(noise))
        worst = momentum * (1 - beta1) * beta2 / (beta1 * (1 - beta2))
        parameter.grad = torch.where(torch.arange(4096) % 3 == 0, worst, noise * 10.0 ** (step % 9 - 4))
        optimizer.step()
        largest = max(largest, (parameter.detach() - before).abs().max().item())
    assert bound * 0.999 < largest <= bound + 1e-4


def test_after_its_gradient_an_element_goes_on_by_beta1_over_the_root_of_beta2():
    """docs/adams.md warns of it: momentum and normalizer shrink together."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    gradients = [torch.ones(1, dtype=torch.float64), *[torch.zeros(1, dtype=torch.float64)] * 20]
    _, after = train(parameter, gradients, lr=1.0)
    for before, now in itertools.pairwise(after):
        assert (before - now).item() == pytest.approx(0.9 / 0.95**0.5, rel=1e-5)


def test_a_gradient_that_was_always_zero_moves_nothing():
    parameter = torch.nn.Parameter(torch.ones(3))
    _, after = train(parameter, [torch.zeros(3)] * 3, lr=1.0)
    assert after[-1].tolist() == [1.0, 1.0, 1.0]


def test_the_state_is_one_buffer_of_the_parameters_shape():
    parameters = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    optimizer = AdamS(parameters)
    assert optimizer.state_dict()["state"] == {}
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in parameters:
        state = optimizer.state[parameter]
        assert list(state) == ["exp_avg"]
        assert state["exp_avg"].shape == parameter.shape
        torch.testing.assert_close(state["exp_avg"], torch.full_like(parameter, 0.1))


def test_groups_have_their_own_settings():
    one, other = (torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = AdamS([{"params": [one]}, {"params": [other], "lr": 0.5, "weight_decay": 0.1}], lr=0.1, eps=1e-12)
    one.grad = other.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    assert one.item() == pytest.approx(1 - 0.1 * 0.1 / math.sqrt(0.05))
    assert other.item() == pytest.approx((1 - 0.5 * 0.1) - 0.5 * 0.1 / math.sqrt(0.05))


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamS([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert parameter.item() == pytest.approx(2 - 0.1 * 0.1 / math.sqrt(0.05))
    assert AdamS([parameter]).step() is None


def test_a_schedule_changes_the_rate():
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdamS([parameter], lr=1.0, eps=1e-12)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    moved = []
    for _ in range(3):
        before = parameter.item()
        parameter.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        schedule.step()
        moved.append(before - parameter.item())
    assert moved == pytest.approx([0.4472, 0.7789 / 2, 0.9334 / 4], abs=5e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid lr: -1.0"),
        ({"lr": math.nan}, "Invalid lr: nan; it must be a number, 0 or above"),
        ({"betas": (1.0, 0.95)}, r"Invalid beta1: betas\[0\]=1.0"),
        ({"betas": (0.9, 1.0)}, r"Invalid beta2: betas\[1\]=1.0"),
        ({"betas": (-0.1, 0.95)}, r"Invalid beta1: betas\[0\]=-0.1"),
        ({"betas": (0.9, math.nan)}, r"Invalid beta2: betas\[1\]=nan"),
        ({"betas": (0.9,)}, r"Invalid betas: \(0.9,\); there are two"),
        ({"betas": (0.9, 0.95, 0.99)}, "Invalid betas"),
        ({"eps": 0.0}, "Invalid eps: 0.0"),
        ({"eps": -1e-8}, "Invalid eps: -1e-08"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1"),
        ({"lr": torch.zeros(2)}, r"Invalid lr: a tensor of shape \(2,\)"),
        ({"lr": torch.tensor(-1.0)}, "Invalid lr: -1.0"),
        ({"state_dtype": "float8"}, "Invalid state_dtype: float8"),
        ({"amsgrad": True}, "Invalid amsgrad: True; AdamS keeps no second moment"),
        ({"differentiable": True}, "Invalid differentiable: True"),
        ({"foreach": True, "fused": True}, "Invalid foreach: True with fused=True"),
    ],
    ids=str,
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AdamS([torch.nn.Parameter(torch.zeros(2))], **options)


def test_it_takes_adamws_arguments_by_name_and_place():
    theirs = inspect.signature(torch.optim.AdamW.__init__).parameters
    ours = inspect.signature(AdamS.__init__).parameters
    assert [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        p.name for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert set(theirs) <= set(ours)
    assert all(ours[name].default == theirs[name].default for name in set(theirs) - {"betas", "weight_decay"})


def test_groups_are_checked_too():
    with pytest.raises(ValueError, match="Invalid eps: 0"):
        AdamS([{"params": [torch.nn.Parameter(torch.zeros(2))], "eps": 0.0}])


def test_a_sparse_gradient_is_refused():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="gradient=sparse: AdamS takes dense"):
        AdamS(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("betas", "seen"),
    [
        ((0.9, 0.95), None),
        ((0.95, 0.99), None),
        ((0.97, 0.98), None),
        ((0.9, 0.999), r"betas=\(0.9, 0.999\): .* may move 3.29 lr"),
        ((0.96, 0.985), "both lag the gradient"),
    ],
)
def test_betas_that_training_suffers_from_are_named_once(betas, seen):
    adams._warn_about.cache_clear()
    parameter = torch.nn.Parameter(torch.zeros(2))
    if seen is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            AdamS([parameter], betas=betas)
        return
    with pytest.warns(UserWarning, match=seen):
        AdamS([parameter], betas=betas)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdamS([parameter], betas=betas)


def test_a_gradient_scaler_skips_what_overflowed():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamS([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor, moves in ((float("inf"), False), (1.0, True)):
        before = parameter.detach().clone()
        optimizer.zero_grad()
        scaler.scale((parameter * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert (not torch.equal(before, parameter)) is moves
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 1 - 0.1 * 0.1 / 0.05**0.5))
