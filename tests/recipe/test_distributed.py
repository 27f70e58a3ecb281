"""Engine, stage and offload: what goes together, what the resolved recipe says, and one line for all else."""

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{}", ("deepspeed", 2, "none")),
        ("{engine: deepspeed, zero_stage: 3, offload: parameters}", ("deepspeed", 3, "parameters")),
        ("{zero_stage: 1, offload: optimizer}", ("deepspeed", 1, "optimizer")),
        ("{engine: fsdp2}", ("fsdp2", None, "none")),
        ("{engine: fsdp2, offload: parameters}", ("fsdp2", None, "parameters")),
        ("{engine: none}", ("none", None, "none")),
    ],
)
def test_the_stage_is_deepspeeds_alone(section, expected):
    recipe = load_recipe("quickstart", [f"distributed={section}"])
    found = recipe.distributed
    assert (found.engine, found.zero_stage, found.offload) == expected


def test_one_override_is_enough_and_the_recipe_of_a_run_is_readable(tmp_path):
    recipe = load_recipe("quickstart", ["distributed.engine=fsdp2"])
    assert recipe == load_recipe("quickstart_fsdp2", ["run.name=quickstart"])
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["engine=fsdp2", "zero_stage=3"],
            "distributed.zero_stage=3: stages are DeepSpeed's, and distributed.engine=fsdp2",
        ),
        (
            ["engine=none", "offload=optimizer"],
            "distributed.offload=optimizer: distributed.engine=none keeps everything",
        ),
        (["engine=fsdp2", "offload=optimizer"], "distributed.offload=optimizer: under distributed.engine=fsdp2 the"),
        (
            ["zero_stage=0", "offload=optimizer"],
            "distributed.offload=optimizer: DeepSpeed offloads what it shards, and",
        ),
        (["zero_stage=2", "offload=parameters"], "distributed.offload=parameters: DeepSpeed offloads weights at"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(overrides, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [f"distributed.{override}" for override in overrides])
    assert str(caught.value).startswith(said)


def test_an_optimizer_of_whole_matrices_is_refused_under_fsdp2():
    with pytest.raises(RecipeError) as caught:
        resolve(load_recipe("quickstart", ["distributed.engine=fsdp2", "optimizer={name: muon, lr: 1.0e-3}"]))
    assert str(caught.value) == (
        "optimizer.name=muon needs whole matrices, but distributed.engine=fsdp2 hands the optimizer rows of them; set "
        "engine: none or optimizer.name: adams"
    )
