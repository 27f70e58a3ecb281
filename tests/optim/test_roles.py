"""Roles of parameters, and groups that take weight decay and learning rates by them."""

from typing import get_args

import pytest
import torch
from test_swap import make_trainer
from torch import nn

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import ROLES, SCALE, build_optimizer, parameter_groups, use_optimizer
from rl_posttrain.optim.roles import NO_DECAY, describe_groups, roled_parameters
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.schema import OptimizerSection, Role

LLAMA = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def roles(model):
    return {found.name: found.role for found in roled_parameters(model)}


def names_by(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in groups]


def llama(tied=True, **options):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=tied, **options))


@pytest.mark.parametrize("tied", [False, True])
def test_roles_of_a_llama(tied):
    found = roles(llama(tied, attention_bias=True))
    assert found.pop("model.embed_tokens.weight") == "embeddings"
    assert found.pop("lm_head.weight", None) == (None if tied else "output_layer")
    for name, role in found.items():
        expected = "norms" if "norm" in name else "biases" if name.endswith("bias") else "matrices"
        assert role == expected, name


def test_roles_of_other_kinds_of_layers():
    from transformers import GPT2Config, GPT2LMHeadModel, GptOssConfig, GptOssForCausalLM

    gpt2 = roles(GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2)))
    assert gpt2["transformer.wte.weight"] == gpt2["transformer.wpe.weight"] == "embeddings"
    assert gpt2["transformer.ln_f.bias"] == gpt2["transformer.h.0.ln_1.weight"] == "norms"
    assert gpt2["transformer.h.0.mlp.c_fc.weight"] == "matrices"
    assert gpt2["transformer.h.0.mlp.c_fc.bias"] == "biases"
    heads = {"num_key_value_heads": 1, "head_dim": 4, "num_local_experts": 2, "num_experts_per_tok": 1}
    experts = roles(GptOssForCausalLM(GptOssConfig(**LLAMA, **heads)))
    assert experts["model.layers.0.mlp.experts.gate_up_proj"] == "matrices"
    assert experts["model.layers.0.mlp.experts.gate_up_proj_bias"] == "biases"  # [E, out]
    assert experts["model.layers.0.self_attn.sinks"] == "norms"  # a vector that is no bias


def test_a_head_registered_before_the_embedding_it_is_tied_to_is_an_embedding_and_scales_head():
    model = nn.ModuleDict({"lm_head": nn.Linear(4, 7, bias=False), "embedding": nn.Embedding(7, 4)})
    model["lm_head"].weight = model["embedding"].weight
    assert roles(model) == {"lm_head.weight": "embeddings"}
    assert [group["role"] for group in SCALE.from_model(model).param_groups] == ["head"]


def test_frozen_parameters_have_no_group():
    model = llama(tied=False)
    model.lm_head.weight.requires_grad_(False)
    (names, norms) = names_by(model, parameter_groups(model, lr=0.1, weight_decay=0.1))
    assert "lm_head.weight" not in names
    assert all("norm" in name for name in norms)


