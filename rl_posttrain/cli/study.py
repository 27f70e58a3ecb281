"""`curves`, `report` and `compare`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rl_posttrain.cli.options import (
    BaselineOption,
    JsonOption,
    MarginOption,
    MeasureOption,
    OverridesArgument,
    RecipeArgument,
    RunsArgument,
    ThresholdOption,
)
from rl_posttrain.errors import RunError


def curves(
    runs: RunsArgument,
    key: Annotated[list[str] | None, typer.Option(help="Metric to draw, repeatable; see docs/metrics.md.")] = None,
    axis: Annotated[str, typer.Option(help="What to draw it against: step, tokens or seconds.")] = "step",
    smoothing: Annotated[int, typer.Option(min=1, help="Steps of the trailing mean.")] = 1,
    every_run: Annotated[
        bool, typer.Option("--every-run", help="A line a run, also where variants have several seeds.")
    ] = False,
) -> None:
    """Draw the curves of runs in the terminal; also of runs that are still going on, and of runs made elsewhere."""
    from rich.console import Console

    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.judging import judge
    from rl_posttrain.views import terminal

    if axis not in terminal.AXES:
        raise RunError(f"--axis={axis}: no such axis; set one of {', '.join(terminal.AXES)}")
    console, collection = Console(), read_runs(runs)
    terminal.print_curves(
        collection, keys=key or ["reward"], axis=axis, smoothing=smoothing, every_run=every_run, console=console
    )
    if collection.is_study and not every_run:
        terminal.print_verdicts(judge(collection), console)
    else:
        terminal.print_runs(collection, console)
        terminal.print_notices(terminal.going_on(collection), console)


def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page and its figures go.")],
    baseline: BaselineOption = None,
    measure: MeasureOption = "final",
    margin: MarginOption = None,
    threshold: ThresholdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge runs and write a page about them, with figures; also of runs that go on, and of runs made elsewhere."""
    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.judging import judge

    judgement = judge(read_runs(runs), baseline=baseline, measure=measure, margin=margin, threshold=threshold)
    _report(judgement, out, as_json)


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    optimizers: Annotated[
        str | None, typer.Option(help="Names with commas; own arguments as in 'adamw(betas=[0.9,0.95])'.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Numbers with commas; 0,1,2 if not given.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(metavar="KEY=A,B", help="A recipe key and its values, with every optimizer.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; on a CPU they share its cores.")] = 1,
    num_processes: Annotated[int, typer.Option(min=1, help="Devices of each run.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Runs and report; run.output_dir/NAME-compare if not given.")
    ] = None,
    baseline: BaselineOption = None,
    measure: MeasureOption = "final",
    margin: MarginOption = None,
    threshold: ThresholdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe under several optimizers and seeds, what is missing of it, and report."""
    from rl_posttrain.recipe.load import load_recipe
    from rl_posttrain.study.equivalence import check_baseline
    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.judging import check_terms, judge
    from rl_posttrain.study.plan import plan_runs, read_plan
    from rl_posttrain.study.runner import Runner, visible_devices
    from rl_posttrain.views.comparison import ComparisonDisplay

    check_terms(measure, margin)  # before hours of running
    loaded = load_recipe(recipe, overrides or [])
    folder = out or Path(loaded.run.output_dir) / f"{loaded.run.name}-compare"
    names, numbers, settings = read_plan(loaded, optimizers=optimizers, seeds=seeds, vary=vary or [])
    runs = plan_runs(loaded, names, numbers, settings, folder, num_processes)
    if baseline is not None:
        check_baseline(baseline, {run.variant for run in runs})
    runner = Runner(runs, jobs=jobs, num_processes=num_processes, devices=visible_devices())
    try:
        with ComparisonDisplay(runs, stderr=as_json) as display:
            runner.run(display.show)
        for name, said in runner.failed.items():
            typer.echo(f"rl-posttrain: {name} failed: {said}", err=True)
        paths = [run.path for run in runs if run.steps_done()]
        if paths:
            terms = {"baseline": baseline, "measure": measure, "margin": margin, "threshold": threshold}
            _report(judge(read_runs(paths), **terms), folder / "report", as_json)
    except KeyboardInterrupt:
        finished = sum(run.is_finished() for run in runs)
        typer.echo(f"stopped: {finished} of {len(runs)} runs are finished; the same command goes on with the rest")
        raise typer.Exit(130) from None
    if runner.failed:
        raise typer.Exit(1)


def _report(judgement, out: Path, as_json: bool) -> None:
    import shlex

    from rich.console import Console

    from rl_posttrain.views.report import write_report
    from rl_posttrain.views.terminal import print_verdicts

    page = write_report(judgement, out, command=shlex.join(["rl-posttrain", *sys.argv[1:]]))
    if as_json:
        typer.echo(json.dumps(judgement.as_dict() | {"report": str(page)}, indent=2))
        return
    print_verdicts(judgement, Console())
    typer.echo(f"\nreport  {page}")
