"""The optimizers of the table as cases for the checks of conformance_files.py and
conformance_steps.py, and the models that they train.

A new optimizer enters all checks by one line in `CASES`. Where a class rightly does something else, its case has an
`Own` with the reason and a check of what it does instead.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.utils._pytree import tree_flatten

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import OptimizerSpec, build_optimizer, resolve_optimizer
from rl_posttrain.optim.table import PACKAGES, is_installed

LOW_RANK = {"rank": 2, "update_proj_gap": 2}


@dataclasses.dataclass(frozen=True)
class Own:
    """A check in the place of the shared one: ``check(case)`` proves what the class does instead, and `reason` why."""

    reason: str
    check: Callable[["Case"], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """How the checks make an optimizer of the table, and in what it differs.

    Attributes:
        label: of a further case of the same name.
        options: arguments of `build_optimizer` beside the rate.
        group: what a parameter group of the class says beside its parameters, for `add_param_group` with a matrix.
        keeps_state: False where the class has no entry in its state for any parameter.
        counts_zeros: parts of the names of parameters for which a step with a zero gradient counts in the bias
            correction, as it does in Adam.
        own: checks that the class answers in its own way.
    """

    name: str
    label: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keeps_state: bool = True
    counts_zeros: tuple[str, ...] = ()
    own: Mapping[str, Own] = dataclasses.field(default_factory=dict)

    def build(self, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
        return build_optimizer(model, self.name, **{"lr": 0.05, "weight_decay": 0.01} | dict(self.options) | options)

    def spec(self) -> OptimizerSpec:
        return resolve_optimizer(self.name, lr=0.05, weight_decay=0.01, options=self.options)

    def pair(self, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The same model each time, and a new optimizer for it."""
        model = Model()
        return model, self.build(model, **options)


def skip_where_missing(name: str) -> None:
    """`make setup` leaves some packages out."""
    package = PACKAGES.get(name, "torch")
    if not is_installed(package):
        pytest.skip(f"{name} needs {package}, which is not installed")


CHECKS: dict[str, Callable[[Case], None]] = {}


