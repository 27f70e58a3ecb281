"""`rl-posttrain eval`: a mistake is one line, before anything is loaded or written."""

import shutil

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "MODEL=nowhere/at/all: no such folder; name a local model folder, a hub model or"),
        (["eval.num_samples=2"], "MODEL: missing; eval.num_samples=2 is a change of a key; name a run"),
        (["MODEL"], "--task: missing; "),
        (
            ["MODEL", "--task", "arithmetics"],
            "task.name=arithmetics: no built-in of that name; did you mean 'arithmetic'?",
        ),
        (
            ["MODEL", "--task", "arithmetic", "--k", "1,x"],
            "--k=1,x: it is one or more whole numbers; give such as 1,4,16",
        ),
        (["MODEL", "--task", "arithmetic", "--k", "4"], "eval.k=[4]: pass@4 needs 4 samples or more, but"),
        (
            ["MODEL", "--task", "arithmetic", "--num-samples", "2", "--temperature", "0"],
            "eval.num_samples=2: at temperature 0 every sample of a question is the same; set eval.num_samples=1",
        ),
        (["MODEL", "--task", "arithmetic", "--num-questions", "999"], "--num-questions=999: the task has 100 rows to"),
        (["MODEL", "--task", "arithmetic", "eval.temprature=1"], "eval.temprature=1: unknown key; did you mean"),
        (["MODEL", "--task", "arithmetic"], "eval.max_new_tokens=1024: with the longest prompt of"),
        (["MODEL", "--task", "arithmetic", "--engine", "hf"], "rollout.engine=hf: it should be 'vllm',"),
        (["MODEL", "--task", ""], "--task: missing; "),
        (["MODEL", "temperature=1"], "temperature=1: no model, and a change is written section.key=value, such as"),
        (["MODEL", "--task", "arithmetic", "model.name=x"], "model.name=x: the model is the first argument"),
        (["MODEL", "--task", "arithmetic", "trl.topk=5"], "trl.topk=5: an evaluation does not read it; did you mean"),
        (["MODEL", "--task", "arithmetic", "--compare", "MODEL"], "--compare=MODEL: it is the model that is evaluated"),
        (
            ["MODEL", "--task", "arithmetic", "--by", "answer, leve", "--max-new-tokens", "8"],
            "--by=leve: rows have no such column; known:",
        ),
        (
            ["MODEL", "--task", "arithmetic", "--out", "own.py", "--max-new-tokens", "8"],
            "own.py: cannot be written (own.py is no folder",
        ),
        (
            ["MODEL", "--task", "arithmetic", "--compare", "OTHER", "rewards.0.fn=own.py:own"],
            "--compare=OTHER: it needs a reward that judges answers",
        ),
    ],
)
def test_a_mistake_is_one_line(run_main, tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def own(completions, **columns):\n    return [1.0] * len(completions)\n")
    models = {"MODEL": str(tiny_model), "OTHER": str(shutil.copytree(tiny_model, tmp_path / "other"))}
    status, _, stderr = run_main("eval", *[models.get(argument, argument) for argument in arguments])
    assert status == 2
    assert "loading" not in stderr
    for name, path in models.items():
        message = message.replace(f"--compare={name}", f"--compare={path}")
    assert stderr.splitlines()[-1].startswith(f"rl-posttrain: {message}"), stderr
    assert "Traceback" not in stderr
    assert {path.name for path in tmp_path.iterdir()} == {"own.py", "other"}
