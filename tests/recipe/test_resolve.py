"""From a recipe to specs: what its names mean, and what is refused before anything runs."""

import pytest
import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve, resolve_task
from rl_posttrain.recipe.task_section import TaskSection
from rl_posttrain.rewards import REWARDS, math_accuracy
from rl_posttrain.tasks import TASKS
from rl_posttrain.tasks.arithmetic import arithmetic
from rl_posttrain.tasks.rows import TaskRows


def test_a_recipe_becomes_functions_with_checked_arguments():
    specs = resolve(load_recipe("quickstart", ["task.digits=null", "run.seed=3", "rewards.0.weight=0.5"]))
    assert (specs.task.name, specs.task.function, specs.task.version) == ("arithmetic", arithmetic, "1")
    assert specs.task.arguments == {"operators": ["+"], "num_train": 2048, "num_eval": 32, "seed": 3}
    assert (specs.task.template, specs.task.system) == ("qa", None)
    (reward,) = specs.rewards
    assert (reward.name, reward.key, reward.function) == ("math_accuracy", "rewards.0", math_accuracy)
    assert (reward.weight, reward.judges, reward.range) == (0.5, "answer", (0.0, 1.0))


def test_a_task_makes_its_rows_from_the_runs_seed_and_must_have_enough():
    task = resolve(load_recipe("quickstart", ["task.num_train=8", "task.num_eval=2", "run.seed=3"])).task
    rows = task.make_rows(8)
    made = arithmetic(num_train=8, num_eval=2, seed=3, operators=["+"])
    for found, expected in ((rows.train, made.train), (rows.eval, made.eval)):
        assert found == [{"prompt": f"Q: {row['question']}\nA:"} | row for row in expected]
    with pytest.raises(RecipeError) as caught:
        task.make_rows(9)
    assert str(caught.value) == (
        "algorithm.prompts_per_step=9: the task has 8 training rows; raise task.num_train or lower prompts_per_step"
    )


def versioned(*, num_train: int, start: int = 0) -> TaskRows:
    return TaskRows([{"question": str(start + number), "answer": "1"} for number in range(num_train)], [])


versioned.version = "7"


def unversioned():
    return TaskRows([{"prompt": "a", "answer": "1"}], [])


def test_a_task_of_ones_own_gets_the_arguments_that_it_names_and_has_its_own_version():
    def task(function, **keys):
        return resolve_task(TaskSection(name=f"{__name__}:{function.__name__}", **keys), seed=3)

    own = task(versioned, num_train=2, start=5, template="chat", system="Think.")
    assert (own.version, own.arguments) == ("7", {"num_train": 2, "start": 5})
    system = {"role": "system", "content": "Think."}
    assert [row["prompt"] for row in own.make_rows().train] == [
        [system, {"role": "user", "content": text}] for text in ("5", "6")
    ]
    assert task(versioned, num_train=1).make_rows().train[0]["prompt"] == "Q: 0\nA:"
    assert (task(unversioned).version, task(unversioned).make_rows().template) == ("unversioned", None)


@pytest.mark.parametrize("name", TASKS)
def test_a_built_in_needs_only_its_name_and_its_rewards_exist(name):
    if name in ("arithmetic", "countdown"):  # others need data, or say which data
        rows = resolve_task(TaskSection(name=name), seed=0).make_rows()
        assert len(rows.eval) >= 100
        assert rows.template == TASKS[name].template
    assert set(TASKS[name].rewards) <= set(REWARDS)


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
