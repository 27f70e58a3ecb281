"""Runs that go wrong at a step, under every engine: what is said, what is kept, and that the run can go on."""

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_command
from rich.console import Console
from safetensors.torch import load_file, save_file

from rl_posttrain.errors import EngineError, GuardError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.train import train
from rl_posttrain.views.closing import guards_text
from rl_posttrain.views.plain import PlainDisplay
from rl_posttrain.views.text import trouble_text

FAULTS = Path(__file__).with_name("guard_faults.py")
STEPS = ("algorithm.num_steps=4", "checkpoint.every_steps=1", "checkpoint.keep=9", "rollout.engine=transformers")
PLAIN = ("distributed.engine=none",)
# Their number of processes, and overrides.
ENGINES = {
    "plain": (1, PLAIN),
    "zero0": (1, ("distributed.zero_stage=0",)),
    "zero0-fp32": (1, ("distributed.zero_stage=0", "model.dtype=float32")),
    "zero2": (2, ("distributed.zero_stage=2",)),
    "zero3": (2, ("distributed.zero_stage=3",)),
    "fsdp2": (2, ("distributed={engine: fsdp2, zero_stage: null}",)),
}


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """Overrides of a recipe whose reward is `guard_faults.digit_share`, and which run in folders of their own."""
    rewards = ["rewards.1.weight=0.5", f"rewards.0.fn={FAULTS}:digit_share"]

    def recipe(name, *overrides):
        folder = tiny_recipe.parent / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        return [str(tiny_recipe), f"run.name={name}", *STEPS, *rewards, *overrides], folder

    return recipe


@pytest.fixture
def run_here(recipe):
    """Train in this process under plain PyTorch; the run, what it printed, and its error."""

    def run_here(name, *overrides, resume=False):
        (file, *said), folder = resume or recipe(name, *PLAIN, *overrides)
        console = Console(file=io.StringIO(), width=2000)
        error = None
        try:
            train(load_recipe(file, said), resume=bool(resume),
                  display=lambda **named: PlainDisplay(**named, console=console))  # fmt: skip
        except (GuardError, EngineError) as caught:
            error = str(caught)
        return RunDirectory(folder), console.file.getvalue(), error

    return run_here


def weights(run, step):
    return load_file(run.checkpoints_path / f"checkpoint-{step}" / "model.safetensors")


def state(run, step):
    """Every tensor of the optimizer's files, of all processes, by file and place."""
    found = {}

    def walk(value, key):
        if isinstance(value, torch.Tensor):
            found[key] = value
        elif isinstance(value, (dict, list, tuple)):
            for name, child in value.items() if isinstance(value, dict) else enumerate(value):
                walk(child, (*key, name))

    folder = run.checkpoints_path / f"checkpoint-{step}"
    for file in sorted(folder.rglob("*.pt")):
        # model_states have that of ZeRO-0, shards that of FSDP2.
        if "optim" in file.name or "model_states" in file.name or file.parent.name == "shards":
            walk(torch.load(file, weights_only=False), (file.name,))
    return found


def equal(found, others):
    assert set(found) == set(others)
    assert found
    return all(torch.equal(found[key], others[key]) for key in found)


def is_unchanged(run, before, after):
    """Whether weights and optimizer state are the same in two checkpoints; either both are or none."""
    same = equal(weights(run, before), weights(run, after))
    assert equal(state(run, before), state(run, after)) == same
    return same


def trained(recipe, engine, name, *overrides, status=0):
    processes, options = ENGINES[engine]
    said, folder = recipe(f"{name}-{engine}", *options, *overrides)
    done = run_command("train", *said, processes=processes)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-3000:]
    return RunDirectory(folder), done


SKIPS = {
    "reward": ("guards.reward=skip_step", "rewards.0.args={value: .inf, at: 3}"),
    "loss": (f"algorithm.name={FAULTS}:NaN",),
    "gradient_norm": (f"algorithm.name={FAULTS}:Large", "guards.gradient_norm.after_steps=2"),
}


