"""SCALE against its rule in float64, and the roles it finds in models."""

import copy

import pytest
import torch
from torch import nn

from rl_posttrain.errors import EngineError
from rl_posttrain.optim import SCALE
from rl_posttrain.optim.scale_roles import scale_groups


def normalized(gradient, axis, norm):
    """Each slice along `axis` by its length, written out with indices instead of reductions over a dimension."""
    rows = gradient.movedim(axis, -1)
    flat = rows.reshape(-1, rows.shape[-1]).tolist()
    lengths = [sum(value**2 for value in row) ** 0.5 for row in flat]
    if norm == "rms":
        lengths = [length / len(row) ** 0.5 for length, row in zip(lengths, flat, strict=True)]
    divided = [[value / max(length, 1e-8) for value in row] for row, length in zip(flat, lengths, strict=True)]
    return torch.tensor(divided, dtype=torch.float64).reshape(rows.shape).movedim(-1, axis)


class Conv1D(nn.Module):
    """As transformers' module of this name keeps its weight: [in, out]."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))


class Experts(nn.Module):
    def __init__(self, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        self.gate_up_proj = nn.Parameter(torch.randn(2, 3, 5))


class Untied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.lm_head = nn.Linear(4, 7, bias=False)


# Layer, its role, and the dimension along which one output's weights stand.
LAYERS = {
    "Linear": (lambda: nn.Linear(5, 3, bias=False), "matrix", 1),
    "Conv1D": (Conv1D, "matrix", 0),
    "Embedding": (lambda: nn.Embedding(7, 4), "matrix", 0),
    "experts": (lambda: Experts(False), "matrix", 2),
    "transposed experts": (lambda: Experts(True), "matrix", 1),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm", ["rms", "l2"])
@pytest.mark.parametrize(("make", "role", "axis"), LAYERS.values(), ids=LAYERS)
def test_each_layer_is_normalized_along_its_inputs(make, role, axis, norm, fused):
    torch.manual_seed(0)
    layer = make().double()
    (parameter,) = layer.parameters()
    optimizer = SCALE.from_model(layer, lr=0.1, norm=norm, weight_decay=0.2, fused=fused)
    assert [group["role"] for group in optimizer.param_groups] == [role]
    for _ in range(3):
        parameter.grad = torch.randn_like(parameter)
        parameter.grad.movedim(axis, -1)[..., :] *= 100  # the size of a gradient does not count
        expected = parameter.detach() * (1 - 0.1 * 0.2) - 0.1 * normalized(parameter.grad, axis, norm)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)
    assert not optimizer.state[parameter]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("norm", ["rms", "l2"])
def test_the_head_has_momentum_and_vectors_have_adam(norm, dtype):
    torch.manual_seed(0)
    model = Untied().to(dtype)
    optimizer = SCALE.from_model(model, lr=0.1, vector_lr=0.01, norm=norm, eps=1e-8)
    adam = copy.deepcopy(model.norm)
    theirs = torch.optim.Adam(adam.parameters(), lr=0.01)
    head = model.lm_head.weight.detach().double()
    momentum = torch.zeros_like(head)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    for _ in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for parameter, copied in zip(model.norm.parameters(), adam.parameters(), strict=True):
            copied.grad = parameter.grad.clone()
        momentum = 0.9 * momentum + 0.1 * model.lm_head.weight.grad.double()
        head = head - 0.1 * normalized(momentum, 1, norm)
        optimizer.step()
        theirs.step()
        torch.testing.assert_close(model.lm_head.weight.double(), head, rtol=tolerance, atol=tolerance)
        for parameter, copied in zip(model.norm.parameters(), adam.parameters(), strict=True):
            torch.testing.assert_close(parameter, copied, rtol=tolerance, atol=tolerance)
    held = sum(value.numel() for state in optimizer.state.values() for value in state.values() if value.ndim)
    assert held == model.lm_head.weight.numel() + 2 * sum(parameter.numel() for parameter in model.norm.parameters())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm", ["rms", "l2"])
def test_maximize_goes_up_by_what_minimizing_the_negative_goes_down(norm, fused):
    """To the bit, with a decay that shrinks weights either way."""
    torch.manual_seed(0)
    up, down = Untied(), Untied()
    down.load_state_dict(up.state_dict())
    settings = {"lr": 0.1, "weight_decay": 0.2, "norm": norm, "fused": fused}
    optimizers = [SCALE.from_model(up, maximize=True, **settings), SCALE.from_model(down, **settings)]
    for _ in range(3):
        for ours, theirs in zip(up.parameters(), down.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = -ours.grad
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(up.parameters(), down.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def needs(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


class Everything(nn.Module):
    """Every layer in sizes of several pieces of a kernel, and in one group shapes that differ in their last axis."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Embedding(700, 500), nn.Linear(500, 700), Experts(False), Experts(True)])
        self.conv = Conv1D()
        self.lm_head = nn.Linear(500, 700, bias=False)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_kernels_and_torchs_operations_agree(dtype, close, device):
    needs(device)
    torch.manual_seed(0)
    models = [Everything().to(device, dtype)]
    models.append(copy.deepcopy(models[0]))
    models[0].layers[1].weight.data = models[0].layers[1].weight.data.t().contiguous().t()  # not contiguous
    optimizers = [
        SCALE.from_model(model, lr=0.01, weight_decay=0.1, fused=fused)
        for model, fused in zip(models, (True, False), strict=True)
    ]
    for _ in range(3):
        for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        models[0].conv.weight.grad = models[1].conv.weight.grad = None
        for optimizer in optimizers:
            optimizer.step()
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close, msg=name)
    before = models[0].conv.weight.detach().clone()
    assert torch.equal(before, models[1].conv.weight)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_backward_pass_over_changed_weights_is_still_an_error(device):
    needs(device)
    layer = nn.Linear(5, 3, bias=False, device=device)
    optimizer = SCALE.from_model(layer, fused=True)
    loss = layer.weight.square().sum()
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("old", "fused"), [({}, None), ({"implementation": "compiled"}, True), ({"implementation": "single"}, False)]
)
def test_states_of_earlier_versions_load(old, fused):
    layer = nn.Linear(5, 3, bias=False)
    state = SCALE.from_model(layer).state_dict()
    del state["param_groups"][0]["fused"]
    state["param_groups"][0] |= old
    loaded = SCALE.from_model(layer)
    loaded.load_state_dict(state)
    assert loaded.param_groups[0]["fused"] is fused
    assert "implementation" not in loaded.param_groups[0]


