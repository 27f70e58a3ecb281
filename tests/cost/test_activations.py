"""Predicted bytes of activations and logits beside what torch's allocator really hands out for transformers' models."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rl_posttrain.cost.activations import activations, gathered_weights, kept_by_a_layer
from rl_posttrain.cost.model_shape import shape_of
from rl_posttrain.models.find import published_config
from rl_posttrain.training.logprobs import add_completion_scoring

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "memory"))
import activations as experiment

PROMPT, SCORED, SEQUENCES = 10, 14, 2
LENGTH = PROMPT + SCORED


@pytest.fixture(autouse=True)
def torchs_own_linear(monkeypatch):
    """ZeRO-3 puts a linear layer of DeepSpeed's in its place, and leaves it there for later tests."""
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)


def small(kind: str, layers: int, precision: str, checkpointing: bool = False, **sizes):
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    common = {
        "vocab_size": 512, "hidden_size": 96, "intermediate_size": 208, "num_attention_heads": 6,
        "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    model = model(config(**common | sizes, num_hidden_layers=layers))
    model = model.to(torch.bfloat16 if precision == "bfloat16" else torch.float32).train()
    add_completion_scoring(model, 1.0)
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model


def kept(model, precision: str) -> int:
    """Bytes of the storages that one forward pass keeps for the backward pass, weights left out."""
    ids = torch.randint(0, 512, (SEQUENCES, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0  # padding, so that attention takes a mask
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address may be another's soon
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
    ):
        model(input_ids=ids, attention_mask=mask, completion_tokens=SCORED)
    return sum(found.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("precision", experiment.PRECISIONS)
def test_a_layer_keeps_what_is_predicted(kind, precision):
    one, two = (small(kind, layers, precision) for layers in (1, 2))
    shape = shape_of(one.config, num_parameters=0, tensors=0)
    predicted = kept_by_a_layer(shape, sequences=SEQUENCES, length=LENGTH, precision=precision)
    if precision == "autocast":  # its copies of a layer's weights, which are counted apart
        predicted += 2 * shape.layer_parameters
    assert kept(two, precision) - kept(one, precision) == predicted


def test_with_checkpointing_a_layer_keeps_its_input_alone():
    two, one = (kept(small("llama", layers, "bfloat16", True), "bfloat16") for layers in (2, 1))
    assert two - one == 2 * SEQUENCES * LENGTH * 96


@pytest.mark.parametrize("precision", experiment.PRECISIONS)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        # In turn what decides: the output layer's tiles, one and several; wide matrices and few tokens; a wide MLP and
        # many tokens; a narrow one; a large vocabulary, whose two gradients are added.
        {"vocab_size": 40_000, "tie_word_embeddings": False},
        {"hidden_size": 192, "intermediate_size": 880, "num_attention_heads": 6},
        {"intermediate_size": 600, "tie_word_embeddings": False},
        {"intermediate_size": 160, "vocab_size": 64},
        {"vocab_size": 24_000},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_the_peak_is_what_the_allocator_hands_out(precision, checkpointing, sizes):
    model = small("llama", 3, precision, checkpointing, **sizes)
    for batch in ((4, 16, 6), (12, 48, 16)):
        predicted, measured = experiment.of_a_step(model, precision, checkpointing, *batch)
        assert predicted == pytest.approx(measured, rel=0.02), batch


def test_weights_without_gradients_take_less():
    """As under LoRA, whose own activations are not counted."""
    model = small("llama", 3, "float32", vocab_size=9000)
    shape = shape_of(model.config, num_parameters=0, tensors=0)
    common = {"sequences": 2, "length": 24, "scored": 14, "precision": "float32", "checkpointing": False}
    for on_cpu in (False, True):
        trained, frozen = (activations(shape, **common, on_cpu=on_cpu, trained=trained) for trained in (True, False))
        assert sum(trained) - sum(frozen) >= 4 * 9000 * 96


def test_the_output_layer_on_a_gpu_by_hand():
    shape = shape_of(small("llama", 1, "bfloat16", vocab_size=5000).config, num_parameters=0, tensors=0)
    common = {"sequences": 2, "length": 24, "precision": "bfloat16", "checkpointing": False, "on_cpu": False}
    # Of 28 rows: the hidden state in bf16, 5,000 logits in bf16, and gradients in fp32 and in bf16.
    head = 28 * (2 * 96 + 2 * 5000 + 6 * 96)
    assert activations(shape, scored=14, **common).logits == head + 6 * 5000 * 96
    assert activations(shape, scored=14, **common, trained=False).logits == head
    # Never more than one tile of TRL's kernel.
    many = activations(shape, scored=10**6, **common, trained=False)
    assert many.logits == 2 * 4096 * 5000 + 2 * 10**6 * 96 * 8


def test_gathered_weights_by_hand():
    config = published_config("llama-7b")
    shape = shape_of(config, num_parameters=6_738_415_616, tensors=291)
    # DeepSpeed: half of 1e9 values before the turn, and 5e7 ahead. FSDP2: 32,000 x 4,096 of the output layer, and two
    # layers of four matrices of 4,096 x 4,096 and three of 4,096 x 11,008.
    assert gathered_weights(shape, "zero3", sharded_values=6_738_000_000, width=2) == 2 * 550_000_000
    assert gathered_weights(shape, "zero3", sharded_values=1000, width=2) == 2000
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    assert gathered_weights(shape, "fsdp2", sharded_values=6_738_415_616, width=2) == 2 * (32000 * 4096 + 2 * layer)
