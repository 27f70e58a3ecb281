"""What every optimizer of the table must do: shapes, dtypes, kinds of gradients, settings of a step."""

import copy

import pytest
import torch
from conformance import (
    Case,
    Model,
    assert_same,
    assert_same_tree,
    check,
    straight,
    train,
    weights,
)
from torch import nn


@check
def empty_scalar_and_strided_parameters_are_taken(case):
    shapes = Shapes()
    optimizer = case.build(shapes)
    before = weights(shapes)
    for step in range(3):
        torch.manual_seed(step)
        for parameter in shapes.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    for (name, parameter), old in zip(shapes.named_parameters(), before, strict=True):
        assert parameter.isfinite().all()
        assert not parameter.numel() or not torch.equal(parameter, old), name
    # The same numbers in another order of memory.
    compact, strided = (Shapes(strided=which) for which in (False, True))
    for layers in (compact, strided):
        optimizer = case.build(layers)
        for step in range(3):
            torch.manual_seed(step)
            for parameter in layers.parameters():
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
            optimizer.step()
    for ours, theirs in zip(compact.parameters(), strided.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


class Shapes(nn.Module):
    """A matrix, which may stand column by column, and parameters without and of a single value."""

    def __init__(self, *, strided: bool = False):
        super().__init__()
        values = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
        self.mlp = nn.Linear(6, 8, bias=False)
        self.mlp.weight = nn.Parameter(values.t().contiguous().t() if strided else values)
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.zeros(0))
        self.empty_mlp = nn.Linear(6, 0, bias=False)


@check
def without_gradients_nothing_happens(case):
    model, optimizer = case.pair()
    optimizer.step()
    assert_same(model, Model())
    train(model, optimizer, range(2))
    optimizer.zero_grad()
    before = weights(model)
    optimizer.step()
    for ours, theirs in zip(model.parameters(), before, strict=True):
        assert torch.equal(ours, theirs)
    train(model, optimizer, range(2, 4))


@check
def bf16_weights_move_as_fp32_weights_do(case):
    model = Model()
    wide = copy.deepcopy(model.bfloat16()).float()
    begin = weights(wide)
    for trained in (model, wide):
        train(trained, case.build(trained), range(1))
    for ours, theirs, old in zip(model.parameters(), wide.parameters(), begin, strict=True):
        assert ours.dtype is torch.bfloat16
        # Not value by value: a small gradient may have another sign in bf16.
        moves = (ours.float() - old).flatten(), (theirs.detach() - old).flatten()
        assert nn.functional.cosine_similarity(*moves, dim=0) > 0.9


@check
def bf16_weights_have_an_fp32_state_where_that_is_asked_for(case):
    model = Model().bfloat16()
    optimizer = case.build(model, state_dtype="float32")
    train(model, optimizer, range(2))
    assert {kept.dtype for state in optimizer.state.values() for kept in state.values()} == {torch.float32}
    again = case.build(model)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same_tree(again.state_dict(), optimizer.state_dict())


def gradients_for(model: nn.Module, kind: str) -> None:
    """Ones; of one parameter a sparse gradient, or the parameter and its gradient are complex."""
    if kind == "complex":
        model.mlp.weight = nn.Parameter(torch.ones(8, 6, dtype=torch.complex64))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    if kind == "sparse":
        model.embed.weight.grad = torch.ones(11, 6).to_sparse()


def refuses(case: Case, kind: str) -> None:
    model = Model()
    gradients_for(model, kind)
    with pytest.raises((ValueError, RuntimeError), match=f"(?i){kind}") as raised:  # RecipeError is a ValueError
        case.build(model).step()
    assert "\n" not in str(raised.value)


@check
def sparse_gradients_are_refused_in_one_line(case):
    refuses(case, "sparse")


@check
def complex_gradients_are_refused_in_one_line(case):
    refuses(case, "complex")


def moves_of(case: Case, name: str, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """How far the parameter `name` moves in each step with these gradients, and others with gradients of ones."""
    model, optimizer = case.pair(weight_decay=0.0)
    moves = []
    for gradient in gradients:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        parameter = model.get_parameter(name)
        parameter.grad = gradient.clone()
        before = parameter.detach().clone()
        optimizer.step()
        moves.append(parameter.detach() - before)
    return moves


@check
def after_zero_gradients_a_parameter_moves_as_if_it_began_then(case):
    """LoRA's A has a zero gradient at the first step, because B is zero."""
    for name, parameter in Model().named_parameters():
        generator = torch.Generator().manual_seed(0)
        gradients = [torch.randn(parameter.shape, generator=generator) for _ in range(4)]
        zeros = [torch.zeros_like(parameter)] * 2
        expected, found = moves_of(case, name, gradients), moves_of(case, name, zeros + gradients)
        assert all(move.eq(0).all() for move in found[:2])
        for ours, theirs in zip(found[2:], expected, strict=True):
            if any(part in name for part in case.counts_zeros):
                # Adam's bias correction counts these steps: 0.64 of the first step after two, of AdamS's 0.37.
                assert 0.3 < ours.norm() / theirs.norm() < 1.5, name
            else:
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@check
def zero_gradients_in_the_middle_stop_nothing(case):
    """As of an expert without tokens. What follows is a step of usual length."""
    for name, parameter in Model().named_parameters():
        generator = torch.Generator().manual_seed(0)
        gradients = [torch.randn(parameter.shape, generator=generator) for _ in range(5)]
        gradients[2:4] = [torch.zeros_like(parameter)] * 2
        moves = moves_of(case, name, gradients)
        assert moves[4].norm() > 0.2 * moves[1].norm(), name


@check
def a_group_that_comes_later_is_trained(case):
    model, optimizer = case.pair()
    train(model, optimizer, range(2))
    late = nn.Parameter(torch.ones(6, 4))
    optimizer.add_param_group({"params": [late], **case.group})
    optimizer.zero_grad()
    model.loss(2).backward()
    late.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert not late.eq(1).any()
    assert_same(model, straight(case, 3))
    count = len(list(model.parameters())) + 1 if case.keeps_state else 0
    assert len(optimizer.state_dict()["state"]) == count


@check
def a_rate_may_be_a_tensor_that_changes_in_place(case):
    model, optimizer = case.pair()
    rate = torch.tensor(0.05)
    for group in optimizer.param_groups:
        group["lr"] = rate
    train(model, optimizer, range(2))
    rate.fill_(0.01)
    train(model, optimizer, range(2, 4))
    expected, plain = case.pair()
    train(expected, plain, range(2))
    for group in plain.param_groups:
        group["lr"] = 0.01
    train(expected, plain, range(2, 4))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@check
def maximize_is_a_descent_on_the_negative(case):
    up, optimizer = case.pair(maximize=True)
    for step in range(4):
        optimizer.zero_grad()
        (-up.loss(step)).backward()
        optimizer.step()
    for ours, theirs in zip(up.parameters(), straight(case, 4).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