def roles(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["role"], group["axis"])
        for group in scale_groups(model)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("tied", [False, True])
def test_roles_of_a_llama(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, tie_word_embeddings=tied, **sizes))
    found = roles(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found["model.embed_tokens.weight"] == (("head", 1) if tied else ("matrix", 0))
    assert ("lm_head.weight" in found) is not tied
    if not tied:
        assert found.pop("lm_head.weight") == ("head", 1)
    del found["model.embed_tokens.weight"]
    assert all(role == (("vector", None) if "norm" in name else ("matrix", 1)) for name, role in found.items())


def test_roles_of_a_gpt2_and_of_experts():
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GptOssConfig,
        GptOssForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
    )

    found = roles(GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2)))
    assert found["transformer.h.0.mlp.c_fc.weight"] == ("matrix", 0)
    assert found["transformer.wpe.weight"] == ("matrix", 0)
    assert found["transformer.wte.weight"] == ("head", 1)
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}
    mixtral = roles(MixtralForCausalLM(MixtralConfig(**sizes, **heads)))
    assert {role for name, role in mixtral.items() if "experts" in name} == {("matrix", -1)}
    oss = roles(GptOssForCausalLM(GptOssConfig(**sizes, **heads)))
    assert oss["model.layers.0.mlp.experts.gate_up_proj"] == ("matrix", 1)
    assert oss["model.layers.0.mlp.experts.gate_up_proj_bias"] == ("vector", None)


def test_lora_has_no_head_and_no_momentum():
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    found = roles(model)
    assert len(found) == 4
    assert set(found.values()) == {("matrix", 1)}


def test_a_flat_shard_is_refused_and_never_normalized_as_one_column():
    optimizer = SCALE.from_model(nn.Linear(5, 3, bias=False))
    shard = nn.Parameter(torch.zeros(15))
    shard.grad = torch.ones(15)
    optimizer.param_groups[0]["params"] = [shard]  # what DeepSpeed does under ZeRO-1 to 3
    with pytest.raises(EngineError, match=r"a matrix arrives flat, of shape \(15,\).*find_shards"):
        optimizer.step()
    assert shard.eq(0).all()


def test_training_goes_on_exactly_from_a_state_dict():
    def model_and_optimizer():
        torch.manual_seed(0)
        model = Untied()
        return model, SCALE.from_model(model, lr=0.1, vector_lr=0.01)

    def go(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()

    straight, optimizer = model_and_optimizer()
    go(straight, optimizer, range(4))
    model, optimizer = model_and_optimizer()
    go(model, optimizer, range(2))
    resumed = SCALE.from_model(model, lr=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    go(model, resumed, range(2, 4))
    for ours, theirs in zip(model.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "max"}, "Invalid norm: max"),
        ({"momentum": 1.0}, "Invalid momentum: 1.0"),
        ({"lr": -1.0}, "Invalid lr: -1.0"),
    ],
    ids=str,
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SCALE.from_model(nn.Linear(2, 2), **options)


def test_plain_parameters_are_refused():
    with pytest.raises(ValueError, match=r"Invalid role: None; .*SCALE\.from_model"):
        SCALE(nn.Linear(2, 2).parameters())


def test_a_convolution_is_refused_by_name():
    with pytest.raises(ValueError, match=r"0.weight=\(2, 2, 3, 3\): SCALE has no rule"):
        scale_groups(nn.Sequential(nn.Conv2d(2, 2, 3)))
