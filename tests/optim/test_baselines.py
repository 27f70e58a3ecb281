"""PowerStep, Adam without averages and SGD without momentum against their rules in Python floats."""

import math

import pytest
import torch
from adams_reference import random_case

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import AdamS, build_optimizer, resolve_optimizer
from rl_posttrain.optim.ledger import state_bytes
from rl_posttrain.optim.powerstep import PowerStep
from rl_posttrain.optim.stateless_adam import StatelessAdam
from rl_posttrain.optim.table import EXTRAS, PACKAGES

SHAPES = [(), (3,), (4, 5), (2, 3, 4), (2**18 + 3,)]


def by_hand(weight, gradients, update, *, lr, weight_decay=0.0, momentum=0.0, maximize=False) -> torch.Tensor:
    """The weights at the end; `update` is of a number, the sum of gradients that decays by `momentum`."""
    ends = []
    for place, w in enumerate(weight.double().flatten().tolist()):
        m = 0.0
        for gradient in gradients:
            g = gradient[place]
            m = momentum * m + (-g if maximize else g)
            w -= lr * (update(m) + weight_decay * w)
        ends.append(w)
    return torch.tensor(ends, dtype=torch.float64).view(weight.shape)


def signed_power(power):
    return lambda m: math.copysign(abs(m) ** power, m) if m else 0.0


def softened(eps):
    return lambda g: g / (abs(g) + eps)


def run(make, weight, gradients) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = make([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach(), optimizer


RULES = {
    "powerstep": (PowerStep, {}, signed_power(0.1), 0.9),
    "powerstep, square root": (PowerStep, {"power": 0.5, "momentum": 0.5}, signed_power(0.5), 0.5),
    "powerstep, sign": (PowerStep, {"power": 0.0}, signed_power(0.0), 0.9),
    "powerstep, no momentum": (PowerStep, {"momentum": 0.0}, signed_power(0.1), 0.0),
    "stateless_adam": (StatelessAdam, {"eps": 1e-3}, softened(1e-3), 0.0),
    "sgd": (torch.optim.SGD, {}, lambda g: g, 0.0),
}


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_the_weights_are_those_of_the_rule(rule, maximize, foreach):
    cls, options, update, momentum = RULES[rule]
    for shape in SHAPES[:-1]:
        weight, gradients = random_case(shape, torch.float64)
        # torch's SGD adds weight decay to the gradient; without momentum and maximize that is the same.
        settings = {"lr": 0.03, "weight_decay": 0.0 if cls is torch.optim.SGD else 0.2, "maximize": maximize}
        found, _ = run(lambda params, s=settings: cls(params, **s, **options, foreach=foreach), weight, gradients)
        lists = [gradient.double().flatten().tolist() for gradient in gradients]
        expected = by_hand(weight, lists, update, momentum=momentum, **settings)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", [PowerStep, StatelessAdam])
@pytest.mark.parametrize("foreach", [True, False])
def test_bf16_weights_are_updated_in_fp32(cls, foreach):
    """The fp32 step on the same values, rounded once."""
    weight, gradients = random_case((4, 5), torch.bfloat16, num_steps=3)
    for number in range(3):
        one = gradients[number : number + 1]
        settings = {"lr": 0.03, "weight_decay": 0.2, "foreach": foreach}
        found, _ = run(lambda params, s=settings: cls(params, **s), weight, one)
        wide, _ = run(lambda params, s=settings: cls(params, **s), weight.float(), [one[0].float()])
        assert torch.equal(found, wide.bfloat16())


@pytest.mark.parametrize("cls", [PowerStep, StatelessAdam])
def test_large_tensors_go_in_pieces(cls):
    weight, gradients = random_case((2**18 + 3,), torch.float32, num_steps=3)
    ends = [
        run(lambda params, way=way: cls(params, lr=0.1, foreach=way), weight, gradients)[0] for way in (True, False)
    ]
    torch.testing.assert_close(*ends)


def test_powersteps_state_is_one_buffer_in_the_dtype_that_is_asked_for():
    weight, gradients = random_case((4, 5), torch.bfloat16)
    for asked, kept in ((None, torch.bfloat16), ("float32", torch.float32)):
        _, optimizer = run(lambda params, asked=asked: PowerStep(params, state_dtype=asked), weight, gradients)
        ((parameter, state),) = optimizer.state.items()
        assert {name: value.dtype for name, value in state.items()} == {"momentum_buffer": kept}
        again = PowerStep([parameter])
        again.load_state_dict(optimizer.state_dict())
        assert again.state[parameter]["momentum_buffer"].dtype is kept


def test_powersteps_buffer_is_a_sum_that_adams_does_not_take_for_its_average():
    weight, gradients = random_case((4, 5), torch.float32)
    _, optimizer = run(PowerStep, weight, gradients)
    with pytest.raises(ValueError, match=r"another optimizer .*momentum_buffer.* AdamS cannot go on from"):
        AdamS([weight]).load_state_dict(optimizer.state_dict())
    _, adamw = run(torch.optim.AdamW, weight, gradients)
    _, sgd = run(lambda params: torch.optim.SGD(params, momentum=0.9), weight, gradients)
    for other in (adamw, sgd):
        with pytest.raises(ValueError, match=r"another optimizer .*PowerStep cannot go on from") as raised:
            PowerStep([weight]).load_state_dict(other.state_dict())
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (PowerStep, {"momentum": 1.0}),
        (PowerStep, {"power": 1.1}),
        (PowerStep, {"power": -0.1}),
        (PowerStep, {"lr": -1.0}),
        (PowerStep, {"state_dtype": "float16"}),
        (PowerStep, {"weight_decay": -1.0}),
        (StatelessAdam, {"eps": 0.0}),
        (StatelessAdam, {"lr": -1.0}),
    ],
)
def test_settings_out_of_their_range_are_named(cls, setting):
    ((name, value),) = setting.items()
    for make in (
        lambda: cls([torch.ones(1)], **setting),
        lambda: cls([torch.ones(1)]).add_param_group({"params": [torch.ones(1)], **setting}),
    ):
        with pytest.raises(ValueError, match=f"Invalid {name}: {value}"):
            make()


