"""What `rl-posttrain train` prints when a run has ended: the curve, samples of the last step, and what to try next."""

from rich.console import Console
from rich.text import Text

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.histories import read_runs
from rl_posttrain.views.terminal import print_curves, print_runs
from rl_posttrain.views.text import as_text, shown, tail

_MOST_CHARACTERS = 160


def print_closing(run: RunDirectory, recipe: str) -> None:
    """Print the end of a run.

    Args:
        recipe: how the user named the recipe, for the commands to try next.
    """
    console = Console()
    collection = read_runs([run.path])
    print_curves(collection, console=console)
    print_runs(collection, console)
    rows = run.metrics()
    num_samples = run.recipe()["logging"]["print_samples"]
    if num_samples:
        console.print(f"\nsamples of step {rows[-1]['step']}", style="bold")
        for rollout in run.rollouts(rows[-1]["step"])[:num_samples]:
            for name in ("prompt", "completion", "answer"):
                console.print(Text(f"  {name:<10}  {tail(as_text(rollout[name]), _MOST_CHARACTERS)}"))
            console.print(Text(f"  reward      {shown(rollout, 'reward', '.2f')}\n"))
    console.print(f"run directory  {run.path}", highlight=False)
    console.print("\ntry next", style="bold")
    for command, meaning in _next_commands(run, recipe):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
        console.print(f"      {meaning}", style="dim", highlight=False)


def _next_commands(run: RunDirectory, recipe: str) -> list[tuple[str, str]]:
    other = "adamw" if run.recipe()["optimizer"]["name"] == "adams" else "adams"
    name = f"{run.name}-{other}"
    return [
        (f"rl-posttrain train {recipe} optimizer.name={other} run.name={name}", f"the same run under {other}"),
        (f"rl-posttrain curves {run.path} {run.path.parent / name}", "both curves in the terminal"),
        (f"rl-posttrain check {recipe}", "every key of the recipe, its sizes and its memory"),
        (f"tensorboard --logdir {run.path.parent}", "every metric in a browser"),
    ]
