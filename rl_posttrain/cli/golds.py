"""`golds`."""

import json
from typing import Annotated

import typer

from rl_posttrain.cli.options import JsonOption


def golds(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .jsonl, .json, .csv or .parquet file, a folder of them, a data set on the hub, or a task's name.",
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(help="Column of the golds. Default: answer, else solution or reward_model.ground_truth."),
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Try at most so many different golds.")] = 500,
    num_writings: Annotated[
        int, typer.Option(min=1, help="Right writings of each gold, and as many wrong answers.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Draws golds and writings.")] = 0,
    show: Annotated[int, typer.Option(min=0, help="Examples of failures of each kind.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Try math_accuracy on the golds of a data set: each is written in other ways and wrongly. Trains nothing."""
    from rl_posttrain.scoring.gold_sources import golds_in
    from rl_posttrain.scoring.trial import try_golds
    from rl_posttrain.views.golds import print_golds

    found = golds_in(source, column, seed=seed)
    result = {"source": source} | try_golds(found, num=num, num_writings=num_writings, seed=seed, show=show)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_golds(result)
