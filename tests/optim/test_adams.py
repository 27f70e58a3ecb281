"""AdamS against its three equations in float64, and as an optimizer that DeepSpeed and transformers can hold."""

import copy
import itertools
import math

import pytest
import torch
from adams_reference import DEFAULTS, random_case, reference, train

from rl_posttrain.optim import AdamS, adams_kernels

SHAPES = {"scalar": (), "vector": (7,), "matrix": (5, 3), "3-D": (2, 3, 4)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "betas": (0.9, 0.999)},
        {"betas": (0.0, 0.5)},
        {"betas": (0.5, 0.0)},
        {"eps": 0.1},
        {"lr": 0.05, "weight_decay": 0.3},
        {"lr": 0.0, "weight_decay": 0.3},
    ],
    ids=str,
)
def test_it_follows_its_equations(options, shape, dtype):
    weight, gradients = random_case(shape, dtype)
    expected = reference(weight, gradients, **DEFAULTS | options)
    _, after = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    tolerance = 1e-12 if dtype is torch.float64 else 2e-6
    for ours, theirs in zip(after, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)


def test_bf16_stays_within_its_rounding():
    weight, gradients = random_case((64,), torch.bfloat16)
    options = {"lr": 0.01, "weight_decay": 0.1}
    expected = reference(weight, gradients, **DEFAULTS | options)
    optimizer, after = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    # A bf16 weight is rounded to 1 part in 2**8 at each step; the update, at most 1.026 lr, has a few such roundings.
    bound = sum(step.abs() * 2**-8 + 1.026 * options["lr"] * 2**-4 for step in expected)
    assert ((after[-1].double() - expected[-1]).abs() <= bound).all()
    assert optimizer.state_dict()["state"][0]["exp_avg"].dtype is torch.bfloat16


def test_a_constant_gradient_by_hand():
    # Step 1: 0.1 / sqrt(0.05). Step 2: 0.19 / sqrt(0.95 * 0.1**2 + 0.05). Step 3: 0.271 / sqrt(0.95 * 0.19**2 + 0.05).
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    gradient = torch.full((1,), 3.0, dtype=torch.float64)
    _, after = train(parameter, [gradient] * 3, lr=1.0, eps=1e-12)
    steps = [-after[0].item(), (after[0] - after[1]).item(), (after[1] - after[2]).item()]
    assert steps == pytest.approx([0.4472, 0.7789, 0.9334], abs=5e-5)


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


@pytest.mark.parametrize("size", [*(adams_kernels._PIECE_SIZE + more for more in (-1, 0, 1)), 2**19 + 3])
def test_pieces_do_not_show(size):
    """The same as in small parts of their own, at any size of the flat tensor that DeepSpeed hands over."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, generator=generator)
    gradients = [torch.randn(size, generator=generator) for _ in range(2)]
    options = {"lr": 0.01, "weight_decay": 0.1, "implementation": "single"}
    _, whole = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parts = []
    for place in torch.arange(size).tensor_split(7):
        _, after = train(torch.nn.Parameter(weight[place]), [gradient[place] for gradient in gradients], **options)
        parts.append(after[-1])
    torch.testing.assert_close(whole[-1], torch.cat(parts), rtol=0, atol=1e-7)
    assert not torch.equal(whole[-1], weight)


def test_a_parameter_that_is_not_contiguous():
    weight, gradients = random_case((6, 4), torch.float64)
    expected = reference(weight, gradients, **DEFAULTS)
    transposed = torch.nn.Parameter(weight.t().contiguous().t())
    assert not transposed.is_contiguous()
    _, after = train(transposed, gradients)
    torch.testing.assert_close(after[-1], expected[-1], rtol=1e-12, atol=1e-12)
    storage = torch.zeros(6, 8, dtype=torch.float64)
    strided = torch.nn.Parameter(storage[:, ::2])
    strided.data.copy_(weight)
    _, after = train(strided, gradients)
    torch.testing.assert_close(after[-1], expected[-1], rtol=1e-12, atol=1e-12)
    assert storage[:, 1::2].eq(0).all()


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


def test_what_has_no_gradient_stays_and_gets_no_state():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = AdamS([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused.tolist() == [1.0, 1.0]
    assert unused not in optimizer.state
    assert used.tolist() != [1.0, 1.0]


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_goes_on_exactly_from_a_state_dict(dtype, tmp_path):
    weight, gradients = random_case((33,), dtype)
    options = {"lr": 0.01, "weight_decay": 0.1}
    _, straight = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer, _ = train(parameter, gradients[:3], **options)
    torch.save([parameter, optimizer.state_dict()], tmp_path / "state.pt")
    parameter, state = torch.load(tmp_path / "state.pt", weights_only=False)
    resumed = AdamS([parameter], lr=1.0)  # what the state holds counts
    resumed.load_state_dict(state)
    for gradient in gradients[3:]:
        parameter.grad = gradient.clone()
        resumed.step()
    assert torch.equal(parameter.detach(), straight[-1])


def test_it_can_be_copied_and_shown():
    optimizer = AdamS([torch.nn.Parameter(torch.zeros(2))])
    assert "betas: (0.9, 0.95)" in repr(copy.deepcopy(optimizer))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid lr: -1.0"),
        ({"lr": math.nan}, "Invalid lr: nan"),
        ({"betas": (1.0, 0.95)}, r"Invalid beta1: betas\[0\]=1.0"),
        ({"betas": (0.9, 1.0)}, r"Invalid beta2: betas\[1\]=1.0"),
        ({"betas": (-0.1, 0.95)}, r"Invalid beta1: betas\[0\]=-0.1"),
        ({"betas": (0.9, math.nan)}, r"Invalid beta2: betas\[1\]=nan"),
        ({"betas": (0.9,)}, r"Invalid betas: \(0.9,\); there are two"),
        ({"betas": (0.9, 0.95, 0.99)}, "Invalid betas"),
        ({"eps": 0.0}, "Invalid eps: 0.0"),
        ({"eps": -1e-8}, "Invalid eps: -1e-08"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1"),
    ],
    ids=str,
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AdamS([torch.nn.Parameter(torch.zeros(2))], **options)
