"""Stochastic rounding to bf16: unbiased, the same in every way to run a step, and part of an exact resume."""

import copy

import pytest
import torch

from rl_posttrain.optim import AdamS
from rl_posttrain.optim.rounding import store, tensor_key

WAYS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


KEY = tensor_key(1, 0)


def rounded(values, key=KEY, start=0):
    kept = torch.empty_like(values, dtype=torch.bfloat16)
    store(kept, values, key, start)
    return kept


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.25, 0.5, 0.9])
def test_a_value_goes_to_one_of_its_neighbours_and_is_kept_on_average(part, sign):
    low, high = 1.5, 1.5 + 2**-7  # neighbours in bf16
    number = 100_000
    found = rounded(torch.full((number,), sign * (low + part * (high - low)))).float() * sign
    assert set(found.tolist()) <= {low, high}
    share = (found == high).double().mean().item()
    assert share == pytest.approx(part, abs=5 * (part * (1 - part) / number) ** 0.5 + 1e-9)


def test_what_bf16_has_is_kept_and_so_is_what_is_no_finite_number():
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-133, 3.3895313892515355e38])
    assert torch.equal(rounded(exact).float(), exact)
    odd = rounded(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    assert odd[:2].tolist() == [torch.inf, -torch.inf]
    assert odd[2].isnan()


def test_each_tensor_step_and_element_has_bits_of_its_own():
    values = torch.full((4096,), 1.5 + 2**-8)  # half way
    first = rounded(values)
    for key in (tensor_key(1, 1), tensor_key(2, 0)):
        same = (rounded(values, key) == first).double().mean().item()
        assert same == pytest.approx(0.5, abs=0.05)
    # Bits of neighbours are not the same either.
    assert (first[1:] == first[:-1]).double().mean().item() == pytest.approx(0.5, abs=0.05)
    # A part of a tensor is rounded as the whole is.
    assert torch.equal(rounded(values[1000:], start=1000), first[1000:])


def parameters():
    torch.manual_seed(0)
    shapes = [(70_001,), (40, 30), (3,), (0,), ()]
    found = [torch.randn(shape).to(torch.bfloat16) for shape in shapes]
    found[1] = found[1].t()
    return [torch.nn.Parameter(weight) for weight in found]


def train(weights, steps, *, gradient=0.0, optimizer=None, **options):
    optimizer = optimizer or AdamS(weights, stochastic_rounding=True, **options)
    for step in range(steps):
        for weight in weights:
            weight.grad = torch.full_like(weight, gradient * (step + 1))
        optimizer.step()
    return optimizer


def test_every_way_rounds_alike():
    """Weights that only decay are the same fp32 numbers in every way, so that nothing but the bits can differ."""
    results = []
    for options in WAYS.values():
        weights = parameters()
        train(weights, 3, lr=0.1, weight_decay=0.03, **options)
        results.append([weight.detach() for weight in weights])
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))
    nearest = parameters()
    train(nearest, 3, lr=0.1, weight_decay=0.03, optimizer=AdamS(nearest, lr=0.1, weight_decay=0.03))
    assert not torch.equal(results[0][0], nearest[0])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_steps_too_small_for_bf16_arrive_on_average(way):
    """A constant gradient: after some steps each is lr, an 80th of what bf16 can tell at 1."""
    settings = {"lr": 1e-4, "state_dtype": "float32"}
    exact, by_chance, nearest = (torch.nn.Parameter(torch.ones(20_000)) for _ in range(3))
    by_chance.data, nearest.data = by_chance.data.bfloat16(), nearest.data.bfloat16()
    train([exact], 50, gradient=1.0, lr=1e-4)
    train([by_chance], 50, gradient=1.0, **settings, **way)
    train([nearest], 50, gradient=1.0, optimizer=AdamS([nearest], **settings, **way))
    assert torch.equal(nearest, torch.ones_like(nearest))
    moved = 1 - exact[0].item()
    assert moved == pytest.approx(50e-4, rel=0.1)
    assert (1 - by_chance.float()).mean().item() == pytest.approx(moved, rel=0.05)


def test_training_goes_on_exactly_from_a_saved_state():
    options = {"lr": 1e-3, "weight_decay": 0.1}
    whole = parameters()
    train(whole, 5, gradient=0.3, **options)
    stopped = parameters()
    state = copy.deepcopy(train(stopped, 2, gradient=0.3, **options).state_dict())
    resumed = AdamS(stopped, stochastic_rounding=True, **options)
    resumed.load_state_dict(state)
    for step in range(2, 5):
        for weight in stopped:
            weight.grad = torch.full_like(weight, 0.3 * (step + 1))
        resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, stopped, strict=True))


def test_weights_of_other_dtypes_are_as_without_it():
    weights, plain = ([torch.nn.Parameter(torch.linspace(-1, 1, 500))] for _ in range(2))
    train(weights, 3, gradient=0.3, lr=1e-3)
    train(plain, 3, gradient=0.3, optimizer=AdamS(plain, lr=1e-3))
    assert torch.equal(weights[0], plain[0])


def test_a_graph_that_would_repeat_its_bits_is_refused():
    with pytest.raises(ValueError, match="Invalid stochastic_rounding: True with capturable=True; a CUDA graph"):
        AdamS(parameters(), stochastic_rounding=True, capturable=True)