def test_groups_take_their_decay_and_learning_rate():
    model = llama(tied=False, attention_bias=True)
    groups = parameter_groups(
        model, lr=0.1, weight_decay=0.2, no_decay=["norms", "biases", "embeddings"], lr_by_role={"embeddings": 0.3}
    )
    optimizer = torch.optim.AdamW(groups, lr=9.0, weight_decay=9.0)
    rows = describe_groups(optimizer, model)
    assert [(row["roles"], row["lr"], row["weight_decay"]) for row in rows] == [
        (["matrices", "output_layer"], 0.1, 0.2),
        (["embeddings"], 0.3, 0.0),
        (["norms", "biases"], 0.1, 0.0),
    ]
    assert sum(row["num_parameters"] for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    in_order = [name for name, _ in model.named_parameters()]
    for names in names_by(model, groups):
        assert names == sorted(names, key=in_order.index)


def test_by_default_vectors_have_no_decay_and_without_decay_there_is_one_group():
    from transformers import Trainer, TrainingArguments

    model = llama(attention_bias=True)
    decayed, plain = names_by(model, parameter_groups(model, lr=0.1, weight_decay=0.1))
    trainer = Trainer(model, TrainingArguments(output_dir="unused", use_cpu=True, report_to="none"))
    tied = {"lm_head.weight"}  # transformers knows the one parameter by both of its names
    assert set(decayed) == set(trainer.get_decay_parameter_names(model)) - tied
    assert set(plain).isdisjoint(decayed)
    (group,) = parameter_groups(model, lr=0.1)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


def test_an_optimizer_with_groups_of_its_own_has_them_split():
    model = llama(tied=False)
    optimizer = build_optimizer(
        model, "scale", lr=0.1, weight_decay=0.2, no_decay=["embeddings"], lr_by_role={"embeddings": 0.3, "norms": 0.4}
    )
    found = {(group["role"], group["axis"]): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        ("matrix", 1): (0.1, 0.2),
        ("matrix", 0): (0.3, 0.0),
        ("head", 1): (0.1, 0.2),
        ("vector", None): (0.4, 0.2),
    }
    with pytest.raises(RecipeError, match=r"lr_by_role.norms=0.4: the optimizer's own arguments set 0.5 for them"):
        build_optimizer(model, "scale", lr=0.1, vector_lr=0.5, lr_by_role={"norms": 0.4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_decay": ["norm"]}, "optimizer.no_decay=norm: no role of that name; did you mean 'norms'?"),
        ({"lr_by_role": {"embedding": 0.1}}, "optimizer.lr_by_role=embedding: .*did you mean 'embeddings'?"),
        ({"lr_by_role": {"norms": -1.0}}, "optimizer.lr_by_role.norms=-1.0: a learning rate is a number"),
        ({"lr_by_role": {"norms": True}}, "optimizer.lr_by_role.norms=True: a learning rate is a number"),
        ({"lr_by_role": {"norms": float("inf")}}, "optimizer.lr_by_role.norms=inf: a learning rate is a number"),
        ({"lr_by_role": None}, r"optimizer.lr_by_role=None: .* write a mapping, such as \{embeddings: 1e-6\}"),
        ({"lr_by_role": 1e-6}, "optimizer.lr_by_role=1e-06: it gives no role a learning rate"),
        ({"no_decay": None}, r"optimizer.no_decay=None: it is not a list of roles; write one, such as \[norms\]"),
        ({"no_decay": "biases"}, r"optimizer.no_decay=biases: it is not a list .* such as \[biases\]"),
        ({"no_decay": 1}, "optimizer.no_decay=1: it is not a list of roles"),
        (
            {"lr_by_role": {"output_layer": 0.1}},
            r"optimizer.lr_by_role.output_layer=0.1: the model trains no parameter of this role, but matrices, "
            r"embeddings, norms \(a tied output layer counts as embeddings\)",
        ),
    ],
    ids=str,
)
def test_roles_that_there_are_not(options, message):
    with pytest.raises(RecipeError, match=message):
        parameter_groups(llama(), lr=0.1, **options)


def test_a_recipe_knows_the_roles():
    assert get_args(Role) == ROLES
    assert OptimizerSection(lr=1.0).no_decay == NO_DECAY
    recipe = load_recipe("quickstart", ["optimizer.no_decay=[embeddings]", "optimizer.lr_by_role={norms: 1.0e-4}"])
    assert "no_decay: [embeddings]\n  lr_by_role:\n    norms: 0.0001\n" in recipe.to_yaml()
    for override, message in (
        ("optimizer.no_decay=[norm]", "optimizer.no_decay.0=norm: .*did you mean 'norms'?"),
        ("optimizer.lr_by_role={embedings: 1.0}", "optimizer.lr_by_role=embedings: .*did you mean 'embeddings'?"),
        ("optimizer.lr_by_role={norms: 0}", "optimizer.lr_by_role.norms=0: it should be greater than 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe("quickstart", [override])


@pytest.mark.parametrize("name", ["adams", "muon", "adam_mini"])
def test_a_trainer_has_the_groups_and_its_schedule_scales_every_one(name, tiny_model, tmp_path):
    trainer = make_trainer("Trainer", tiny_model, tmp_path)
    trainer.args.lr_scheduler_type = "linear"
    use_optimizer(trainer, name, weight_decay=0.1, no_decay=["embeddings"], lr_by_role={"embeddings": 4e-4})
    trainer.train()
    found = {(*row["roles"], row["lr"], row["weight_decay"]) for row in describe_groups(
        running_optimizer(trainer.optimizer), trainer.model
    )}  # fmt: skip
    assert ("embeddings", 0.0, 0.0) in found  # the end of the linear schedule
    initial = {group["initial_lr"] for group in running_optimizer(trainer.optimizer).param_groups}
    assert initial == {1e-3, 4e-4}
