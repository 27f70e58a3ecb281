"""`compare`."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rl_posttrain.cli.options import (
    BaselineOption,
    FailedOption,
    FigureFormatOption,
    FigureSizeOption,
    JsonOption,
    MarginOption,
    MeasureOption,
    OverridesArgument,
    RangeOption,
    RecipeArgument,
    ThresholdOption,
)
from rl_posttrain.cli.study import write_and_print
from rl_posttrain.errors import Interrupted, RecipeError

if TYPE_CHECKING:
    from rl_posttrain.study.judging import Judgement
    from rl_posttrain.study.plan import PlannedRun
    from rl_posttrain.study.search import Search


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
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B",
            help="Choose the best value of a key for each variant first, on seeds of their own; x0.3,x1,x3 are factors "
            "of the variant's own value. Several make the product grid.",
        ),
    ] = None,
    tune_seeds: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Seeds to choose on, none of them in --seeds. Default: 100,101."),
    ] = None,
    tune_widen: Annotated[
        int | None,
        typer.Option(
            min=0, help="How often a grid may be widened whose best value is at its edge, for all variants. Default: 2."
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Add seeds until every variant is decided, at looks that are fixed before and share one level.",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None,
        typer.Option(help="Most seeds of --until-decided: from 0 on, or --seeds and those after. Default: 20."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at the same time; on a CPU they share its cores. Default: 1; with --launcher slurm any number.",
        ),
    ] = None,
    num_processes: Annotated[int, typer.Option(min=1, help="Devices (processes) of each run.")] = 1,
    launcher: Annotated[
        Literal["local", "slurm"],
        typer.Option(
            help="slurm trains nothing here: it writes an array job, one run a task, and says how to send it."
        ),
    ] = "local",
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
    figure_format: FigureFormatOption = "png",
    figure_size: FigureSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train with several optimizers and seeds, and report. Only the runs that are missing are trained."""
    from rl_posttrain.recipe.load import load_recipe
    from rl_posttrain.study.plan import plan_seeds, plan_variants, read_plan, read_seeds
    from rl_posttrain.study.search import Search
    from rl_posttrain.study.sequential import MAX_SEEDS, sequence_of_seeds
    from rl_posttrain.study.terms import check_terms, parse_failed, parse_range
    from rl_posttrain.study.tuning import WIDENINGS, read_tuning
    from rl_posttrain.views.report.figures import parse_figures

    figures = parse_figures(figure_format, figure_size)
    terms = {"measure": measure, "margin": margin}
    terms |= {"reward_range": parse_range(reward_range), "failed": parse_failed(failed)}
    check_terms(**terms, threshold=threshold)  # a mistake shows before hours of training
    _refuse_alone({"--tune-seeds": tune_seeds, "--tune-widen": tune_widen}, "--tune", tune)
    _refuse_alone({"--max-seeds": max_seeds}, "--until-decided", until_decided)
    loaded = load_recipe(recipe, overrides or [])
    folder = out or loaded.run_path.parent / f"{loaded.run.name}-compare"
    if launcher == "slurm" and (tune or until_decided):
        option = "--tune" if tune else "--until-decided"
        raise RecipeError(
            f"--launcher=slurm: {option} chooses runs by the results of earlier ones, and an array job has all "
            f"of its runs from its beginning; leave out {option}, or --launcher"
        )
    names, numbers, settings = read_plan(loaded, optimizers=optimizers, seeds=seeds, vary=vary or [])
    pairs = list(itertools.product(names, settings))
    max_seeds = MAX_SEEDS if max_seeds is None else max_seeds
    first = read_seeds(seeds, "--seeds") if seeds is not None else []
    comparison = Comparison(folder, jobs or 1, num_processes, {**terms, "threshold": threshold}, stderr=as_json)
    try:
        if tune:
            judging = sequence_of_seeds(first, max_seeds, ()) if until_decided else numbers
            tuning = read_tuning(tune, tune_seeds, judging, WIDENINGS if tune_widen is None else tune_widen)
            search = Search(tuning, loaded, pairs, folder, measure=measure, num_processes=num_processes)
            comparison.check_baseline(baseline, search.names)
            variants = comparison.tune(search)
            baseline = baseline and search.chosen_of(baseline)
        else:
            variants = plan_variants(loaded, pairs, num_processes)
            comparison.check_baseline(baseline, variants)
        if until_decided:
            excluded = tuning.seeds if tune else ()
            judgement = comparison.until_decided(variants, baseline, first, max_seeds, excluded)
        else:
            runs = plan_seeds(variants, numbers, folder)
            if launcher == "slurm" and comparison.leave_to_slurm(runs, jobs):
                return
            comparison.train(runs)
            judgement = comparison.judge(runs, baseline)
        if judgement is not None:
            write_and_print(comparison.described(judgement), folder / "report", as_json, figures)
    except Interrupted as stopped:
        typer.echo(comparison.state())
        raise typer.Exit(stopped.status) from None
    if comparison.failed:
        raise typer.Exit(1)