@pytest.mark.parametrize(
    ("engine", "guard"),
    [*(("plain", guard) for guard in SKIPS), ("zero2", "loss"), ("zero2", "gradient_norm"), ("zero3", "gradient_norm"),
     pytest.param("zero3", "reward", marks=pytest.mark.long), pytest.param("zero3", "loss", marks=pytest.mark.long),
     pytest.param("zero2", "reward", marks=pytest.mark.long), pytest.param("zero0", "loss", marks=pytest.mark.long),
     pytest.param("zero0", "gradient_norm", marks=pytest.mark.long),
     pytest.param("zero0-fp32", "loss", marks=pytest.mark.long),
     *(pytest.param("fsdp2", guard, marks=pytest.mark.long) for guard in SKIPS)],
)  # fmt: skip
def test_a_skipped_step_changes_neither_weights_nor_optimizer_state(recipe, engine, guard):
    run, _ = trained(recipe, engine, f"skip-{guard}", *SKIPS[guard], "optimizer.schedule=linear")
    rows = run.metrics()
    assert [row.get(f"guards/{guard}", 0) for row in rows] == [0, 0, 1, 0]
    assert [row.get("skipped_updates", 0) for row in rows] == [0, 0, 1, 0]
    assert [is_unchanged(run, step, step + 1) for step in (1, 2, 3)] == [False, True, False]
    assert rows[2]["update_norm"] == 0.0
    # The schedule goes on, also where DeepSpeed has left the update out by itself.
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert (rows[2]["loss"] is None) == (guard == "loss")
    summary = run.summary()
    assert (summary["guards"][guard], summary["skipped_updates"]) == (1, 1)


@pytest.mark.parametrize(
    "engine",
    ["plain", "zero2", *(pytest.param(name, marks=pytest.mark.long) for name in ("zero3", "zero0", "fsdp2"))],
)
def test_going_back_gives_weights_and_state_of_the_checkpoint_and_goes_on_counting(recipe, engine):
    # By warm-up the update grows with each step: its norm passes the limit in the fourth.
    run, done = trained(
        recipe, engine, "back", "optimizer.warmup_steps=4", "guards.weights={policy: rollback, max_change: 0.002}",
        "algorithm.num_steps=5", "guards.max_rollbacks=1", status=2,
    )  # fmt: skip
    rows = run.metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row.get("rolled_back_to") for row in rows] == [None, None, None, 3]
    assert [is_unchanged(run, step, step + 1) for step in (1, 2, 3)] == [False, False, True]
    assert [row["lr"] for row in rows] == pytest.approx([0.0, 2.5e-4, 5e-4, 7.5e-4])
    assert len({row["prompts_sha256"] for row in rows}) == 4
    line = done.stderr.splitlines()[-1] if engine == "plain" else done.stderr
    assert "guards.weights=rollback, guards.max_rollbacks=1: at step 5 the update's norm is" in line
    assert f"the last sound checkpoint is {run.checkpoints_path / 'checkpoint-4'}" in line
    assert run.stopped()["guard"] == "weights"


@pytest.mark.parametrize("value", [".inf", ".nan", "10**400", "-.inf", "1e30"])
def test_a_reward_that_is_no_number_stops_the_run_and_names_reward_row_and_completion(run_here, value):
    run, _, said = run_here("no-number", f"rewards.0.args={{value: {value}, at: 3}}")
    assert said.startswith("guards.reward=stop: at step 3 rewards.0.fn=digit_share: returned ")
    assert "on row 2 of 16, prompt 'Q: What is" in said
    assert ", completion '" in said
    assert "its update was not made" in said
    assert (
        f"the last sound checkpoint is {run.checkpoints_path / 'checkpoint-2'}; go on with `rl-posttrain train" in said
    )
    assert len(said) < 1000
    assert "\n" not in said
    assert [row["step"] for row in run.metrics()] == [1, 2]
    assert run.stopped() | {"saw": ""} == {
        "step": 3, "guard": "reward", "policy": "stop", "saw": "", "checkpoint": "checkpoint-2",
    }  # fmt: skip


RESUMES = {
    "a reward": (("rewards.0.args={value: .inf, at: 3}",), ("guards.reward=skip_step",)),
    "a rate": (("guards.loss=stop", f"algorithm.name={FAULTS}:NaN"), None),
}


@pytest.mark.parametrize("engine", ["plain", pytest.param("zero2", marks=pytest.mark.long)])
@pytest.mark.parametrize("fault", RESUMES)
def test_the_command_that_a_guard_names_goes_on(recipe, fault, engine, monkeypatch):
    overrides, other = RESUMES[fault]
    run, done = trained(recipe, engine, f"resumed-{len(fault)}", *overrides, "optimizer.schedule=linear", status=2)
    words = shlex.split(re.search(r"go on with `([^`]+)`", done.stderr).group(1))
    arguments = words[words.index("train") :]
    if other is None:  # what the line says: a tenth of the rate; and the algorithm, which the test has spoiled
        arguments += ["algorithm.name=grpo", "--allow-change", "algorithm"]
    else:
        arguments = [*arguments[: arguments.index("--resume") + 1], *other]
    assert run.stopped() is not None
    resumed = run_command(*arguments, processes=ENGINES[engine][0])
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert run.stopped() is None
    factor = 0.1 if other is None else 1.0
    rates = [1e-3, 7.5e-4, factor * 5e-4, factor * 2.5e-4]
    assert [row["lr"] for row in run.metrics()] == pytest.approx(rates)
    assert run.summary()["steps"] == 4


