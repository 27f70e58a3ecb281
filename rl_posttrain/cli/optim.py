"""`optim list`, `optim memory` and `optim bench`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rl_posttrain.cli.options import (
    JsonOption,
)


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
    from rl_posttrain.cost.memory import memory_of
    from rl_posttrain.views.memory import print_memory

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
        from rl_posttrain.views.memory import plot_memory

        plot_memory(result, plot)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_memory(result)


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
