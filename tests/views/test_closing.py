"""What a run says at its end: every command that it proposes is run as it was printed."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import run_python
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.models.export import write_final_model
from rl_posttrain.recipe.load import load_recipe, parse_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.metrics import find_metric
from rl_posttrain.views.closing import next_commands, print_closing

PLAIN = ("rollout.engine=transformers", "distributed.engine=none")


def finished_run(folder, tiny_recipe, *overrides, environment=None) -> RunDirectory:
    """A run directory as `train` leaves it, made by hand."""
    recipe = load_recipe(tiny_recipe, [*PLAIN, f"run.output_dir={folder}", "algorithm.num_steps=1", *overrides])
    run = RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml())
    run.append_metrics({"step": 1, "reward": 0.5, "tokens": 100, "seconds": 2.0})
    run.write_rollouts(1, [{"step": 1, "prompt": "Q [red]", "completion": "7", "answer": "7", "reward": 1.0}])
    run.write_environment(environment or {"num_processes": 1})
    run.write_summary({"steps": 1})
    return run


def commands_of(run, capsys) -> list[list[str]]:
    """The commands below "try next", each split as a shell splits it."""
    print_closing(run)
    printed = capsys.readouterr().out.partition("try next\n")[2].splitlines()
    assert len(printed) % 2 == 0, "a command and a line that says what it does"
    return [shlex.split(line) for line in printed[::2]]


def test_every_command_runs_and_repeats_this_run(tiny_recipe, tmp_path, run_main, capfd):
    # Overrides of all kinds, and a folder that needs quotes.
    overrides = ("run.name=mine", "run.seed=3", "task.num_train=32", "rollout.temperature=0.7")
    own = ("optimizer.betas=[0.9, 0.9]", "logging={trackers: [tensorboard], print_samples: 1}")
    run = finished_run(tmp_path / "my runs", tiny_recipe, *overrides, *own)
    train, curves, compare, check, tensorboard = commands_of(run, capfd)  # no model was saved

    status, stdout, stderr = run_main(*train[1:])
    assert (train[:2], status) == (["rl-posttrain", "train"], 0), stderr
    again = RunDirectory.open(tmp_path / "my runs" / "mine-adamw")
    assert again.summary()["steps"] == 1
    for name in {name for row in again.metrics() for name in row}:
        entry = find_metric(name)
        assert entry is not None, f"{name} is not in the table of metrics"
        assert entry.name != "<reward>/<metric>" or name.startswith("math_accuracy/"), (
            f"{name} needs an entry of its own"
        )
    expected = run.recipe()
    expected["run"]["name"] = "mine-adamw"
    expected["optimizer"] = {"name": "adamw", "lr": 1e-3}
    assert parse_recipe(again.recipe()) == parse_recipe(expected), "all but the optimizer and the name is this run's"
    assert "mine-adamw-adams" in stdout, "it proposes the way back"

    status, stdout, stderr = run_main(*curves[1:])
    assert (curves[:2], status) == (["rl-posttrain", "curves"], 0), stderr
    assert {"* mine", "o mine-adamw"} <= set(re.findall(r"[*o] mine\S*", stdout))

    status, stdout, stderr = run_main(*check[1:])
    assert (check[:2], status) == (["rl-posttrain", "check"], 0), stderr
    assert "temperature: 0.7" in stdout

    # What it would run is planned, and refused after the plan; six runs would take too long here.
    status, _, stderr = run_main(*compare[1:], "--baseline", "sgd")
    assert (compare[:2], status) == (["rl-posttrain", "compare"], 2)
    assert "--baseline=sgd: no variant of that name; known: adams, adamw" in stderr
    assert compare[3:] == ["--optimizers", "adams,adamw", "--seeds", "0,1,2"]

    assert tensorboard == ["tensorboard", "--logdir", str(tmp_path / "my runs")]
    assert (Path(sys.executable).parent / "tensorboard").exists()

    # Now that the other run is there, it is not proposed once more.
    assert [command[1] for command in commands_of(run, capfd)] == ["curves", "compare", "check", "--logdir"]


@pytest.mark.parametrize(
    ("optimizer", "override"),
    [
        ("optimizer={name: adams, lr: 1.0e-3}", "optimizer.name=adamw"),
        ("optimizer={name: adams, lr: 1.0e-3, betas: [0.9, 0.9]}", "'optimizer={name: adamw, lr: 0.001}'"),
        ("optimizer={name: sgd, lr: 0.1, momentum: 0.9}", "'optimizer={name: adams, lr: 0.1}'"),
    ],
)
def test_arguments_of_one_optimizer_are_not_given_to_another(tiny_recipe, tmp_path, optimizer, override):
    train, *_ = next_commands(finished_run(tmp_path, tiny_recipe, optimizer))
    assert train[0].split(" ", 3)[3].rsplit(" ", 1)[0] == override


def test_several_processes_are_started_by_torchrun(tiny_recipe, tmp_path, monkeypatch):
    run = finished_run(tmp_path, tiny_recipe, environment={"num_processes": 4})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    train, _, compare, check = next_commands(run)
    assert train[0].startswith(
        f"torchrun --standalone --nproc_per_node=4 -m rl_posttrain train {run.path}/recipe.yaml "
    )
    assert compare[0].endswith(" --num-processes 4")
    assert check[0].endswith(" --num-processes 4")
    # On two machines only the user knows the address where they meet.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    train, *_ = next_commands(run)
    assert train[0].startswith("rl-posttrain train ")
    assert train[1].endswith("; start it on 4 processes, with torchrun as you started this run")


def test_the_end_of_a_run(tiny_recipe, tmp_path, capsys):
    run = finished_run(tmp_path, tiny_recipe)
    print_closing(run)
    text = capsys.readouterr().out
    assert "samples of step 1" in text
    assert re.search(r"prompt +Q \[red\]\n +completion +7\n +answer +7\n +reward +1\.00", text)
    assert f"run directory  {run.path}\n" in text
    assert "tensorboard" not in text, "this run wrote no event files"
    assert yaml.safe_load((run.path / "recipe.yaml").read_text())["run"]["name"] == "tiny"


def test_the_trained_model_answers_the_command_as_it_is_printed(
    tiny_recipe, tiny_model, tmp_path, run_main, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path / "my runs", tiny_recipe, "checkpoint.final_model=true")
    prompt = 'It\'s "3" < 4, $HOME `x`\n[red]:'
    run.write_rollouts(1, [{"step": 1, "prompt": prompt}, {"step": 1, "prompt": "a longer one" * 99}])
    shutil.copytree(tiny_model, run.saved_model_path)
    write_final_model(run, run.saved_model_path, 1)
    commands = dict(next_commands(run))
    ask = next(command for command, meaning in next_commands(run) if meaning.startswith("ask the trained model"))
    program, option, code = shlex.split(ask)
    assert program == "python"
    done = run_python(option, code)
    assert done.returncode == 0, done.stderr
    tokenizer, model = (kind.from_pretrained(tiny_model) for kind in (AutoTokenizer, AutoModelForCausalLM))
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    said = model.generate(ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
    assert done.stdout == tokenizer.decode(said, skip_special_tokens=True) + "\n"

    export = shlex.split(next(command for command in commands if " export " in command))
    status, _, stderr = run_main(*export[1:])
    assert (status, (tmp_path / "models" / "tiny" / "model.safetensors").exists()) == (0, True), stderr

    run.write_best({"step": 1, "metric": "reward", "mode": "max", "value": 0.5})
    assert any(command.endswith(" --best") and "step 1, the best" in text for command, text in next_commands(run))
    run.write_rollouts(1, [{"step": 1, "prompt": "x" * 2000}])
    assert not any("ask the trained model" in meaning for _, meaning in next_commands(run))