class Comparison:
    """A comparison in a folder: it trains what is missing, and judges.

    Args:
        terms: of `judge`, all but the baseline.
        stderr: show progress on the standard error.
    """

    def __init__(self, folder: Path, jobs: int, num_processes: int, terms: dict[str, Any], *, stderr: bool):
        self._folder, self._jobs, self._num_processes = folder, jobs, num_processes
        self._terms, self._stderr = terms, stderr
        self._part: Sequence[PlannedRun] = ()
        self._tuned = self._monitor = None
        self.failed: dict[str, str] = {}

    @staticmethod
    def check_baseline(baseline: str | None, names: Sequence[str]) -> None:
        from rl_posttrain.study.equivalence import check_baseline

        if baseline is not None:
            check_baseline(baseline, names)

    def train(self, runs: "Sequence[PlannedRun]", title: str = "") -> None:
        """Train the runs that are missing; say which failed."""
        from rl_posttrain.study.notices import short_last_tenth
        from rl_posttrain.study.runner import Runner, visible_devices
        from rl_posttrain.views.comparison import ComparisonDisplay

        self._check(runs)
        runner = Runner(runs, jobs=self._jobs, num_processes=self._num_processes, devices=visible_devices())
        if not self._part and self._terms["measure"] == "final":
            self._say({short_last_tenth(run.num_steps): None for run in runs})
        self._part = runs
        with ComparisonDisplay(runs, jobs=self._jobs, title=title, stderr=self._stderr) as display:
            runner.run(display.show)
        for name, said in runner.failed.items():
            typer.echo(f"rl-posttrain: {name} failed: {said}", err=True)
        self.failed |= runner.failed

    def leave_to_slurm(self, runs: "Sequence[PlannedRun]", jobs: int | None) -> bool:
        """Write the array job of the runs that are missing, and say so; False if none is."""
        from rl_posttrain.study.slurm import leave_to_slurm

        self._check(runs)
        said = leave_to_slurm(runs, self._folder, jobs=jobs, num_processes=self._num_processes, command=sys.argv[1:])
        self._say(said)
        return bool(said)

    def _check(self, runs: "Sequence[PlannedRun]") -> None:
        from rl_posttrain.cost.refusals import check_training

        for recipe in {run.variant: run.recipe for run in runs}.values():
            check_training(recipe, self._num_processes)

    def judge(self, runs: "Sequence[PlannedRun]", baseline: str | None = None) -> "Judgement | None":
        """Judge the runs, those that never began or made no step, too; None where none made a step."""
        from rl_posttrain.study.histories import read_runs
        from rl_posttrain.study.judging import judge

        if not any(run.steps_done() for run in runs):
            return None
        planned = {run.path: run.recipe.model_dump(mode="json") for run in runs}
        return judge(read_runs([], planned=planned), baseline=baseline, **self._terms)

    def tune(self, search: "Search") -> dict[str, Any]:
        """Find the best trial of each variant; the recipes of these by their names."""
        while search.is_open:
            runs = search.runs()
            self.train(runs, search.title())
            search.look(self.judge(runs))
            self._say(search.found())
        self._tuned = search.result
        return search.chosen()

    def until_decided(
        self,
        variants: dict[str, Any],
        baseline: str | None,
        first: Sequence[int],
        max_seeds: int,
        excluded: Sequence[int],
    ) -> "Judgement | None":
        """Train and judge look by look; the judgement of all runs, or None where none made a step."""
        from rl_posttrain.study.judging import default_baseline
        from rl_posttrain.study.monitor import make_plan, open_monitor, write_monitor
        from rl_posttrain.study.plan import plan_seeds
        from rl_posttrain.study.terms import margin_before_runs

        recipes = {name: recipe.model_dump(mode="json") for name, recipe in variants.items()}
        baseline = baseline or default_baseline(recipes)
        terms = self._terms
        terms["margin"] = margin_before_runs(recipes.values(), terms["margin"], terms["reward_range"])
        plan = make_plan(
            list(variants), baseline, self._folder, first=first, max_seeds=max_seeds, measure=terms["measure"],
            margin=terms["margin"], excluded=excluded,
        )  # fmt: skip
        monitor = self._monitor = open_monitor(plan, self._folder)
        self._say([plan.words()])

        def runs_at(names: Sequence[str], number: int) -> "list[PlannedRun]":
            return plan_seeds({name: variants[name] for name in names}, plan.seeds[:number], self._folder)

        while monitor.is_open:
            runs = runs_at([baseline, *monitor.undecided], monitor.num_seeds)
            self.train(runs, f"look {len(monitor.looks) + 1} of {len(plan.looks)}, at most {plan.looks[-1]} seeds")
            judgement = self.judge(runs, baseline)
            if judgement is None:
                return None
            monitor.look(judgement.differences)
            write_monitor(monitor, self._folder)
            self._say(look.comparison.sentence for look in monitor.looks[-1])
        used = {name: monitor.seeds_of(name) for name in variants}
        return self.judge([run for name in variants for run in runs_at([name], used[name])], baseline)

    def described(self, judgement: "Judgement") -> "Judgement":
        """The judgement with how values were chosen and what the looks found."""
        from rl_posttrain.study.designs import with_looks, with_tuning

        if self._monitor is not None:
            judgement = with_looks(judgement, self._monitor)
        return judgement if self._tuned is None else with_tuning(judgement, self._tuned)

    def state(self) -> str:
        if not self._part:
            return "stopped before it planned a run; the same command goes on"
        finished = sum(run.is_finished() for run in self._part)
        return f"stopped: {finished} of {len(self._part)} runs are finished; the same command trains the others"

    def _say(self, lines) -> None:
        for line in filter(None, lines):
            typer.echo(line, err=self._stderr)


def _refuse_alone(options: dict[str, Any], other: str, given: Any) -> None:
    """Refuse an option that means nothing without another one."""
    for option, value in options.items():
        if value is not None and not given:
            raise RecipeError(f"{option}={value}: it goes with {other}; add {other}, or leave it out")
