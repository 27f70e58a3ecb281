"""The keys of `model.lora`: defaults, and mistakes in one line."""

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe, parse_recipe
from rl_posttrain.runs.yaml12 import read_yaml


def test_an_empty_section_has_the_defaults_and_reads_back():
    assert load_recipe("quickstart").model.lora is None
    recipe = load_recipe("quickstart", ["model.lora={}"])
    assert recipe.model.lora.model_dump() == {
        "rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": "all-linear",
        "quantize": None, "double_quant": False,
    }  # fmt: skip
    named = load_recipe("quickstart", ["model.lora.target_modules=[q_proj, v_proj]", "model.lora.quantize=nf4"])
    assert named.model.lora.target_modules == ("q_proj", "v_proj")
    assert (recipe.model.four_bits, named.model.four_bits) == ("", "; frozen layers in 4 bits (nf4)")
    for one in (recipe, named):
        assert parse_recipe(read_yaml(one.to_yaml())) == one


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lora.rank=0"], "model.lora.rank=0: it should be greater than 0"),
        (["model.lora.r=8"], "model.lora.r=8: unknown key"),
        (["model.lora.target_modules=linear"], "it should be all-linear, or a list of names such as"),
        (["model.lora.target_modules=[]"], "it should be all-linear, or a list of names such as"),
        (
            ["model.lora={load_in_4bit: true}"],
            "it has load_in_4bit: frozen weights are in 4 bits by quantize: nf4; set",
        ),
        (["model.lora.quantize=int4"], "model.lora.quantize=int4: it should be 'nf4' or 'fp4'"),
        (
            ["model.lora.quantize=nf4", "distributed.engine=fsdp2"],
            "quantize=nf4: distributed.engine=fsdp2 makes DTensors",
        ),
        (["model.lora.double_quant=true"], "model.lora.double_quant=true: it is about weights in 4 bits; set model.lo"),
        (["model.lora={}", "trl={sync_ref_model: true}"], "trl.sync_ref_model=true: with model.lora the reference"),
    ],
)
def test_mistakes_are_one_line(overrides, message):
    with pytest.raises(RecipeError) as raised:
        load_recipe("quickstart", overrides)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
