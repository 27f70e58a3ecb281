"""A run whose rows, code, model or recipe were changed before `--resume`: it says what, or goes on where allowed."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import run_command
from safetensors.torch import load_file, save_file

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.training.inputs import find_inputs

NUM_ROWS = 32
COMMON = (
    "algorithm.num_steps=3", "checkpoint.every_steps=2", "checkpoint.keep=2", "rollout.engine=transformers",
    "distributed.engine=none", "task.eval_share=0.25",
)  # fmt: skip


def rows() -> list[dict]:
    return [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(NUM_ROWS)]


def write_rows(path: Path, changed: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))


@pytest.fixture(scope="module")
def began(tiny_recipe, tiny_model, tmp_path_factory) -> Path:
    """A folder with a recipe, all that it names, and a finished run of three steps with a checkpoint after two."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny_model, folder / "model")
    write_rows(folder / "rows.jsonl", rows())
    (folder / "shares.py").write_text("def share(text, kind):\n    return sum(map(kind, text)) / max(1, len(text))\n")
    (folder / "digits.py").write_text(
        "import pathlib, sys\n\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\n\n\n"
        "def digit_share(completions, **kwargs):\n    from shares import share\n\n"
        "    return [share(text, str.isdigit) for text in completions]\n"
    )
    (folder / "ask.txt").write_text("Q: {question}\nA:")
    recipe = tiny_recipe.read_text().replace(str(tiny_model), str(folder / "model"))
    recipe = recipe.replace(str(tiny_recipe.parent / "digits.py"), str(folder / "digits.py"))
    recipe = recipe.replace(str(tiny_recipe.parent / "runs"), str(folder / "runs"))
    (folder / "mine.yaml").write_text(recipe)
    done = run_command("train", folder / "mine.yaml", *options(folder))
    assert done.returncode == 0, done.stderr
    return folder


def options(folder: Path) -> list[str]:
    task = f"task={{name: file, path: {folder / 'rows.jsonl'}, template: {folder / 'ask.txt'}}}"
    return [task, *COMMON, "run.name=began"]


@pytest.fixture
def killed(began):
    """The run as a process leaves it that is killed in its third step; afterwards everything is as it was."""
    keep = began.parent / "keep"
    shutil.copytree(began, keep)
    shutil.rmtree(began / "runs/began/checkpoints/checkpoint-3")
    (began / "runs/began/summary.json").unlink()
    yield began
    shutil.rmtree(began)
    keep.rename(began)


