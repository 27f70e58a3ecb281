"""`curves` and `report`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rl_posttrain.cli.options import (
    BaselineOption,
    FailedOption,
    FigureFormatOption,
    FigureSizeOption,
    GroupOption,
    JsonOption,
    MarginOption,
    MeasureOption,
    PoolTasksOption,
    RangeOption,
    RewardColumnOption,
    RunsArgument,
    StepColumnOption,
    ThresholdOption,
)
from rl_posttrain.errors import RunError
from rl_posttrain.runs.metrics import AXES, plotted

if TYPE_CHECKING:
    from rl_posttrain.study.judging import Judgement
    from rl_posttrain.views.report.figures import FigureFiles

_RELOAD_S = 30  # an open page, while runs go on
_DRAWN_OFTEN = ", ".join(metric.name for metric in plotted("page"))


def curves(
    runs: RunsArgument,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help=f"Metric to draw; may be given several times. Often drawn: {_DRAWN_OFTEN}. docs/metrics.md has all. "
            "Default: reward.",
        ),
    ] = None,
    axis: Annotated[str, typer.Option(help=f"What to draw it against: {', '.join(AXES)}.")] = "step",
    smoothing: Annotated[
        int, typer.Option(min=1, help="Number of steps of the trailing mean; 1 draws every value as it is.")
    ] = 1,
    every_run: Annotated[
        bool, typer.Option("--every-run", help="Draw a line per run, also where variants have several seeds.")
    ] = False,
    pool_tasks: PoolTasksOption = False,
    reward_column: RewardColumnOption = None,
    step_column: StepColumnOption = None,
    group: GroupOption = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Draw again as runs go on and new ones appear in a named folder, until all have ended."
        ),
    ] = False,
) -> None:
    """Draw the curves of runs in the terminal. Judge variants where they have several seeds."""
    from rl_posttrain.study.following import Follower
    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.several_tasks import judge_runs
    from rl_posttrain.views import terminal
    from rl_posttrain.views.following import follow_curves
    from rl_posttrain.views.text import make_console

    if axis not in AXES:
        raise RunError(f"--axis={axis}: no such axis; set one of {', '.join(AXES)}")
    console = make_console()
    drawn = {"keys": key or ["reward"], "axis": axis, "smoothing": smoothing, "every_run": every_run}
    reading = {
        "pool_tasks": pool_tasks,
        "reward_column": reward_column,
        "step_column": step_column,
        "group": group,
    }
    collection = (
        follow_curves(Follower(runs, **reading), **drawn, console=console) if follow else read_runs(runs, **reading)
    )
    terminal.print_curves(collection, **drawn, console=console)
    if collection.is_study and not every_run:
        terminal.print_verdicts(judge_runs(collection), console)
    else:
        terminal.print_runs(collection, console)
        terminal.print_notices(terminal.unfinished_and_left_out(collection), console)


def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the page and its figures.")],
    baseline: BaselineOption = None,
    measure: MeasureOption = "final",
    margin: MarginOption = None,
    threshold: ThresholdOption = None,
    reward_range: RangeOption = None,
    failed: FailedOption = "worst",
    planned_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps that each run of another program was to make: shorter ones failed, later steps are left out. "
            "Default: what its file says, else those of the longest run.",
        ),
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired", help="Runs of one seed are pairs, too, where nothing shows that they had the same prompts."
        ),
    ] = False,
    pool_tasks: PoolTasksOption = False,
    reward_column: RewardColumnOption = None,
    step_column: StepColumnOption = None,
    group: GroupOption = None,
    figure_format: FigureFormatOption = "png",
    figure_size: FigureSizeOption = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Write the page again as runs go on, until all have ended; an open page loads itself again.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge variants over seeds, and write a page.

    The page has charts, tables and samples, and works offline. Failed runs count as the worst reward; a variant of
    which a run still trains has no verdict.
    """
    from functools import partial

    from rl_posttrain.study.designs import as_compared
    from rl_posttrain.study.following import Follower
    from rl_posttrain.study.histories import read_runs
    from rl_posttrain.study.several_tasks import judge_runs
    from rl_posttrain.study.terms import parse_failed, parse_range
    from rl_posttrain.views.following import watched
    from rl_posttrain.views.report.figures import parse_figures
    from rl_posttrain.views.text import make_console

    figures = parse_figures(figure_format, figure_size)
    reading = {
        "planned_steps": planned_steps,
        "pool_tasks": pool_tasks,
        "reward_column": reward_column,
        "step_column": step_column,
        "group": group,
    }
    judged = partial(
        judge_runs,
        baseline=baseline,
        measure=measure,
        margin=margin,
        threshold=threshold,
        reward_range=parse_range(reward_range),
        failed=parse_failed(failed),
        paired=paired,
    )
    if watch:
        follower = Follower(runs, **reading)
        write = partial(_write_files, out=out, figures=figures, reload_s=_RELOAD_S)
        collection = watched(
            follower, lambda found: write(as_compared(judged(found), runs))[0], make_console(stderr=as_json)
        )
    else:
        collection = read_runs(runs, **reading)
    write_and_print(as_compared(judged(collection), runs), out, as_json, figures)


def write_and_print(judgement: "Judgement", out: Path, as_json: bool, figures: "FigureFiles") -> None:
    """Write the report on a judgement into `out`, and print the verdicts, as text or as JSON."""
    from rich.console import Console

    from rl_posttrain.views.terminal import print_verdicts

    page, *others = _write_files(judgement, out, figures)
    if as_json:
        files = {"report": str(page), "files": [str(path) for path in others]}
        typer.echo(json.dumps(judgement.as_dict() | files, indent=2))
        return
    print_verdicts(judgement, Console())
    typer.echo(f"\nreport  {page}\nbeside  {', '.join(path.name for path in others)}")


def _write_files(judgement: "Judgement", out: Path, figures: "FigureFiles", reload_s: int | None = None) -> list[Path]:
    import shlex

    from rl_posttrain.views.report import write_report

    command = shlex.join(["rl-posttrain", *sys.argv[1:]])
    return write_report(judgement, out, command=command, figures=figures, reload_s=reload_s)