def test_with_warn_the_other_completions_of_the_step_are_trained_on(run_here):
    run, printed, error = run_here("warned", "guards.reward=warn", "rewards.0.args={value: .nan, at: 3}")
    assert error is None
    assert printed.count("guards.reward=warn: at step 3 rewards.0.fn=digit_share: returned nan on row 2 of 16") == 1
    assert [is_unchanged(run, step, step + 1) for step in (1, 2, 3)] == [False, False, False]
    rollout = run.rollouts(3)[2]
    assert rollout["rewards"]["digit_share"] is None
    assert all(row["reward"] is not None for row in run.metrics())


LATE = {
    "lr 1e3": ("optimizer.lr=1e3", "guards.weights=stop: at step 1 the update's norm is "),
    "lr 1e30": ("optimizer.lr=1e30", "guards.weights=stop: at step 1 the update's norm is inf, "),
    "loss": (
        f"algorithm.name={FAULTS}:NaNFrom3",
        "guards.loss=skip_step, guards.max_skips=1: at step 4 neither the loss nor the gradient is finite; "
        "no update for 2 steps in a row",
    ),
    "cold": ("rollout.temperature=1e-6", "guards.equal_completions=stop: at step 3 for 3 steps"),
    "equal": (
        f"rewards.0.fn={FAULTS}:same",
        "guards.no_group_teaches=stop: at step 4 no group has taught anything for 4",
    ),
}


@pytest.mark.parametrize("fault", LATE)
def test_what_cannot_become_better_ends_early_in_one_line(run_here, fault):
    override, said = LATE[fault]
    run, _, error = run_here(
        "late", override, "guards.max_skips=1", "guards.no_group_teaches={warn_steps: 2, steps: 4}",
        *(("rewards.1.weight=0.0",) if fault == "equal" else ()),
    )  # fmt: skip
    assert error is not None
    assert said.rstrip(", ") in error
    assert "\n" not in error
    # A run without a step leaves no folder behind.
    assert run.path.exists() == (not fault.startswith("lr"))


def test_a_guard_that_warns_lets_the_run_go_on_whatever_the_numbers(run_here):
    run, printed, error = run_here("lr-warned", "optimizer.lr=1e30", "guards.weights=warn", "guards.gradient=warn",
                                   "guards.loss=warn", "guards.equal_completions=warn")  # fmt: skip
    assert error is None or "model" in error
    assert "guards.weights=warn: at step 1 the update's norm is inf" in printed
    assert not [folder for folder in run.checkpoint_folders() if any(
        not tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values()
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda tensor: tensor[0].fill_(torch.nan), "numbers of model.layers.0.mlp.up_proj.weight are not finite"),
     (lambda tensor: tensor.zero_(), "all of its matrices are zero, so no gradient reaches them")],
    ids=["nan", "zero"],
)  # fmt: skip
def test_a_model_that_cannot_be_trained_is_refused_before_the_first_step(run_here, tiny_model, tmp_path, spoil, said):
    folder = shutil.copytree(tiny_model, tmp_path / "spoiled")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "zero" in said or "layers.0.mlp.up" in name:
            spoil(tensor)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    run, _, error = run_here("spoiled", f"model.name={folder}")
    assert error.startswith(f"model.name={folder}: ")
    assert said in error
    assert not run.path.exists()


def test_a_step_that_went_wrong_shows_in_the_views():
    row = {"step": 3, "guards/loss": 1, "skipped_updates": 1, "rolled_back_to": 2, "answer/errors": 0.5}
    assert trouble_text(row) == "answer/errors 50.0%  guards/loss  skipped updates 1  back to step 2"
    assert trouble_text({"step": 3}) == ""
    summary = {"guards": {"loss": 3, "truncation": 1}, "skipped_updates": 3, "rollbacks": 1}
    assert guards_text(json.loads(json.dumps(summary))) == (
        "loss 3 times, truncation; 3 updates left out; went back to a checkpoint; metrics.jsonl says in which steps"
    )
    assert guards_text({}) == ""
