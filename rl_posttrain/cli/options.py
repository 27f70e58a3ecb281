"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a bundled recipe.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as optimizer.lr=1e-6."),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="Run directories, or folders of them; of other programs trainer_state.json, CSV and JSON lines files, "
        "TensorBoard's and W&B's folders (docs/foreign_runs.md).",
    ),
]
RewardColumnOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The reward's column in logs of other programs. Default: the known names."),
]
StepColumnOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The step's column in logs of other programs. Default: the known names."),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="What is variant and what is seed in names or paths of runs of other programs: "
        "'(?P<variant>.+)-(?P<seed>[0-9]+)'; with --pool-tasks also (?P<task>...). Default: the usual spellings of "
        "seeds.",
    ),
]
FigureFormatOption = Annotated[
    str, typer.Option(metavar="FORMATS", help="Formats of the report's figures, with commas: png, pdf, svg.")
]
FigureSizeOption = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Size of each figure, such as 6.5x3.2in or 16x8cm. Default: as its panels need."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PoolTasksOption = Annotated[
    bool,
    typer.Option(
        "--pool-tasks",
        help="One verdict over runs of several tasks or rewards: each reward as a share of its task's range, and "
        "--margin and --threshold too. Of runs of other programs, the folder is the task, or what --group says.",
    ),
]
MeasureOption = Annotated[
    str,
    typer.Option(
        help="What verdicts are about: final (mean reward of the last tenth of the steps) or auc (area under the "
        "reward curve per step)."
    ),
]
MarginOption = Annotated[
    float | None,
    typer.Option(
        help="Smaller differences do not matter, in units of reward. Default: 0.05 of the reward's range, or of the "
        "baseline's mean final reward where the range is not known."
    ),
]
RangeOption = Annotated[
    str | None,
    typer.Option(
        "--range", metavar="LOW,HIGH", help="Lowest and highest reward that a step can have. Default: from the recipe."
    ),
]
FailedOption = Annotated[
    str,
    typer.Option(
        metavar="worst|none|VALUE",
        help="What a failed run counts as: the lowest reward of the range, a reward that you say, or none: then a "
        "failed run makes a verdict impossible.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        help="Reward up to which steps, tokens and seconds are counted. Default: the middle of the reward's range, or "
        "half-way from the baseline's first to its final reward."
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        metavar="VARIANT", help="The variant that the others are compared with. Default: adamw, else the first."
    ),
]
