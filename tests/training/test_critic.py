"""The critic: what its values are of, and that the policy stays what it was without one."""

import inspect
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM

from rl_posttrain.errors import RecipeError
from rl_posttrain.models.vocabulary import check_same_vocabulary
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.training.checkpoints import load_critic
from rl_posttrain.training.critic import attach_critic, make_critic, policy_parameters

PLAIN = ("algorithm.name=ppo", "distributed.engine=none", "rollout.engine=transformers", "model.dtype=float32")
SHARED = "critic.shared_backbone=true"
PROMPT, TOKENS = 5, 6


def load_policy(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def bigger_model(tiny_model, tmp_path_factory):
    """A model of the same vocabulary and of another width, with dropout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("bigger") / "model"
    shutil.copytree(tiny_model, folder)
    config = LlamaConfig.from_pretrained(tiny_model, hidden_size=96, num_hidden_layers=3, attention_dropout=0.5)
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["own", "shared", "named"])
def with_critic(request, tiny_recipe, tiny_model, bigger_model):
    """A policy with its critic: of the policy's own weights, on its backbone, or a model of its own."""
    overrides = {"own": (), "shared": (SHARED,), "named": (f"critic.model={bigger_model}",)}[request.param]
    policy = load_policy(tiny_model)
    attach_critic(policy, make_critic(load_recipe(tiny_recipe, [*PLAIN, *overrides]), policy))
    return policy.train()


def batch():
    """Three rows; the first is padded on its left by two, the second on its right by three."""
    torch.manual_seed(0)
    ids = torch.randint(3, 90, (3, PROMPT + TOKENS))
    mask = torch.ones_like(ids)
    mask[0, :2], mask[1, -3:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def values(policy, inputs):
    return policy(**inputs, values_of=TOKENS)


def test_values_are_of_the_state_before_each_token(with_critic):
    """Another token at place t moves the values after it and no other: V[t] was there before the token."""
    inputs = batch()
    before = values(with_critic, inputs)
    assert before.shape == (3, TOKENS + 1)
    assert before.dtype == torch.float32
    for t in range(TOKENS):
        other = dict(inputs, input_ids=inputs["input_ids"].clone())
        other["input_ids"][:, PROMPT + t] = 90 - other["input_ids"][:, PROMPT + t] % 40
        moved = (values(with_critic, other) - before).abs()
        assert moved[:, : t + 1].max() < 1e-6
        assert moved[[0, 2], t + 1].min() > 1e-6
    # The first value is that of the prompt alone, as a model without a completion gives it.
    prompts = {name: tensor[:, :PROMPT] for name, tensor in inputs.items()}
    torch.testing.assert_close(with_critic(**prompts, values_of=0).detach()[:, 0], before[:, 0], rtol=1e-4, atol=1e-6)


def test_first_values_are_near_0_and_the_same_in_every_process(with_critic, tiny_recipe, tiny_model):
    found = values(with_critic, batch())
    # A normal head of deviation 1 / (H + 1) over hidden states of size 1 gives about 1 / sqrt(H).
    assert 0 < found.square().mean().sqrt() < 3 / math.sqrt(64)
    weight = with_critic.critic.head.weight
    torch.manual_seed(9)
    again = make_critic(load_recipe(tiny_recipe, [*PLAIN, SHARED]), load_policy(tiny_model))
    if len(weight) == len(again.head.weight):
        assert torch.equal(weight, again.head.weight)
    other = make_critic(load_recipe(tiny_recipe, [*PLAIN, SHARED, "run.seed=1"]), load_policy(tiny_model))
    assert not torch.equal(other.head.weight, again.head.weight)


def test_dropout_is_off_in_training(with_critic):
    assert with_critic.training
    inputs = batch()
    first, second = (values(with_critic, inputs) for _ in range(2))
    assert torch.equal(first, second)


def test_values_beside_the_policys_output_are_those_alone(with_critic):
    inputs, critic = batch(), with_critic.critic
    with critic.watching(TOKENS) as taken:
        output = with_critic(**inputs, use_cache=False)
    assert output.logits.shape[:2] == inputs["input_ids"].shape
    (found,) = taken
    torch.testing.assert_close(found, values(with_critic, inputs), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert critic.head.weight.grad.abs().sum() > 0
    policy_moves = any(parameter.grad is not None for _, parameter in policy_parameters(with_critic))
    assert policy_moves == (critic.backbone is None), "only on a shared backbone the critic's loss reaches the policy"
    with_critic(**inputs)
    assert len(taken) == 1, "outside of it no values are made"


def test_the_policy_computes_and_generates_what_it_did_without_a_critic(with_critic, tiny_model):
    alone, inputs = load_policy(tiny_model).train(), batch()
    signature = inspect.signature(with_critic.forward).parameters
    assert set(inspect.signature(alone.forward).parameters) <= set(signature), "transformers and TRL read the names"
    assert [name for name, _ in policy_parameters(with_critic)] == [name for name, _ in alone.named_parameters()]
    prompts = {"input_ids": inputs["input_ids"][:, :PROMPT], "attention_mask": inputs["attention_mask"][:, :PROMPT]}
    found = []
    for policy in (alone, with_critic):
        logits = policy(**inputs).logits
        logits.square().mean().backward()
        torch.manual_seed(0)
        sampled = policy.generate(**prompts, do_sample=True, max_new_tokens=8)
        gradients = [parameter.grad for _, parameter in policy_parameters(policy)]
        found.append([logits, sampled, *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_a_backbone_of_its_own_starts_from_the_policys_weights_and_shares_none(tiny_recipe, tiny_model, bigger_model):
    policy = load_policy(tiny_model)
    own = make_critic(load_recipe(tiny_recipe, PLAIN), policy).backbone
    for (name, ours), (_, theirs) in zip(own.named_parameters(), policy.model.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr()
    named = make_critic(load_recipe(tiny_recipe, [*PLAIN, f"critic.model={bigger_model}"]), policy).backbone
    assert torch.equal(named.embed_tokens.weight, AutoModel.from_pretrained(bigger_model).embed_tokens.weight)


@pytest.mark.parametrize("overrides", [(), (SHARED,)], ids=["own", "shared"])
def test_a_trainer_saves_policy_and_critic_apart_and_the_engine_gets_the_policy(
    tiny_recipe, make_trainer, tmp_path, overrides
):
    trainer = make_trainer(load_recipe(tiny_recipe, [*PLAIN, *overrides]))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    folder = tmp_path / "checkpoint-1"
    for place in (folder, tmp_path / "final"):
        trainer.save_model(str(place))
    assert not [name for name in load_file(folder / "model.safetensors") if "critic" in name]
    loaded, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted = dict(policy_parameters(trainer.model))
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, wanted[name]), name
    handed = dict(trainer.policy.weights())
    assert set(handed) == set(wanted)
    assert all(torch.equal(handed[name], wanted[name]) for name in handed)

    final = {file.name for file in (tmp_path / "final").iterdir()}
    assert final == {file.name for file in folder.iterdir()} - {"critic.safetensors"}
    critic = trainer.critic
    whole = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    assert set(load_file(folder / "critic.safetensors")) == set(whole)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
    load_critic(critic, folder)
    for name, tensor in critic.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_critic_must_read_the_policys_tokens(tiny_model, bigger_model, tmp_path):
    check_same_vocabulary(str(tiny_model), str(bigger_model), key="critic.model")
    check_same_vocabulary(str(bigger_model), str(tiny_model), key="critic.model")
    for name in ("wider", "reordered"):
        shutil.copytree(tiny_model, tmp_path / name)
    config = json.loads((tmp_path / "wider/config.json").read_text())
    (tmp_path / "wider/config.json").write_text(json.dumps(config | {"vocab_size": 160}))
    tokenizer = json.loads((tmp_path / "reordered/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "reordered/tokenizer.json").write_text(json.dumps(tokenizer))
    for name, reason in (("wider", "its vocabulary has"), ("reordered", "its tokenizer has other tokens")):
        for policy, other in ((tiny_model, tmp_path / name), (tmp_path / name, tiny_model)):
            with pytest.raises(RecipeError, match=rf"^critic.model={other}: {reason}"):
                check_same_vocabulary(str(policy), str(other), key="critic.model")