@pytest.mark.parametrize("name", ["stateless_adam", "sgd"])
def test_nothing_is_kept(name):
    options = {"momentum": 0.0} if name == "sgd" else {}
    model = torch.nn.Linear(3, 4)
    optimizer = build_optimizer(model, name, lr=0.1, **options)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    assert not optimizer.state_dict()["state"]


def test_stateless_adam_is_adam_with_betas_of_zero():
    weight, gradients = random_case((4, 5), torch.float64)
    settings = {"lr": 0.03, "weight_decay": 0.2}
    adam, _ = run(lambda params: torch.optim.AdamW(params, betas=(0.0, 0.0), **settings), weight, gradients)
    spec = resolve_optimizer("stateless_adam", **settings)
    found, _ = run(lambda params: spec.cls(params, **spec.arguments), weight, gradients)
    torch.testing.assert_close(found, adam, rtol=1e-12, atol=1e-12)


def test_adamw_8bit_is_adamw_with_a_quarter_of_its_state():
    pytest.importorskip("torchao", reason="adamw_8bit needs torchao, which is not installed")
    weight, gradients = random_case((64, 128), torch.float32)
    with torch.compiler.set_stance("force_eager"):
        spec = resolve_optimizer("adamw_8bit", lr=1e-3)
        found, optimizer = run(lambda params: spec.cls(params, lr=1e-3, weight_decay=0.1), weight, gradients[:2])
    adamw, _ = run(lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1), weight, gradients[:2])
    assert 0 < (found - adamw).abs().mean() < 1e-4
    assert state_bytes(optimizer) < 2.4 * weight.numel()
    with pytest.raises(RecipeError, match=r"adamw_8bit needs whole matrices, but distributed.zero_stage=2"):
        spec.refuse_shards(2)


def test_adamw_8bit_names_its_extra(monkeypatch):
    monkeypatch.setitem(PACKAGES, "adamw_8bit", "no_such_package")
    monkeypatch.setitem(EXTRAS, "no_such_package", "eightbit")
    with pytest.raises(RecipeError, match=r"adamw_8bit: .*is not installed; pip install 'rl_posttrain\[eightbit\]'"):
        resolve_optimizer("adamw_8bit", lr=1e-3)


def test_sgd_moves_bf16_weights():
    """torch's fused kernel for a CPU leaves whole vectors of them where they are (pytorch issue 191763)."""
    model = torch.nn.Linear(3, 4).bfloat16()
    before = model.weight.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    optimizer = build_optimizer(model, "sgd", lr=0.5, momentum=0.0)
    assert not optimizer.param_groups[0]["fused"]
    optimizer.step()
    assert torch.equal(model.weight, before - 0.5)
    with pytest.raises(RecipeError, match=r"fused=True: .*never moves .*leave fused out") as raised:
        build_optimizer(model, "sgd", lr=0.5, fused=True)
    assert "\n" not in str(raised.value)
    assert build_optimizer(model.float(), "sgd", lr=0.5, fused=True).param_groups[0]["fused"]