def resume(folder: Path, run_main, *more: str) -> str:
    """What is said of a resume that is refused."""
    before = (folder / "runs/began/metrics.jsonl").read_bytes()
    status, _, stderr = run_main("train", folder / "mine.yaml", *options(folder), "--resume", *more)
    assert (status, stderr.count("\n")) == (2, 1), stderr
    assert (folder / "runs/began/metrics.jsonl").read_bytes() == before
    return stderr.removeprefix("rl-posttrain: ").strip()


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_golds(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", [row | {"answer": "7"} if n % 8 == 5 else row for n, row in enumerate(rows())])


def change_questions(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", [{**row, "question": row["question"].replace("?", "!")} for row in rows()])


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model/model.safetensors")
    name = min(weights)
    weights[name].view(-1)[3] += 0.5
    save_file(weights, folder / "model/model.safetensors", metadata={"format": "pt"})


REFUSED = {
    "golds": (change_golds, ("task: ", " differ in answer; the first is row "), "--allow-change task"),
    "questions": (change_questions, ("24 of 24 training rows differ in prompt, question; ",), "--allow-change task"),
    "half of the file": (
        lambda folder: write_rows(folder / "rows.jsonl", rows()[: NUM_ROWS // 2]),
        ("task: there are 12 training rows and were 24", "there are 4 evaluation rows and were 8"),
        "--allow-change task",
    ),
    "a new column": (
        lambda folder: write_rows(folder / "rows.jsonl", [row | {"level": 1} for row in rows()]),
        ("task: the training rows have the new column level",),
        "--allow-change task",
    ),
    "the template": (
        lambda folder: edited(folder / "ask.txt", "Q:", "Question:"),
        ("task: ", "ask.txt was changed", "24 of 24 training rows differ in prompt"),
        "--allow-change task",
    ),
    "the reward": (
        lambda folder: edited(folder / "digits.py", "isdigit", "isalpha"),
        ("rewards: ", "digits.py was changed"),
        "--allow-change rewards",
    ),
    "what the reward imports": (
        lambda folder: edited(folder / "shares.py", "max(1,", "max(2,"),
        ("rewards: ", "shares.py was changed"),
        "--allow-change rewards",
    ),
    "the model": (change_weights, ("model: model.safetensors was changed",), "--allow-change model"),
    "its tokenizer": (
        lambda folder: edited(folder / "model/tokenizer_config.json", "{", '{"my_note": 1,'),
        ("model: tokenizer_config.json was changed",),
        "--allow-change model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_changed_is_named_and_refused(killed, run_main, name):
    change, said, fix = REFUSED[name]
    change(killed)
    line = resume(killed, run_main)
    assert all(part in line for part in said), line
    assert line.endswith(f"go on as another run with {fix}"), line


def test_keys_of_the_recipe_are_refused_with_both_values_or_by_what_cannot_change(killed, run_main):
    line = resume(killed, run_main, "rollout.temperature=0.5")
    assert line.startswith("rollout.temperature=0.5 (was 1.0): ")
    assert line.endswith("--allow-change rollout.temperature")
    line = resume(killed, run_main, "optimizer.weight_decay=0.1", "--allow-change", "optimizer")
    assert line.startswith("optimizer.weight_decay=0.1 (was 0.0): ")
    assert "the optimizer's state and arguments come from the checkpoint" in line
    line = resume(killed, run_main, "algorithm.num_steps=2")
    assert line.startswith("algorithm.num_steps=2 (was 3): ")
    line = resume(killed, run_main, "--allow-change", "reward")
    assert line == "--allow-change=reward: no section or key of a recipe; did you mean 'rewards'?"
    status, _, stderr = run_main("train", killed / "mine.yaml", "run.name=new", "--allow-change", "task")
    assert (status, "add --resume" in stderr) == (2, True)


def test_what_is_allowed_goes_on_and_is_recorded(killed):
    change_golds(killed)
    arguments = ("train", killed / "mine.yaml", *options(killed), "rollout.temperature=0.5", "--resume")
    done = run_command(*arguments, "--allow-change", "task", "--allow-change", "rollout")
    assert done.returncode == 0, done.stderr
    assert "changed since the run began: rollout.temperature=0.5 (was 1.0)" in done.stdout
    run = RunDirectory.open(killed / "runs/began")
    assert len(run.metrics()) == 3
    recorded = json.loads((run.path / "inputs.json").read_text())["changes"]
    assert [change["after_step"] for change in recorded] == [2] * len(recorded)
    assert recorded[0]["what"] == "rollout.temperature=0.5 (was 1.0)"
    assert recorded[1]["what"].startswith("task: ")
    assert run.recipe()["rollout"]["temperature"] == 0.5
    # From now on the run has these inputs.
    (run.path / "summary.json").unlink()
    assert run_command(*arguments).returncode == 0


def test_harmless_keys_need_no_word_and_a_finished_run_goes_on_to_more_steps(killed):
    """It ends in the same weights as a run that had so many steps from its beginning."""
    more = ("algorithm.num_steps=4", "checkpoint.keep=3", "checkpoint.every_steps=1", "logging.print_samples=0")
    whole = run_command("train", killed / "mine.yaml", *options(killed), *more, "run.name=whole")
    assert whole.returncode == 0, whole.stderr
    for run_until in ((), more):
        done = run_command("train", killed / "mine.yaml", *options(killed), *run_until, "--resume")
        assert done.returncode == 0, done.stderr
    ended, expected = (RunDirectory.open(killed / "runs" / name) for name in ("began", "whole"))
    assert [row["step"] for row in ended.metrics()] == [1, 2, 3, 4]
    assert ended.summary()["steps"] == 4
    weights = [(run.checkpoints_path / "checkpoint-4/model.safetensors").read_bytes() for run in (ended, expected)]
    assert weights[0] == weights[1]


def test_the_code_of_every_section_is_recorded_with_the_critics_model(tmp_path, tiny_model):
    for name in ("task", "helper", "reward", "algorithm", "optimizer", "critic_optimizer"):
        (tmp_path / f"{name}.py").write_text("import helper\n" if name == "task" else "")
    shutil.copytree(tiny_model, tmp_path / "other")
    recipe = load_recipe(
        "quickstart_ppo",
        [f"task={{name: '{tmp_path}/task.py:rows'}}", f"rewards=[{{fn: '{tmp_path}/reward.py:pays'}}]",
         f"algorithm.name={tmp_path}/algorithm.py:Mine", f"optimizer.name={tmp_path}/optimizer.py:Mine",
         f"critic.optimizer.name={tmp_path}/critic_optimizer.py:Mine", f"critic.model={tmp_path}/other"],
    )  # fmt: skip
    found = find_inputs(recipe, TaskRows(train=[], eval=[]), str(tiny_model)).described["files"]
    code = {section: sorted(Path(name).name for name in files) for section, files in found.items()}
    models = code.pop("model"), code.pop("critic.model")
    assert code == {
        "task": ["helper.py", "task.py"], "rewards": ["reward.py"], "algorithm": ["algorithm.py"],
        "optimizer": ["optimizer.py"], "critic": ["critic_optimizer.py"],
    }  # fmt: skip
    assert "model.safetensors" in models[0]
    assert models[0] == models[1]


@pytest.mark.parametrize("content", ["{}", '{"rows": 1, "files": [], "changes": 3}', '{"rows": {}, "files": {}}', "[]"])
def test_a_record_of_inputs_that_is_damaged_is_refused(killed, run_main, content):
    """Else whatever was changed since would pass."""
    (killed / "runs/began/inputs.json").write_text(content)
    edited(killed / "digits.py", "isdigit", "isalpha")
    assert "inputs.json: " in resume(killed, run_main)


def test_a_run_that_was_renamed_goes_on_where_it_lies(killed):
    (killed / "runs/began").rename(killed / "moved")
    file = killed / "moved/recipe.yaml"
    recipe = load_recipe(file)
    assert (recipe.run.name, recipe.run_path.resolve()) == ("moved", (killed / "moved").resolve())
    assert load_recipe(file, ["run.name=other"]).run.name == "other"
    done = run_command("train", file, "--resume")
    assert done.returncode == 0, done.stderr
    assert RunDirectory.open(killed / "moved").summary()
    assert not (killed / "runs/began").exists()


def test_a_run_from_before_inputs_were_recorded_resumes_and_says_so(killed):
    (killed / "runs/began/inputs.json").unlink()
    environment = killed / "runs/began/environment.json"
    environment.write_text(environment.read_text().replace('"torch": "', '"torch": "0.'))
    done = run_command("train", killed / "mine.yaml", *options(killed), "--resume")
    assert done.returncode == 0, done.stderr
    assert "this run began before its inputs were recorded" in done.stdout
    assert ": numbers may differ" in done.stdout
    assert "torch is " in done.stdout


def test_more_steps_are_harmless_where_no_rate_depends_on_their_number():
    from rl_posttrain.recipe.changes import recipe_changes

    for schedule, harmless in (("constant", True), ("linear", False), ("cosine", False)):
        few = load_recipe("quickstart", [f"optimizer.schedule={schedule}", "optimizer.warmup_steps=5"])
        more = load_recipe("quickstart", [f"optimizer.schedule={schedule}", "optimizer.warmup_steps=5",
                                          "algorithm.num_steps=99"])  # fmt: skip
        (change,) = recipe_changes(few, more)
        assert change.is_harmless(more) is harmless
        (change,) = recipe_changes(more, few)
        assert not change.is_harmless(few)
