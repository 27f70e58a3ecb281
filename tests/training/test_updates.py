"""What an update does to the weights and what it holds, against sums in float64 over all weights."""

import math

import pytest
import torch

from rl_posttrain.models.digest import weights_digest
from rl_posttrain.optim import AdamS
from rl_posttrain.training import updates
from rl_posttrain.training.updates import UpdateNorm, peak_memory_bytes


def parameters_of(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def set_gradients(parameters, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def flat(parameters):
    return torch.cat([parameter.detach().double().reshape(-1) for parameter in parameters])


def step_and_norms(optimizer, parameters, norm, seed=0):
    """The norm that is told of one step, and that of all weights' change in float64."""
    set_gradients(parameters, seed)
    before = flat(parameters)
    optimizer.step()
    squares, count, _ = norm.take()
    return norm.norm(squares, count), (flat(parameters) - before).norm().item()


SHAPES = ((7, 5), (5,), (3, 2, 4), (), (11, 13))
NUM_WEIGHTS = 35 + 5 + 24 + 1 + 143

MAKERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adams": lambda groups: AdamS(groups, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),
    "adams foreach off": lambda groups: AdamS(groups, lr=1e-3, foreach=False),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("num_groups", [1, 3])
def test_the_norm_of_a_small_models_update_is_exact(name, num_groups):
    parameters = parameters_of(*SHAPES)
    groups = [{"params": parameters[start::num_groups], "lr": 0.01 * (start + 1)} for start in range(num_groups)]
    optimizer = MAKERS[name](groups)
    norm = UpdateNorm(optimizer, NUM_WEIGHTS)
    for seed in range(3):
        told, true = step_and_norms(optimizer, parameters, norm, seed)
        assert told == pytest.approx(true, rel=1e-6)
        assert true > 0


def test_the_norm_of_a_plain_step_by_hand():
    (parameter,) = parameters_of((2,))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    norm = UpdateNorm(optimizer, 2)
    parameter.data.copy_(torch.tensor([1.0, 1.0]))
    parameter.grad = torch.tensor([6.0, 8.0])
    optimizer.step()
    assert norm.take() == (9.0 + 16.0, 2.0, 1.0 + 1.0)  # the weights before it are 1 and 1
    assert norm.norm(25.0, 2.0) == 5.0


def test_weights_without_a_gradient_did_not_change():
    parameters = parameters_of((4,), (4,))
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    norm = UpdateNorm(optimizer, 8)
    parameters[0].grad = torch.ones(4)
    optimizer.step()
    assert norm.take()[:2] == (4.0, 8.0)


def test_before_the_first_step_and_after_a_step_was_taken_there_is_no_norm():
    parameters = parameters_of((4,))
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    norm = UpdateNorm(optimizer, 4)
    assert norm.take() == (0.0, 0.0, 0.0)
    assert math.isnan(norm.norm(0.0, 0.0))
    step_and_norms(optimizer, parameters, norm)
    assert norm.take() == (0.0, 0.0, 0.0)


def test_a_step_that_is_made_group_by_group_adds_up():
    # As DeepSpeed makes it: the optimizer sees one group at a time.
    parameters = parameters_of((30,), (5, 5), (7,))
    optimizer = torch.optim.SGD([{"params": [parameter]} for parameter in parameters], lr=0.1)
    norm = UpdateNorm(optimizer, 62)
    set_gradients(parameters)
    before, groups = flat(parameters), optimizer.param_groups
    for group in groups:
        optimizer.param_groups = [group]
        optimizer.step()
    squares, count, _ = norm.take()
    assert count == 62
    assert norm.norm(squares, count) == pytest.approx((flat(parameters) - before).norm().item(), rel=1e-6)


def test_half_of_the_weights_in_another_process():
    # Sums of all processes are added; each is told the size of the whole model.
    parameters = parameters_of((40,), (60,))
    optimizers = [torch.optim.SGD([parameter], lr=0.1) for parameter in parameters]
    norms = [UpdateNorm(optimizer, 100) for optimizer in optimizers]
    set_gradients(parameters)
    before = flat(parameters)
    for optimizer in optimizers:
        optimizer.step()
    squares, counts, weights = zip(*(norm.take() for norm in norms), strict=True)
    assert norms[0].norm(sum(squares), sum(counts)) == pytest.approx((flat(parameters) - before).norm().item())
    assert norms[0].norm(sum(weights), sum(counts)) == pytest.approx(before.norm().item())


def test_the_norm_of_bfloat16_weights():
    parameters = parameters_of((64, 64), dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    told, true = step_and_norms(optimizer, parameters, UpdateNorm(optimizer, 64 * 64))
    assert told == pytest.approx(true, rel=2e-3)


# Widths that powers of two, tens and primes divide, and vectors between them.
LARGE = ((64, 96), (96,), (100, 128), (128,), (500, 30), *[(37,)] * 40, (211, 211))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("sample_size", [8_000, 30_000])
def test_the_norm_of_a_large_models_update_is_estimated(monkeypatch, name, sample_size):
    monkeypatch.setattr(updates, "_SAMPLE_SIZE", sample_size)
    parameters = parameters_of(*LARGE)
    num_weights = sum(parameter.numel() for parameter in parameters)
    assert num_weights > 2 * sample_size
    optimizer = MAKERS[name](parameters)
    norm = UpdateNorm(optimizer, num_weights)
    told, true = step_and_norms(optimizer, parameters, norm)
    assert told != true
    assert told == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("sample_size", [1, 10, 100, 207, 208, 10_000])
def test_a_sample_is_even_and_no_larger_than_it_should_be(monkeypatch, sample_size):
    monkeypatch.setattr(updates, "_SAMPLE_SIZE", sample_size)
    parameters = parameters_of(*SHAPES)
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    norm = UpdateNorm(optimizer, NUM_WEIGHTS)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    squares, count, _ = norm.take()
    stride = {1: 211, 10: 23, 100: 3, 207: 2, 208: 1, 10_000: 1}[sample_size]  # the prime from 208 / size on
    assert count == len(range(0, NUM_WEIGHTS, stride)) <= sample_size
    assert norm.norm(squares, count) == pytest.approx(math.sqrt(NUM_WEIGHTS), rel=1e-6)


def test_one_column_that_changes_is_met_by_the_sample(monkeypatch):
    monkeypatch.setattr(updates, "_SAMPLE_SIZE", 4096)
    (weight,) = parameters_of((512, 64))  # a stride of 8 would meet eight columns and never the others
    optimizer = torch.optim.SGD([weight], lr=1.0)
    norm = UpdateNorm(optimizer, 512 * 64)
    weight.grad = torch.zeros(512, 64)
    weight.grad[:, 5] = 1.0
    optimizer.step()
    assert norm.norm(*norm.take()[:2]) == pytest.approx(math.sqrt(512), rel=0.05)


def named(**tensors):
    return list(tensors.items())


def test_equal_weights_have_one_digest_and_any_bit_makes_another():
    weights = named(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(1.5, dtype=torch.bfloat16))
    digest = weights_digest(weights)
    assert len(digest) == 64
    assert weights_digest([(name, torch.nn.Parameter(tensor.clone())) for name, tensor in weights]) == digest
    assert weights_digest(iter(weights)) == digest
    for name, tensor in weights:
        for place in range(tensor.numel()):
            changed = {key: value.clone() for key, value in weights}
            bits = changed[name].reshape(-1).view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)
            bits[place] ^= 1  # the last bit of the mantissa
            assert not torch.equal(changed[name], tensor)
            assert weights_digest(changed.items()) != digest


def test_a_digest_tells_zeros_names_and_orders_apart():
    zero = torch.zeros(3)
    digests = [
        weights_digest(weights)
        for weights in ([], named(a=zero), named(b=zero), named(a=-zero), named(a=zero, b=zero), named(b=zero, a=zero))
    ]
    assert len(set(digests)) == len(digests)


def test_a_digest_is_of_values_and_not_of_how_they_lie():
    weight = torch.arange(12.0).reshape(3, 4)
    assert weights_digest(named(a=weight.t().contiguous().t())) == weights_digest(named(a=weight))
    assert weights_digest(named(a=weight[:, ::2])) == weights_digest(named(a=weight[:, ::2].clone()))
    assert weights_digest(named(a=torch.empty(0))) != weights_digest([])


def test_peak_memory_holds_what_was_allocated_and_stays_when_it_is_gone():
    cpu = torch.device("cpu")
    held = torch.ones(2**26)  # 256 MiB, touched
    peak = peak_memory_bytes(cpu)
    assert held.nbytes <= peak < 2**40
    del held
    assert peak_memory_bytes(cpu) >= 0.99 * peak  # Linux counts it by thread and adds up now and then


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_memory_of_a_gpu():
    device = torch.device("cuda")
    held = torch.ones(2**24, device=device)
    assert peak_memory_bytes(device) >= held.nbytes
