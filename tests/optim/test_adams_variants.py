"""The rules that are called AdamS, by hand and against the reference, and how a group takes one."""

import copy

import pytest
import torch
from adams_reference import DEFAULTS, random_case, reference, train

from rl_posttrain.optim import AdamS, build_optimizer

VARIANTS = ("paper", "authors", "new_momentum")
# docs/adams.md has these. The third: 0.271 / sqrt(0.95 * 0.19**2 + 0.05), 1 / sqrt(0.95 * (0.19 / 0.271)**2 + 0.05) and
# 0.271 / sqrt(0.95 * 0.271**2 + 0.05).
FIRST_STEPS = {
    "paper": (0.4472, 0.7789, 0.9334),
    "authors": (4.4721, 1.7870, 1.3908),
    "new_momentum": (0.40996, 0.65441, 0.78306),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_steps_by_hand(variant):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    gradient = torch.full((1,), 3.0, dtype=torch.float64)
    _, after = train(parameter, [gradient] * 3, lr=1.0, eps=1e-12, variant=variant)
    steps = [-after[0].item(), (after[0] - after[1]).item(), (after[1] - after[2]).item()]
    assert steps == pytest.approx(FIRST_STEPS[variant], abs=5e-5)


@pytest.mark.parametrize("way", [{}, {"foreach": True}, {"foreach": False}, {"fused": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("options", [{}, {"maximize": True, "weight_decay": 0.3}, {"bias_correction": True}], ids=str)
def test_each_follows_the_reference(options, variant, dtype, way):
    weight, gradients = random_case((7, 5), dtype)
    expected = reference(weight, gradients, **DEFAULTS | options, variant=variant)
    _, after = train(torch.nn.Parameter(weight.clone()), gradients, **options, **way, variant=variant)
    close = 1e-12 if dtype is torch.float64 else 1e-5
    for ours, theirs in zip(after, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=close, atol=close)


def test_large_tensors_take_no_kernel_of_another_rule():
    """From 2**16 elements on the kernels would run, which know the paper's rule and the authors' alone."""
    weight, gradients = torch.randn(2**17), [torch.randn(2**17) for _ in range(2)]
    found = [
        train(torch.nn.Parameter(weight.clone()), gradients, variant="new_momentum", **way)[1][-1]
        for way in ({}, {"foreach": True})
    ]
    torch.testing.assert_close(*found)
    _, paper = train(torch.nn.Parameter(weight.clone()), gradients)
    assert (found[0] - paper[-1]).abs().max() > 1e-5


def test_the_authors_rule_is_bias_correction_in_a_group_too():
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = AdamS([{"params": parameters[:1]}, {"params": parameters[1:], "variant": "authors"}])
    assert [group["bias_correction"] for group in optimizer.param_groups] == [False, True]
    for parameter in parameters:
        parameter.grad = torch.ones(3)
    optimizer.step()
    assert [set(optimizer.state[parameter]) for parameter in parameters] == [{"exp_avg"}, {"exp_avg", "step"}]


def test_a_file_keeps_its_variant_and_an_older_one_is_the_papers():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer, _ = train(parameter, [torch.ones(3)], variant="new_momentum")
    saved = copy.deepcopy(optimizer.state_dict())
    again = AdamS([parameter])
    again.load_state_dict(saved)
    assert again.param_groups[0]["variant"] == "new_momentum"
    del saved["param_groups"][0]["variant"]
    again = AdamS([parameter])
    again.load_state_dict(saved)
    assert again.param_groups[0]["variant"] == "paper"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "adam"}, "Invalid variant: adam; it must be one of"),
        ({"variant": "new_momentum", "fused": True}, "Invalid fused: True with variant=new_momentum"),
    ],
    ids=str,
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        AdamS([torch.nn.Parameter(torch.zeros(2))], **options)


def test_a_name_takes_it_as_any_argument():
    optimizer = build_optimizer(torch.nn.Linear(3, 2), "adams", lr=0.1, variant="new_momentum")
    assert {group["variant"] for group in optimizer.param_groups} == {"new_momentum"}
