"""Local files in the shape of GSM8K, MATH and DAPO-Math-17k train and evaluate, from the file to the metrics."""

import json

import pytest
from data_sets import write

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.training.train import train

WRAPPED = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: $A."
    '\n\n{}\n\nRemember to put your answer on its own line after "Answer:".'
)


def gsm8k(folder):
    for split, numbers in (("train", range(8)), ("test", range(20, 22))):
        rows = [{"question": f"Ann has {n} cats. How many?", "answer": f"She has {n}.\n#### {n}"} for n in numbers]
        write(folder / f"{split}.jsonl", rows)
    return {"name": "gsm8k", "path": str(folder), "template": "qa"}


def math(folder):
    train = [
        {"problem": f"What is ${n}+1$?", "level": "Level 1", "type": "Algebra", "solution": f"$\\boxed{{{n + 1}}}$"}
        for n in range(8)
    ]
    held_out = [
        {"problem": f"What is ${n}-1$?", "answer": str(n - 1), "level": n + 1, "subject": "Algebra"} for n in range(2)
    ]
    paths = {"path": write(folder / "train.parquet", train), "eval_path": write(folder / "test.parquet", held_out)}
    return {"name": "math", "template": "qa", **paths}


def dapo(folder):
    rows = [
        {
            "prompt": [{"role": "user", "content": WRAPPED.format(f"Find {n % 10}?")}],
            "reward_model": {"ground_truth": str(n % 10), "style": "rule"},
            "extra_info": {"index": str(n)},
        }
        for n in range(40)
    ]
    return {"name": "dapo_math", "template": "qa", "num_eval": 2, "path": write(folder / "dapo.parquet", rows)}


def own_file(folder):
    (folder / "boxed.txt").write_text("{question} Think, then box it.\n", encoding="utf-8")
    rows = [{"task": f"Double {n}.", "result": 2.0 * n, "difficulty": n / 10} for n in range(10)]
    columns = {"prompt": "task", "answer": "result"}
    return {"name": "file", "path": write(folder / "my.jsonl", rows), "columns": columns, "eval_share": 0.2,
            "template": str(folder / "boxed.txt")}  # fmt: skip


PROMPTS = {gsm8k: "Q: Ann has ", math: "Q: What is $", dapo: "Q: Find ", own_file: "Double "}


@pytest.mark.parametrize("shape", PROMPTS)
def test_a_local_data_set_trains_and_is_evaluated(shape, tmp_path, tiny_recipe, tiny_model):
    task = shape(tmp_path)
    (tmp_path / "rewards.py").write_text(
        "def columns_come(completions, answer, **columns):\n"
        f"    assert {shape is own_file} == (columns.get('difficulty') is not None)\n"
        f"    assert {shape is math} == (columns.get('level') is not None)\n"
        "    return [float(len(text) % 3) for text in completions]\n"
    )
    recipe = load_recipe(
        tiny_recipe,
        [f"task={task}", f"run.output_dir={tmp_path}", f"rewards.0.fn={tmp_path / 'rewards.py'}:columns_come",
         "rollout.engine=transformers", "distributed.engine=none", "algorithm.num_steps=1", "eval.every_steps=1",
         "rollout.max_new_tokens=4"],
    )  # fmt: skip
    run = train(recipe)
    (row,) = run.metrics()
    assert "eval/accuracy" in row
    assert all(rollout["prompt"].startswith(PROMPTS[shape]) for rollout in run.rollouts(1))
    assert all(rollout["answer"].isdigit() for rollout in run.rollouts(1))


@pytest.mark.parametrize("shape", [gsm8k, math, own_file])
def test_a_local_data_set_is_evaluated_by_the_command(shape, tmp_path, tiny_model, run_main):
    task = shape(tmp_path)
    name = task.pop("name") if shape is not own_file else task["path"]  # --task my.jsonl
    task = {key: value for key, value in task.items() if not (shape is own_file and key in ("name", "path"))}
    options = [f"task.{key}={value}" for key, value in task.items()]
    status, _, error = run_main(
        "eval", tiny_model, *options, "--task", name, "--engine=transformers", "--max-new-tokens=4", "--json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert status == 0, error
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["num_questions"] == 2
    assert result["task"] | {"rows_sha256": "", "template": ""} == {
        "name": "file" if shape is own_file else name, "version": "1", "rows_sha256": "", "template": ""
    }  # fmt: skip
    assert ("level" in result["by"]) == (shape is math)
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2
