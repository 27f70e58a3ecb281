"""Adapters on weights in 4 bits: their gradients, and what is refused. test_lora.py has whole runs."""

import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from rl_posttrain.models.quantized import FourBits, dequantized, quantized_layers
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.training.adapters import bare, checkpoint_name, four_bits, settle_quantized, with_adapters

pytest.importorskip("bitsandbytes")

TOKENS = torch.tensor([[7, 20, 33, 46, 59, 72, 85, 98], [3, 14, 15, 92, 65, 35, 89, 79]])


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_gradients_are_those_of_plain_pytorch_on_the_same_numbers(tiny_model, kind):
    lora = LoraSection(rank=4, alpha=8, quantize=kind)
    loaded = AutoModelForCausalLM.from_pretrained(
        tiny_model, dtype=torch.float32, quantization_config=four_bits(lora).config("float32")
    )
    torch.manual_seed(0)
    policy = with_adapters(loaded, lora, fp32=True)
    settle_quantized(policy)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # zero at first, and A would have no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    logits = policy(TOKENS).logits
    logits.log_softmax(-1).square().sum().backward()

    # W' + 2 B A in place of each weight, in a model that knows neither of bitsandbytes nor of peft.
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    weights, pairs = dict(plain.named_parameters()), {}
    for name, layer in quantized_layers(bare(policy)):
        wrapper = bare(policy).get_submodule(name.removesuffix(".base_layer"))
        theirs = wrapper.lora_A["default"].weight, wrapper.lora_B["default"].weight
        ours = [matrix.detach().clone().requires_grad_() for matrix in theirs]
        pairs[checkpoint_name(name)] = (theirs, ours)
        weights[f"{checkpoint_name(name)}.weight"] = dequantized(layer) + 2.0 * ours[1] @ ours[0]
    wanted = functional_call(plain, weights, (TOKENS,)).logits
    wanted.log_softmax(-1).square().sum().backward()
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    assert len(pairs) == 14
    for name, (theirs, ours) in pairs.items():
        for one, other in zip(theirs, ours, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3 * other.grad.abs().max())
            assert other.grad.abs().max() > 0, name


def test_an_evaluation_leaves_the_weights_as_they_are(tiny_model):
    """On CPUs with bf16 products bitsandbytes would put them into another layout, which training cannot take."""
    how = FourBits("nf4", True)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=how.config("bfloat16"))
    for _, layer in quantized_layers(model):
        layer.support_avx512bf16_for_cpu = True  # as on such a CPU
    settle_quantized(model)
    before = {name: layer.weight.data.clone() for name, layer in quantized_layers(model)}
    with torch.no_grad():
        model.eval()(TOKENS)
    assert all(torch.equal(layer.weight.data, before[name]) for name, layer in quantized_layers(model))
