"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a bundled recipe.")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as optimizer.lr=1e-6.")
]
RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run directories, folders of them, trainer_state.json, CSV.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MeasureOption = Annotated[str, typer.Option(help="What the verdict is about: final, auc or best reward.")]
MarginOption = Annotated[
    float | None, typer.Option(help="Differences below it do not matter; 0.05 of the reward range if not given.")
]
ThresholdOption = Annotated[
    float | None, typer.Option(help="Reward to which steps are counted; the middle of the reward range if not given.")
]
BaselineOption = Annotated[str | None, typer.Option(help="The variant that others are compared with; adamw if there.")]
