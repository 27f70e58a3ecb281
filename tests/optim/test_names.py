"""Every name of the table in training: it learns, continues from a checkpoint, and keeps the state that it should."""

import copy
import importlib
import io
import json

import pytest
import torch
import transformers
from conformance import skip_where_missing

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import OPTIMIZERS, build_optimizer
from rl_posttrain.optim.table import ABOUT

# What suits ten steps of the tiny model; its hidden matrices are 64 x 64, 32 x 64 and 64 x 128.
OPTIONS = {
    "sgd": {"lr": 0.1},
    "galore": {"rank": 16, "update_proj_gap": 3},
    "fira": {"rank": 16, "update_proj_gap": 3},
    "apollo": {"rank": 16, "update_proj_gap": 3},
}
LOW_RANK = ("galore", "fira", "apollo")
WHOLE_MATRICES = ("muon", "adam_mini", *LOW_RANK)


@pytest.fixture(scope="module")
def untrained(tiny_model):
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def make_optimizer(model, name):
    return build_optimizer(model, name, **{"lr": 3e-3, "weight_decay": 0.01, **OPTIONS.get(name, {})})


def learn(model, optimizer, num_steps):
    """The loss of each step on one fixed batch."""
    ids = torch.randint(3, 98, (2, 12), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(num_steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_a_batch_and_continues_exactly_from_a_checkpoint(name, untrained):
    skip_where_missing(name)
    model = copy.deepcopy(untrained)
    optimizer = make_optimizer(model, name)
    module, _, cls = OPTIMIZERS[name].rpartition(":")
    assert type(optimizer) is getattr(importlib.import_module(module), cls)
    losses = learn(model, optimizer, 5)
    checkpoint = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), checkpoint)
    losses += learn(model, optimizer, 5)
    assert losses[-1] < 0.9 * losses[0], losses
    resumed = copy.deepcopy(untrained)
    again = make_optimizer(resumed, name)
    checkpoint.seek(0)
    # As transformers loads it: nothing but tensors, and what low_rank.py declares safe.
    weights, state = torch.load(checkpoint, weights_only=True)
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    assert learn(resumed, again, 5) == losses[5:]
    for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def stepped(name, untrained, **options):
    model = copy.deepcopy(untrained)
    options = {key: value for key, value in OPTIONS.get(name, {}).items() if key != "lr"} | options
    optimizer = build_optimizer(model, name, lr=1e-3, **options)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return dict(model.named_parameters()), optimizer


@pytest.mark.parametrize("name", LOW_RANK)
def test_hidden_matrices_have_a_low_rank_state_and_the_others_a_whole_one(name, untrained):
    parameters, optimizer = stepped(name, untrained)
    for path, parameter in parameters.items():
        shapes = {tuple(optimizer.state[parameter][key].shape) for key in ("exp_avg", "exp_avg_sq")}
        if "proj" not in path:
            assert shapes == {tuple(parameter.shape)}
        else:  # along the longer side, as the papers have it
            tall = parameter.shape[0] >= parameter.shape[1]
            assert shapes == {(parameter.shape[0], 16) if tall else (16, parameter.shape[1])}
    parameters, optimizer = stepped(name, untrained, rank=32)  # k and v are 32 x 64: nothing to gain
    key, query = (parameters[f"model.layers.0.self_attn.{which}_proj.weight"] for which in "kq")
    assert optimizer.state[key]["exp_avg"].shape == key.shape
    assert optimizer.state[query]["exp_avg"].shape == (64, 32)
    with pytest.raises(RecipeError, match=r"refuses the model \(ValueError: Invalid rank: 64; .* is 64 or less\)"):
        stepped(name, untrained, rank=64)


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_step_without_any_gradient_changes_nothing_and_spoils_no_later_one(name, untrained):
    """GRPO makes one where all completions are as good as each other, and DeepSpeed before it trains."""
    parameters, optimizer = stepped(name, untrained)
    query = parameters["model.layers.0.self_attn.q_proj.weight"]
    gradient = query.grad.clone()
    after = {path: parameter.detach().clone() for path, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(parameter, after[path]) for path, parameter in parameters.items())
    query.grad = gradient
    optimizer.step()
    assert (query - after["model.layers.0.self_attn.q_proj.weight"]).abs().mean() > 1e-5


def test_adam_mini_has_a_second_moment_for_each_head_and_row(untrained):
    parameters, optimizer = stepped("adam_mini", untrained)
    held = {path: optimizer.state[parameter]["vmean"].numel() for path, parameter in parameters.items()}
    layer = "model.layers.1."
    assert held[f"{layer}self_attn.q_proj.weight"] == 2
    assert held[f"{layer}self_attn.k_proj.weight"] == 1
    assert held[f"{layer}mlp.up_proj.weight"] == 128
    assert held["model.embed_tokens.weight"] == 128
    assert held["model.norm.weight"] == 1


def test_adam_mini_takes_heads_of_any_width_and_refuses_what_has_none():
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen3Config(**sizes, **heads, head_dim=16)
    model = transformers.Qwen3ForCausalLM(config)
    optimizer = build_optimizer(model, "adam_mini", lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    attention = model.model.layers[0].self_attn
    assert optimizer.state[attention.q_proj.weight]["vmean"].numel() == 2
    assert optimizer.state[attention.k_proj.weight]["vmean"].numel() == 1
    mixture = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes, **heads, num_local_experts=2, num_experts_per_tok=1)
    )
    with pytest.raises(RecipeError, match=r"experts.*Adam-mini has no rule for it"):
        build_optimizer(mixture, "adam_mini", lr=1e-3)


def test_the_list_names_class_package_and_what_each_is(run_main):
    status, printed, _ = run_main("optim", "list", "--json")
    rows = json.loads(printed)
    assert status == 0
    assert {name: row["class"] for name, row in rows.items()} == OPTIMIZERS
    extra = {name for name, row in rows.items() if row["package"] not in ("torch", "rl_posttrain")}
    assert extra == {"adamw_8bit", "lion", "sign_sgd", "adam_mini", "galore", "fira"}
    assert all(row["about"] == ABOUT[name] for name, row in rows.items())
    assert {name for name, row in rows.items() if not row["installed"]} <= {"adamw_8bit"}  # the set-up leaves it out
    _, shown, _ = run_main("optim", "list")
    assert "rl_posttrain.optim.signs:Lion" in shown
    assert "not under ZeRO-1 to 3" in shown
