"""Predicted bytes of activations beside what autograd really keeps of transformers' models."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rl_posttrain.cost.activations import activations, kept_by_a_layer
from rl_posttrain.cost.model_shape import shape_of
from rl_posttrain.training.logprobs import add_completion_scoring

LENGTH, SCORED, SEQUENCES = 24, 14, 2


@pytest.fixture(autouse=True)
def torchs_own_linear(monkeypatch):
    """ZeRO-3 puts a linear layer of DeepSpeed's in its place, and leaves it there for later tests."""
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)


def small(kind: str, layers: int):
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    return model(
        config(
            vocab_size=512,
            hidden_size=96,
            intermediate_size=208,
            num_hidden_layers=layers,
            num_attention_heads=6,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def kept(model, precision: str, checkpointing: bool) -> int:
    """Bytes of the storages that one forward pass keeps for the backward pass, weights left out."""
    model = model.to(torch.bfloat16 if precision == "bfloat16" else torch.float32).train()
    add_completion_scoring(model, 1.0)
    if checkpointing:
        model.gradient_checkpointing_enable()
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
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "autocast"])
def test_a_layer_keeps_what_is_predicted(kind, precision):
    one, two = small(kind, 1), small(kind, 2)
    shape = shape_of(one.config, num_parameters=0, tensors=0)
    predicted = kept_by_a_layer(shape, sequences=SEQUENCES, length=LENGTH, precision=precision)
    if precision == "autocast":  # its copies of a layer's weights, which are counted apart
        predicted += 2 * shape.layer_parameters
    assert kept(two, precision, False) - kept(one, precision, False) == predicted


def test_with_checkpointing_a_layer_keeps_its_input_alone():
    kept_by_one = kept(small("llama", 2), "bfloat16", True) - kept(small("llama", 1), "bfloat16", True)
    assert kept_by_one == 2 * SEQUENCES * LENGTH * 96
    shape = shape_of(small("llama", 3).config, num_parameters=0, tensors=0)
    common = {"sequences": SEQUENCES, "length": LENGTH, "scored": SCORED, "precision": "bfloat16", "on_cpu": True}
    plain, saved = (activations(shape, **common, checkpointing=checkpointing) for checkpointing in (False, True))
    layer = kept_by_a_layer(shape, sequences=SEQUENCES, length=LENGTH, precision="bfloat16")
    assert plain.layers - saved.layers == 2 * layer - 3 * kept_by_one
    assert plain.logits == saved.logits


def test_logits_on_a_gpu_by_hand():
    shape = shape_of(small("llama", 1).config, num_parameters=0, tensors=0)
    common = {"sequences": 2, "length": 24, "precision": "bfloat16", "checkpointing": False, "on_cpu": False}
    # 28 rows of 512 logits in bf16; 28 hidden states in bf16, their gradient in fp32; the output layer's in fp32.
    assert activations(shape, scored=14, **common).logits == 2 * 28 * 512 + 28 * 96 * 6 + 4 * 512 * 96
    assert activations(shape, scored=14, **common, trained_head=False).logits == 2 * 28 * 512 + 28 * 96 * 6
    # Never more than one tile of TRL's kernel.
    many = activations(shape, scored=10**6, **common, trained_head=False)
    assert many.logits == 2 * 4096 * 32768 + 2 * 10**6 * 96 * 6
