"""`train`, `check` and `recipes`."""

import json
from typing import Annotated

import typer

from rl_posttrain.cli.options import (
    JsonOption,
    OverridesArgument,
    RecipeArgument,
)
from rl_posttrain.errors import RunError


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run of this name from its last checkpoint; without run.name, the newest unfinished run "
            "of this recipe.",
        ),
    ] = False,
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="Start the run of this name, or continue it where there is one: the same command each time, as for "
            "Slurm's requeue. A finished run stays as it is.",
        ),
    ] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(help="With --resume: a section or key of the recipe that may differ from before; repeatable."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the logs of vLLM, DeepSpeed and transformers.")
    ] = False,
) -> None:
    """Train a model as a recipe says. The results go into run.output_dir/run.name."""
    from rl_posttrain.machine.process import is_main_process
    from rl_posttrain.recipe.load import load_recipe, names_its_run
    from rl_posttrain.runs.directory import RunDirectory
    from rl_posttrain.training.newest import newest_unfinished
    from rl_posttrain.training.train import train as run_recipe
    from rl_posttrain.views.live import make_display

    if allow_change and not (resume or auto_resume):
        raise RunError(f"--allow-change={allow_change[0]}: a new run has nothing to compare with; add --resume")
    loaded = load_recipe(recipe, overrides or [])
    if auto_resume:
        resume = RunDirectory.is_at(loaded.run_path)
        if not is_main_process():  # the main one may just have made it; what is written last tells
            resume = resume and bool(RunDirectory(loaded.run_path).environment())
    elif resume and not names_its_run(recipe, overrides or []):
        loaded = newest_unfinished(loaded, allow_change or ())
        if is_main_process():
            typer.echo(f"resuming {loaded.run_path}")
    run = run_recipe(loaded, resume=resume, allow_change=allow_change or (), display=make_display, verbose=verbose)
    if is_main_process():
        if run.summary() is None:  # status 0 says that the run is finished
            raise RunError(f"run.name={run.name}: {run.path} has no summary.json at its end; resume it with --resume")
        from rl_posttrain.views.closing import print_closing

        print_closing(run)


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    num_processes: Annotated[int, typer.Option(min=1, help="Devices (processes) that the run will have.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(help="Predict memory and seconds for this device, by its published speeds: h100, a100, l4, ..."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="With --device: nodes that the processes are in.")] = 1,
    devices_per_server: Annotated[
        int, typer.Option(min=1, help="With --device: devices of each of rollout.servers, by tensor parallelism.")
    ] = 1,
    measure_speed: Annotated[
        bool,
        typer.Option("--measure-speed", help="Predict seconds on this machine's CPUs, whose speed it measures first."),
    ] = False,
    mean_new_tokens: Annotated[
        float | None,
        typer.Option(min=1, help="Tokens of a completion in the mean. Default: all have rollout.max_new_tokens."),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a prompt. Default: those of the longest one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole recipe, its derived sizes and predicted memory. Loads no model and trains nothing."""
    from rl_posttrain.cost.check import check_recipe
    from rl_posttrain.cost.placed import Where
    from rl_posttrain.recipe.load import load_recipe
    from rl_posttrain.views.check import print_check

    where = Where(device, nodes, measure_speed, devices_per_server, prompt_tokens, mean_new_tokens)
    result = check_recipe(load_recipe(recipe, overrides or []), num_processes, where)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_check(result)


def recipes(as_json: JsonOption = False) -> None:
    """List the bundled recipes, one per line: what each shows, and which recipe it extends."""
    from rl_posttrain.recipe.files import bundled_recipes, extended_by, headline

    files = bundled_recipes()
    found = {name: {"shows": headline(path), "extends": extended_by(path)} for name, path in files.items()}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, recipe in found.items():
        parent = f" Extends {recipe['extends']}." if recipe["extends"] else ""
        typer.echo(f"{name:<{width}}  {recipe['shows']}{parent}")
