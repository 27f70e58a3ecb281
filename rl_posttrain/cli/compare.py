"""`compare`."""

from pathlib import Path
from typing import Annotated

import typer

from rl_posttrain.cli.options import (
    BaselineOption,
    FailedOption,
    JsonOption,
    MarginOption,
    MeasureOption,
    OverridesArgument,
    RangeOption,
    RecipeArgument,
    ThresholdOption,
)
from rl_posttrain.cli.study import write_and_print
from rl_posttrain.errors import Interrupted


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Optimizers, separated by commas; with own arguments as in 'adamw(betas=[0.9,0.95])'. Default: the "
            "recipe's, else adams,adamw.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Seeds, separated by commas. Default: the recipe's, else 0,1,2."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B", help="A recipe key and its values: each makes a variant of every optimizer. Repeatable."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time. On a CPU they share its cores.")] = 1,
    num_processes: Annotated[int, typer.Option(min=1, help="Devices (processes) of each run.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the runs and the report. Default: run.output_dir/NAME-compare."),
    ] = None,
    baseline: BaselineOption = None,
    measure: MeasureOption = "final",
    margin: MarginOption = None,
    threshold: ThresholdOption = None,
    reward_range: RangeOption = None,
    failed: FailedOption = "worst",
    as_json: JsonOption = False,
) -> None:
    """Train with several optimizers and seeds, and report. Only the runs that are missing are trained."""
    from rl_posttrain.cost.refusals import check_training
    from rl_posttrain.recipe.load import load_recipe
    from rl_posttrain.study.equivalence import check_baseline
    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.judging import judge
    from rl_posttrain.study.plan import plan_runs, read_plan
    from rl_posttrain.study.runner import Runner, visible_devices
    from rl_posttrain.study.terms import check_terms, parse_failed, parse_range
    from rl_posttrain.views.comparison import ComparisonDisplay

    terms = {"measure": measure, "margin": margin}
    terms |= {"reward_range": parse_range(reward_range), "failed": parse_failed(failed)}
    check_terms(**terms)  # a mistake shows before hours of training
    loaded = load_recipe(recipe, overrides or [])
    folder = out or loaded.run_path.parent / f"{loaded.run.name}-compare"
    names, numbers, settings = read_plan(loaded, optimizers=optimizers, seeds=seeds, vary=vary or [])
    runs = plan_runs(loaded, names, numbers, settings, folder, num_processes)
    for variant in {run.variant: run.recipe for run in runs}.values():
        check_training(variant, num_processes)
    if baseline is not None:
        check_baseline(baseline, {run.variant for run in runs})
    runner = Runner(runs, jobs=jobs, num_processes=num_processes, devices=visible_devices())
    try:
        with ComparisonDisplay(runs, stderr=as_json) as display:
            runner.run(display.show)
        for name, said in runner.failed.items():
            typer.echo(f"rl-posttrain: {name} failed: {said}", err=True)
        if any(run.steps_done() for run in runs):
            # Runs that never began, or made no step, count as well.
            planned = {run.path: run.recipe.model_dump(mode="json") for run in runs}
            judgement = judge(read_runs([], planned=planned), baseline=baseline, threshold=threshold, **terms)
            write_and_print(judgement, folder / "report", as_json)
    except Interrupted as stopped:
        finished = sum(run.is_finished() for run in runs)
        typer.echo(f"stopped: {finished} of {len(runs)} runs are finished; the same command trains the others")
        raise typer.Exit(stopped.status) from None
    if runner.failed:
        raise typer.Exit(1)
