"""From a recipe to specs: what its names mean, and what is refused before anything runs."""

import pytest
import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.rewards import math_accuracy
from rl_posttrain.tasks.arithmetic import arithmetic


def test_a_recipe_becomes_functions_with_checked_arguments():
    specs = resolve(load_recipe("quickstart", ["task.digits=null", "run.seed=3", "rewards.0.weight=0.5"]))
    assert (specs.task.name, specs.task.function, specs.task.seed) == ("arithmetic", arithmetic, 3)
    assert specs.task.arguments == {"template": "qa", "operators": ["+"], "num_train": 2048, "num_eval": 32}
    (reward,) = specs.rewards
    assert (reward.name, reward.key, reward.function) == ("math_accuracy", "rewards.0", math_accuracy)
    assert (reward.weight, reward.judges, reward.range) == (0.5, "answer", (0.0, 1.0))


def test_a_task_makes_its_rows_from_the_runs_seed_and_must_have_enough():
    task = resolve(load_recipe("quickstart", ["task.num_train=8", "task.num_eval=2", "run.seed=3"])).task
    rows = task.make_rows(8)
    assert rows == arithmetic(num_train=8, num_eval=2, seed=3, operators=["+"])
    with pytest.raises(RecipeError) as caught:
        task.make_rows(9)
    assert str(caught.value) == (
        "algorithm.prompts_per_step=9: the task has 8 training rows; raise task.num_train or lower prompts_per_step"
    )


class NeedsMatrices(torch.optim.SGD):
    needs_whole_matrices = True


WHOLE = ("muon", "adam_mini", "galore", "fira", "apollo", f"{__name__}:NeedsMatrices")


@pytest.mark.parametrize(("name", "stage"), [(name, 2) for name in WHOLE] + [("muon", 1), ("muon", 3)])
def test_an_optimizer_of_whole_matrices_is_refused_where_they_are_sharded(name, stage):
    choice = f"optimizer={{name: '{name}', lr: 1.0e-3}}"
    with pytest.raises(RecipeError) as caught:
        resolve(load_recipe("quickstart", [choice, f"distributed.zero_stage={stage}"]))
    text = str(caught.value)
    assert text.startswith(f"optimizer.name={name} needs whole matrices, but ")
    assert str(stage) in text


@pytest.mark.parametrize("whole", ["distributed.zero_stage=0", "distributed.engine=none"])
def test_an_optimizer_of_whole_matrices_runs_where_they_are_whole(whole):
    resolve(load_recipe("quickstart", ["optimizer={name: muon, lr: 1.0e-3}", whole]))