def check(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Every optimizer goes through `function` from now on. A parameter `folder` is given an empty one."""
    CHECKS[function.__name__] = function
    return function


class Model(nn.Module):
    """Parameters of every role and some shapes: embedding, linear layer with bias, norm, output layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mlp = nn.Linear(6, 8)
        self.second_mlp = nn.Linear(8, 5, bias=False)
        self.norm = nn.LayerNorm(5)
        self.lm_head = nn.Linear(5, 11, bias=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def loss(self, step: int) -> torch.Tensor:
        """On a batch of its own for each step."""
        ids = torch.randint(11, (2, 16), generator=torch.Generator().manual_seed(step))
        logits = self.lm_head(self.norm(self.second_mlp(self.mlp(self.embed(ids[0])).relu())))
        return nn.functional.cross_entropy(logits.float(), ids[1])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, schedule: Any = None) -> None:
    for step in steps:
        optimizer.zero_grad()
        model.loss(step).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Bitwise."""
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def assert_same_tree(one, other) -> None:
    (ours, our_shape), (theirs, their_shape) = tree_flatten(one), tree_flatten(other)
    assert our_shape == their_shape
    for mine, yours in zip(ours, theirs, strict=True):
        if isinstance(mine, torch.Tensor):
            assert mine.dtype is yours.dtype
            assert torch.equal(mine, yours)
        else:
            assert mine == yours


def straight(case: Case, num_steps: int = 6, **options: Any) -> nn.Module:
    """The model after so many steps without any interruption."""
    model, optimizer = case.pair(**options)
    train(model, optimizer, range(num_steps))
    return model


def assert_goes_on(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, begin: int = 3) -> None:
    """Training from step `begin` on ends where an uninterrupted run does, to the bit."""
    train(model, optimizer, range(begin, 6))
    assert_same(model, straight(case))


def fresh(case: Case, trained: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Another process's model with the same weights, and a new optimizer with settings that a file must replace."""
    model = Model()
    model.load_state_dict(copy.deepcopy(trained.state_dict()))
    return model, case.build(model)


def takes_no(option: str, value: Any, reason: str) -> Own:
    """The option is refused, in one line that names it."""

    def check(case: Case) -> None:
        with pytest.raises(RecipeError, match=rf"{option}.*(takes no such argument|unexpected keyword)") as raised:
            case.build(Model(), **{option: value})
        assert "\n" not in str(raised.value)

    return Own(reason, check)


def steps_on_complex_numbers(case: Case) -> None:
    """Its real and imaginary parts move as two real numbers do."""
    values, gradient = (torch.randn(8, 6, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    model, plain = Model(), Model()
    model.mlp.weight = nn.Parameter(torch.view_as_complex(values.clone()))
    plain.mlp.weight = nn.Parameter(values.clone())
    model.mlp.weight.grad, plain.mlp.weight.grad = torch.view_as_complex(gradient), gradient
    for each in (model, plain):
        case.build(each).step()
    torch.testing.assert_close(torch.view_as_real(model.mlp.weight.detach()), plain.mlp.weight.detach())


def cycles_the_rate_alone(case: Case) -> None:
    """torch's schedules say in one line that there is no momentum, and cycle the rate when told so."""
    model, optimizer = case.pair()
    settings = {"max_lr": 0.1, "total_steps": 4, "div_factor": 2.0}
    with pytest.raises(ValueError, match="cycle_momentum"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, **settings)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **settings, cycle_momentum=False)
    train(model, optimizer, range(1), schedule)
    assert all(group["lr"] > 0.05 for group in optimizer.param_groups)


def is_refused_by_torchs_helper(case: Case) -> None:
    """It looks for the device of the state's tensors when it loads, as with torch's SGD without momentum."""
    model, optimizer = case.pair()
    options = StateDictOptions(full_state_dict=True)
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    with pytest.raises(AssertionError, match="Expected device to be set"):
        set_optimizer_state_dict(model, optimizer, saved, options=options)


NO_TENSOR = "torch's helper cannot load a whole state without a tensor; there is nothing to load"
FULL_STATE = "a_state_dict_in_memory_goes_on_to_the_bit_by_name"
TORCHS = "torch's own class takes complex parameters"
NO_FP32 = takes_no("state_dtype", "float32", "its state has the dtype of the weights; engines keep fp32 masters")
NO_STATE = takes_no("state_dtype", "float32", "it keeps no state")
NO_MAXIMIZE = takes_no("maximize", True, "negate the loss")
FP32_STATE, COMPLEX = (
    "bf16_weights_have_an_fp32_state_where_that_is_asked_for",
    "complex_gradients_are_refused_in_one_line",
)
MAXIMIZE = "maximize_is_a_descent_on_the_negative"
CYCLES = "schedules_that_cycle_the_momentum_reach_every_momentum"
NO_CYCLE = Own("it has no momentum to cycle", cycles_the_rate_alone)
OF_TORCH = {FP32_STATE: NO_FP32, COMPLEX: Own(TORCHS, steps_on_complex_numbers)}
UNLOADED = {FULL_STATE: Own(NO_TENSOR, is_refused_by_torchs_helper)}
NEITHER = {FP32_STATE: NO_FP32, MAXIMIZE: NO_MAXIMIZE}
VECTORS = ("bias", "norm")
NOT_HIDDEN = ("embed", "lm_head", *VECTORS)

CASES = {
    case.label or case.name: case
    for case in (
        Case("adams"),
        Case("adams", label="adams with bias_correction", options={"bias_correction": True}, counts_zeros=("",)),
        Case("adams", label="adams with stochastic rounding", options={"stochastic_rounding": True}),
        Case("adamw", counts_zeros=("",), own=OF_TORCH),
        Case("adamw_8bit", counts_zeros=("",), own=NEITHER),
        Case("scale", group={"role": "matrix", "axis": 1}, counts_zeros=VECTORS, own={FP32_STATE: NO_FP32}),
        Case("sgd", own=OF_TORCH),
        Case(
            "sgd", label="sgd without momentum", options={"momentum": 0.0}, keeps_state=False, own=OF_TORCH | UNLOADED
        ),
        Case("stateless_adam", keeps_state=False, own={FP32_STATE: NO_STATE, CYCLES: NO_CYCLE} | UNLOADED),
        Case("powerstep"),
        Case("muon", group={"update": "muon"}, counts_zeros=NOT_HIDDEN, own=NEITHER),
        Case("lion", own={FP32_STATE: NO_FP32}),
        Case("sign_sgd", own={FP32_STATE: NO_FP32} | UNLOADED),
        Case("sign_sgd", label="sign_sgd with momentum", options={"momentum": 0.9}, own={FP32_STATE: NO_FP32}),
        Case("adam_mini", group={"name": "late.weight", "weight_decay": 0.0}, counts_zeros=("",), own=NEITHER),
        Case("galore", options=LOW_RANK, counts_zeros=NOT_HIDDEN, own=NEITHER),
        Case("fira", options=LOW_RANK, counts_zeros=NOT_HIDDEN, own=NEITHER),
        Case("apollo", options=LOW_RANK, counts_zeros=NOT_HIDDEN, own=NEITHER),
    )
}
