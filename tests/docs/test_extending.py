"""The examples of the pages, written to files: docs/extending.md trains with all of its own at once."""

import re

import pytest
import torch
from pages import ROOT, write_examples

from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.scoring.rewards import build_rewards
from rl_posttrain.training.algorithms.algorithm import Scored
from rl_posttrain.training.train import train


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The examples of docs/extending.md in the working directory, where recipes look for them."""
    monkeypatch.chdir(tmp_path)
    return write_examples("docs/extending.md", tmp_path)


def test_the_examples_train_together(files, tiny_model):
    assert files == ["my_algorithms.py", "my_optimizers.py", "my_recipe.yaml", "my_rewards.py", "my_tasks.py"]
    recipe = load_recipe(
        "my_recipe.yaml",
        [f"model.name={tiny_model}", "rollout.engine=transformers", "rollout.max_new_tokens=4", "logging.trackers=[]",
         "distributed.engine=none", "checkpoint.final_model=false", "algorithm.num_steps=2", "task.num_train=8",
         "algorithm.prompts_per_step=2", "algorithm.group_size=4", "algorithm.micro_batch_size=8", "task.num_eval=2"],
    )  # fmt: skip
    run = train(recipe)
    row = run.metrics()[1]
    assert row["accuracy"] == row["rewards/ends_with_answer"]  # it judges
    assert 0 <= row["ends_with_answer/empty"] <= 1
    assert row["optimizer_state_bytes"] == 0  # SignSGD keeps nothing
    assert "best_share" in row
    for rollout in run.rollouts(2):
        question = re.fullmatch(r"Q: What is (\d{3}) written backwards\?\nA:", rollout["prompt"])
        assert rollout["answer"] == question[1][::-1]
        assert rollout["extra"]["last_word"] in ("", *rollout["completion"].split())


def test_the_examples_by_hand(files):
    def example(spec):
        return load_object(spec, table={}, key="example")

    reward = example("my_rewards.py:ends_with_answer")
    assert reward(completions=["so it is 283", "283 or so", ""], answer=["283"] * 3) == [1.0, 0.0, 0.0]

    rows = example("my_tasks.py:backwards")(num_train=8, num_eval=2, seed=1, digits=1)
    assert len({row["question"] for row in (*rows.train, *rows.eval)}) == 10

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    weight.grad = torch.tensor([0.5, -0.1, 0.0])
    example("my_optimizers.py:SignSGD")([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.data, torch.tensor([0.85, -1.8, 2.85]))

    rewards = torch.tensor([[1.0], [0.0], [1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    algorithm = example("my_algorithms.py:BestOfGroup")(load_recipe("quickstart", ["algorithm.group_size=4"]))
    second_process = Scored(rewards, torch.tensor([2.0]), 4, start=2, mask=torch.ones(4, 3))
    found = algorithm.advantages(second_process)
    assert found.values.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert found.metrics == {"best_share": 0.25}


def test_the_recipe_in_the_readme_is_resolved_with_its_reward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_examples("README.md", tmp_path) == ["my_recipe.yaml", "my_rewards.py"]
    recipe = load_recipe("my_recipe.yaml")
    specs = resolve(recipe)
    rows = specs.task.make_rows(recipe.algorithm.prompts_per_step)
    rewards = build_rewards(specs.rewards, list(rows.train[0]))
    assert rewards[1](completions=["7", "7" * 21]) == [1.0, 0.0]
    assert (recipe.optimizer.lr, specs.task.arguments["digits"]) == (1.5e-5, 2)


def test_the_reward_of_the_page_on_rewards_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_examples("docs/rewards.md", tmp_path) == ["my_rewards.py"]
    short_answer = load_object("my_rewards.py:short_answer", table={}, key="example")
    assert short_answer(completions=["7", "7" * 300, "7" * 400]) == [1.0, 0.5, 0.0]


def test_the_recipe_for_your_own_questions_trains(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    assert write_examples("docs/recipe.md", tmp_path) == ["level_rewards.py", "my_questions.yaml"]
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    for name, language in (("my_questions.jsonl", "json"), ("my_template.txt", "text")):
        (text,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        (tmp_path / name).write_text(text, encoding="utf-8")
    recipe = load_recipe(
        "my_questions.yaml",
        [f"model.name={tiny_model}", "rollout.engine=transformers", "rollout.max_new_tokens=4", "logging.trackers=[]",
         "distributed.engine=none", "checkpoint.final_model=false", "algorithm.num_steps=1", "eval.every_steps=1"],
    )  # fmt: skip
    rows = resolve(recipe).task.make_rows(recipe.algorithm.prompts_per_step)
    assert (len(rows.train), len(rows.eval)) == (4, 1)
    assert {row["answer"] for row in (*rows.train, *rows.eval)} == {"12", "15", "43", "50", "120"}
    (row,) = train(recipe).metrics()
    assert row["rewards/harder_pays_more"] == 0.0
    assert "eval/pass@4" in row
    level_rewards = load_object("level_rewards.py:harder_pays_more", table={}, key="example")
    assert level_rewards(completions=["\\boxed{15}", "16", "7"], answer=["15", "15", None], level=[2, 2, 1]) == [
        2.0, 0.0, None,
    ]  # fmt: skip
