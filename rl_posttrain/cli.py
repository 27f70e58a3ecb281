"""The commands, a thin function each; heavy imports happen inside."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rl_posttrain.errors import RlPosttrainError, RunError

app = typer.Typer(
    help="R1-Zero style RL post-training from a YAML recipe.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a bundled recipe.")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as optimizer.lr=1e-6.")
]
RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run directories, folders of them, trainer_state.json, CSV.")
]
optim = typer.Typer(help="Optimizers: what there is, and what a step costs.", rich_markup_mode=None)
app.add_typer(optim, name="optim")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

# Its public subclass is the one way to this class that every version of typer has.
_UsageError = typer.BadParameter.__base__


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of this name from its last checkpoint.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what vLLM, DeepSpeed and transformers log.")] = False,
) -> None:
    """Train a model as a recipe says."""
    from rl_posttrain.environment import is_main_process
    from rl_posttrain.recipe import load_recipe
    from rl_posttrain.training import train as run_recipe

    loaded = load_recipe(recipe, overrides or [])
    run = run_recipe(loaded, resume=resume, display=True, verbose=verbose)
    if is_main_process():
        from rl_posttrain.closing import print_closing

        print_closing(run, recipe)


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    num_processes: Annotated[int, typer.Option(min=1, help="Devices to size the run for.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Show the resolved recipe, its derived sizes and predicted memory; loads no model and runs nothing."""
    from rl_posttrain.check import check_recipe, print_check
    from rl_posttrain.recipe import load_recipe

    result = check_recipe(load_recipe(recipe, overrides or []), num_processes)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_check(result)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can run, and what is missing, with the fix."""
    from rl_posttrain import doctor as machine

    checks = machine.checks()
    if as_json:
        typer.echo(json.dumps([vars(item) for item in checks], indent=2))
    else:
        width = max(len(item.name) for item in checks)
        for item in checks:
            typer.echo(f"{item.status:<7}  {item.name:<{width}}  {item.found}")
            if item.fix:
                typer.echo(f"{'':7}  {'':{width}}  fix: {item.fix}")
    if not machine.ok(checks):
        raise typer.Exit(1)


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """List the bundled recipes, a line each."""
    from rl_posttrain.recipe import bundled_recipes, headline

    heads = {name: headline(path) for name, path in bundled_recipes().items()}
    if as_json:
        typer.echo(json.dumps(heads, indent=2))
        return
    width = max(map(len, heads))
    for name, text in heads.items():
        typer.echo(f"{name:<{width}}  {text}")


@app.command()
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

    from rl_posttrain import terminal
    from rl_posttrain.histories import read_runs
    from rl_posttrain.judging import judge

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


MeasureOption = Annotated[str, typer.Option(help="What the verdict is about: final, auc or best reward.")]
MarginOption = Annotated[
    float | None, typer.Option(help="Differences below it do not matter; 0.05 of the reward range if not given.")
]
ThresholdOption = Annotated[
    float | None, typer.Option(help="Reward to which steps are counted; the middle of the reward range if not given.")
]
BaselineOption = Annotated[str | None, typer.Option(help="The variant that others are compared with; adamw if there.")]


@app.command()
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
    from rl_posttrain.histories import read_runs
    from rl_posttrain.judging import judge

    judgement = judge(read_runs(runs), baseline=baseline, measure=measure, margin=margin, threshold=threshold)
    _report(judgement, out, as_json)


@app.command()
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
    from rl_posttrain.compare import Runner, plan_runs, read_plan, visible_devices
    from rl_posttrain.comparison_display import ComparisonDisplay
    from rl_posttrain.equivalence import check_baseline
    from rl_posttrain.histories import read_runs, recipe_labels
    from rl_posttrain.judging import check_terms, judge
    from rl_posttrain.recipe import load_recipe

    check_terms(measure, margin)  # before hours of running
    loaded = load_recipe(recipe, overrides or [])
    folder = out or Path(loaded.run.output_dir) / f"{loaded.run.name}-compare"
    names, numbers, settings = read_plan(loaded, optimizers=optimizers, seeds=seeds, vary=vary or [])
    runs = plan_runs(loaded, names, numbers, settings, folder, num_processes)
    if baseline is not None:
        check_baseline(baseline, recipe_labels([run.recipe.model_dump(mode="json") for run in runs]))
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

    from rl_posttrain.report import write_report
    from rl_posttrain.terminal import print_verdicts

    page = write_report(judgement, out, command=shlex.join(["rl-posttrain", *sys.argv[1:]]))
    if as_json:
        typer.echo(json.dumps(judgement.as_dict() | {"report": str(page)}, indent=2))
        return
    print_verdicts(judgement, Console())
    typer.echo(f"\nreport  {page}")


@optim.command("list")
def list_optimizers(as_json: JsonOption = False) -> None:
    """List the built-in optimizers: name, class, package, and what each is."""
    from rl_posttrain.optim.table import describe_optimizers

    rows = describe_optimizers()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width, class_width = max(map(len, rows)), max(len(row["class"]) for row in rows.values())
    for name, row in rows.items():
        package = row["package"] if row["installed"] else f"{row['package']} (missing)"
        typer.echo(f"{name:<{width}}  {row['class']:<{class_width}}  {package}")
        typer.echo(f"{'':<{width}}  {row['about']}")


@optim.command("memory")
def optimizer_memory(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A published size, the bundled model, a folder, a hub name.")
    ],
    optimizers: Annotated[str, typer.Option(help="Names, with commas; adamw is always there.")] = "adams,adamw,scale",
    zero_stage: Annotated[str, typer.Option(help="DeepSpeed's: 0 to 3; none is plain PyTorch, without masters.")] = "2",
    num_processes: Annotated[int, typer.Option(min=1, help="Devices.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the weights: bfloat16 or float32.")] = "bfloat16",
    offload: Annotated[bool, typer.Option("--offload", help="Masters and state in host memory.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Also take one real step with each, and count.")] = False,
    as_json: JsonOption = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw bars there.")] = None,
) -> None:
    """Predict the bytes of weights, gradients, masters and optimizer state on each device, and measure them."""
    from rl_posttrain.memory import memory_of, print_memory

    result = memory_of(
        model,
        optimizers.split(","),
        zero_stage=zero_stage,
        num_processes=num_processes,
        dtype=dtype,
        offload=offload,
        measure=measure,
    )
    if plot is not None:
        from rl_posttrain.plots import plot_memory

        plot_memory(result, plot)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_memory(result)


@optim.command("bench")
def bench_optimizers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Whose parameter shapes.")] = "smollm2-135m",
    optimizers: Annotated[str, typer.Option(help="Names, with commas.")] = "adams,adamw,scale,sgd",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of weights and gradients: float32 or bfloat16.")] = "float32",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 15,
    as_json: JsonOption = False,
) -> None:
    """Time a step of each optimizer, beside torch's fused AdamW."""
    from rl_posttrain.optim.bench import bench, print_bench

    result = bench(model, optimizers.split(","), device=device, dtype=dtype, num_steps=steps)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_bench(result)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    try:
        sys.exit(app(args=sys.argv[1:] or ["--help"], prog_name="rl-posttrain", standalone_mode=False))
    except RlPosttrainError as error:
        _fail(str(error))
    except _UsageError as error:
        message = error.format_message().rstrip(".?").replace(". Did", ", did")
        _fail(f"{message[0].lower()}{message[1:]}; see `{error.ctx.command_path} --help`")


def _fail(message: str) -> None:
    typer.echo(f"rl-posttrain: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
