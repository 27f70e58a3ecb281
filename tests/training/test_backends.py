"""What each backend says of itself; that they train is proven by whole runs."""

import pytest

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.training.backends.backend import make_backend


def backend(*overrides):
    recipe = load_recipe("quickstart", overrides)
    return make_backend(recipe, derive_sizes(recipe, 1))


@pytest.mark.parametrize(
    ("dtype", "engine", "words", "weights"),
    [
        ("bfloat16", "deepspeed", "bf16 weights, fp32 masters under DeepSpeed ZeRO-2", "bfloat16"),
        ("bfloat16", "none", "fp32 weights, which are their own masters, under bf16 autocast", "float32"),
        ("float32", "deepspeed", "fp32 weights", "float32"),
        ("float32", "none", "fp32 weights", "float32"),
    ],
)
def test_precision_in_words_and_as_trl_is_told(dtype, engine, words, weights):
    made = backend(f"model.dtype={dtype}", f"distributed.engine={engine}")
    assert made.precision == words
    fields = made.trl_fields()
    assert fields["model_init_kwargs"] == {"dtype": weights}
    assert fields["bf16"] == (dtype == "bfloat16")
    assert (fields["deepspeed"] is None) == (engine == "none") == (made.zero_stage is None)


@pytest.mark.parametrize(
    ("stage", "micro_batch", "sums_in_fp32"), [(1, 8, False), (2, 8, True), (3, 8, True), (2, 64, False)]
)
def test_gradients_are_summed_in_fp32_where_deepspeed_can_and_there_is_something_to_sum(
    stage, micro_batch, sums_in_fp32
):
    made = backend(f"distributed.zero_stage={stage}", f"algorithm.micro_batch_size={micro_batch}")
    assert made.fp32_gradients == sums_in_fp32
    config = made.trl_fields()["deepspeed"]
    assert config["zero_optimization"]["stage"] == stage
    assert ("data_types" in config) == sums_in_fp32
