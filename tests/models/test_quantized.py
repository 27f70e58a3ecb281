"""Weights in 4 bits: what they are as numbers, how many bytes they take, and where they are refused."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rl_posttrain.errors import RecipeError
from rl_posttrain.models.find import model_without_weights
from rl_posttrain.models.quantized import (
    FourBits,
    check_bitsandbytes,
    dequantized,
    held_tensors,
    is_transposed,
    layers_in_4_bits,
    put_into_4_bits,
    quantized_layers,
    rounded_to_4_bits,
)

HOWS = [FourBits("nf4", False), FourBits("nf4", True), FourBits("fp4", False)]
# Appendix E of arXiv:2305.14314.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tiny_model, tmp_path_factory):
    """A Llama, and a GPT-2, whose weights are (inputs, outputs)."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    folder = tmp_path_factory.mktemp("gpt2")
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)
    return {"llama": tiny_model, "gpt2": folder}


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_export_rounds_to_what_a_loaded_model_computes_with(folders, name, how):
    loaded = AutoModelForCausalLM.from_pretrained(folders[name], quantization_config=how.config("float32"))
    plain, made = (AutoModelForCausalLM.from_pretrained(folders[name], dtype=loaded.dtype) for _ in range(2))
    before = {key: value.clone() for key, value in plain.named_parameters()}
    names = layers_in_4_bits(model_without_weights(plain.config), how)
    rounded_to_4_bits(plain, names, how)
    put_into_4_bits(made, how)
    assert names == {key for key, _ in quantized_layers(loaded)} == {key for key, _ in quantized_layers(made)}
    for model in (loaded, made):
        for key, layer in quantized_layers(model):
            assert torch.equal(dequantized(layer), plain.get_parameter(f"{key}.weight")), key
            assert is_transposed(layer) == (name == "gpt2")
            size = sum(tensor.nbytes for tensor in held_tensors(layer))
            assert size == sum(how.num_bytes(before[f"{key}.weight"].numel()))
    changed = {key.removesuffix(".weight") for key, value in plain.named_parameters() if not value.equal(before[key])}
    assert changed == names
    assert not [key for key in names if "head" in key or "emb" in key or "wte" in key]


def test_nf4_takes_the_nearest_of_its_16_numbers(folders):
    plain = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32)
    layer = plain.model.layers[0].mlp.up_proj
    blocks = layer.weight.detach().reshape(-1, 64)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    code = torch.tensor(NF4)
    wanted = code[(blocks / largest).unsqueeze(-1).sub(code).abs().argmin(dim=-1)] * largest
    rounded_to_4_bits(plain, ["model.layers.0.mlp.up_proj"], HOWS[0])
    torch.testing.assert_close(layer.weight.detach().reshape(-1, 64), wanted)


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"^model\.lora\.quantize=nf4: .*not installed; pip install .*\[qlora\]"):
        check_bitsandbytes("nf4")
