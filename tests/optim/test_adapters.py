"""Every optimizer on LoRA's adapters: matrices alone, of which one side is the rank."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.roles import describe_groups
from rl_posttrain.optim.spec import resolve_optimizer
from rl_posttrain.optim.table import OPTIMIZERS
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.training.adapters import with_adapters

# What they need of a matrix; docs/lora.md says it.
REFUSED = {
    "adam_mini": "does not divide into heads",
    **dict.fromkeys(("galore", "fira", "apollo"), "Invalid rank: 128; the smaller side of every hidden matrix is 4"),
}
TOKENS = torch.tensor([[7, 20, 33, 46, 59, 72, 85, 98]])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_refused_in_one_line(name, tiny_model):
    policy = with_adapters(AutoModelForCausalLM.from_pretrained(tiny_model), LoraSection(rank=4), fp32=True)
    with pytest.raises(RecipeError, match=f"^optimizer.name={name}: .*{REFUSED[name]}.*; [^\n]+$"):
        resolve_optimizer(name, lr=1e-2).build(policy)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in REFUSED])
def test_it_trains_adapters_and_nothing_else(name, tiny_model):
    if name == "adamw_8bit":
        pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    policy = with_adapters(model, LoraSection(rank=4), fp32=True)
    optimizer = resolve_optimizer(name, lr=1e-2).build(policy)
    groups = describe_groups(optimizer, policy)
    assert {role for group in groups for role in group["roles"]} == {"matrices"}
    trained = {name: value for name, value in policy.named_parameters() if value.requires_grad}
    assert sum(group["num_parameters"] for group in groups) == sum(value.numel() for value in trained.values())
    before = {name: value.detach().clone() for name, value in policy.named_parameters()}
    losses = []
    for _ in range(8):
        loss = policy(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    for name, value in policy.named_parameters():
        assert torch.isfinite(value).all()
        assert torch.equal(value, before[name]) == (name not in trained), name
    assert losses[-1] < losses[0]


def test_a_rate_of_a_role_that_adapters_have_not_is_refused(tiny_model):
    policy = with_adapters(AutoModelForCausalLM.from_pretrained(tiny_model), LoraSection(), fp32=True)
    with pytest.raises(RecipeError, match="trains no parameter of this role, but matrices"):
        resolve_optimizer("adams", lr=1e-4, lr_by_role={"embeddings": 1e-6}).build(policy)
