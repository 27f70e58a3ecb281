"""What `rl-posttrain train` prints when a run has ended: the curve, samples of the last step, and what to try next."""

import shlex

from rich.console import Console
from rich.text import Text

from rl_posttrain.runs.card import ask_in_python
from rl_posttrain.runs.commands import is_on_several_machines, launcher
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.plan import optimizer_override
from rl_posttrain.views.evaluation import print_before_and_after
from rl_posttrain.views.terminal import print_curves, print_runs
from rl_posttrain.views.text import as_text, shown, tail

_MOST_CHARACTERS = 160
_LONGEST_CODE = 1000  # a longer prompt would fill the screen; the model's README.md has it


def print_closing(run: RunDirectory) -> None:
    """Print the end of a run: its curve and table, `logging.print_samples` completions, and commands to try next."""
    console = Console()
    collection = read_runs([run.path])
    print_curves(collection, console=console)
    print_runs(collection, console)
    if stopped := (run.summary() or {}).get("stopped_early"):
        console.print(Text(f"\nstopped early at {stopped}"), soft_wrap=True)
    if guards := guards_text(run.summary() or {}):
        console.print(Text(f"\nguards: {guards}", style="red"), soft_wrap=True)
    last_step = run.last_row()["step"]
    print_before_and_after(run, last_step, console)
    if num_samples := run.recipe()["logging"]["print_samples"]:
        console.print(Text(f"\nsamples of step {last_step}", style="bold"))
        for rollout in run.rollouts(last_step)[:num_samples]:
            for name in ("prompt", "completion", "answer"):
                console.print(Text(f"  {name:<10}  {tail(as_text(rollout[name]), _MOST_CHARACTERS)}"))
            console.print(Text(f"  reward      {shown(rollout, 'reward', '.2f')}\n"))
    console.print(Text(f"run directory  {run.path}"), soft_wrap=True)
    if run.recipe()["checkpoint"]["every_steps"] == 0:
        console.print(Text("checkpoints    none at regular steps (checkpoint.every_steps=0)"), soft_wrap=True)
    console.print(Text("\ntry next", style="bold"))
    for command, meaning in next_commands(run):
        console.print(Text(f"  {command}"), soft_wrap=True)
        console.print(Text(f"      {meaning}", style="dim"), soft_wrap=True)


def guards_text(summary: dict) -> str:
    """What guards saw and did in a run, from its summary; empty if nothing."""
    seen = [f"{name} {count} times" if count > 1 else name for name, count in summary.get("guards", {}).items()]
    found = [", ".join(seen)] if seen else []
    if left_out := summary.get("skipped_updates"):
        found.append(f"{left_out} update{'s' * (left_out > 1)} left out")
    if returns := summary.get("rollbacks"):
        found.append("went back to a checkpoint" + (f" {returns} times" if returns > 1 else ""))
    return "; ".join([*found, "metrics.jsonl says in which steps"]) if found else ""


def next_commands(run: RunDirectory) -> list[tuple[str, str]]:
    """Commands to try after a run, ready to be pasted into a shell, each with what it does.

    They start from the run's own recipe.yaml. It has every key of the run, so they repeat this very run, whether it was
    started with overrides, with `--resume`, from a recipe at some path, or from Python.
    """
    recipe, file = run.recipe(), str(run.path / "recipe.yaml")
    optimizer = recipe["optimizer"]["name"]
    other = "adamw" if optimizer == "adams" else "adams"
    name = f"{run.name}-{other}"
    launcher, devices, hint = _processes(run)
    train = [*launcher, "train", file, optimizer_override(recipe, other), f"run.name={name}"]
    compare = ["rl-posttrain", "compare", file, "--optimizers", f"{optimizer},{other}", "--seeds", "0,1,2", *devices]
    curves = ["rl-posttrain", "curves", str(run.path), str(run.path.parent / name)]
    check = ["rl-posttrain", "check", file, *devices]
    if (run.path.parent / name).exists():
        commands = [(curves, f"this run's curve beside that of {name}")]
    else:
        commands = [(train, f"this run again with {other}{hint}"), (curves, "after that: both curves")]
    commands += [
        (compare, "three seeds of each, and a verdict on which is better"),
        (check, "every key of the recipe, its derived sizes and predicted memory"),
    ]
    commands += _for_the_model(run)
    if "tensorboard" in recipe["logging"]["trackers"]:
        commands.append((["tensorboard", "--logdir", str(run.path.parent)], "every metric in a browser"))
    return [(shlex.join(words), meaning) for words, meaning in commands]


def _for_the_model(run: RunDirectory) -> list[tuple[list[str], str]]:
    """How to ask the trained model a question, and how to get it as a folder."""
    commands, step = [], run.last_row()["step"]
    if run.final_model_path.is_dir():
        code = "; ".join(ask_in_python(run, step, str(run.final_model_path)))
        if len(code) <= _LONGEST_CODE:
            commands.append((["python", "-c", code], "ask the trained model one of its questions"))
    export = ["rl-posttrain", "export", str(run.path), "--to", f"models/{run.name}"]
    folder = "a folder for transformers, `vllm serve` and the hub, with a model card"
    if run.best() is not None:
        commands.append(([*export, "--best"], f"the checkpoint of step {run.best()['step']}, the best, as {folder}"))
    elif run.final_model_path.is_dir() or run.checkpoints():
        commands.append((export, f"the trained model as {folder}"))
    return commands


def _processes(run: RunDirectory) -> tuple[list[str], list[str], str]:
    """How to use as many processes as this run had: what starts `train`, the option of other commands, and a hint."""
    number = run.environment().get("num_processes", 1)
    if number == 1:
        return launcher(1), [], ""
    devices = ["--num-processes", str(number)]
    if is_on_several_machines(number):
        return ["rl-posttrain"], devices, f"; start it on {number} processes, with torchrun as you started this run"
    return launcher(number), devices, ""
