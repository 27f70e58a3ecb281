"""`optim list`, `optim memory` and `optim bench`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rl_posttrain.cli.options import (
    JsonOption,
)


def list_optimizers(as_json: JsonOption = False) -> None:
    """List the built-in optimizers. Each has its name, class, package, and a line about it."""
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
        str,
        typer.Argument(
            metavar="MODEL", help="A known size such as llama-60m, a model folder, or a name on the Hugging Face hub."
        ),
    ],
    optimizers: Annotated[
        str, typer.Option(help="Optimizers, separated by commas; adamw is always added.")
    ] = "adams,adamw,scale",
    zero_stage: Annotated[
        str,
        typer.Option(help="DeepSpeed's ZeRO stage, 0 to 3; or none, which is plain PyTorch without master weights."),
    ] = "2",
    num_processes: Annotated[int, typer.Option(min=1, help="Devices (processes).")] = 1,
    dtype: Annotated[str, typer.Option(help="Data type of the weights: bfloat16 or float32.")] = "bfloat16",
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep master weights and optimizer state in host memory.")
    ] = False,
    critic: Annotated[
        bool,
        typer.Option(
            "--critic", help="Also a critic, as PPO has it: a backbone of the same shapes, with the same optimizer."
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also make one real step with each optimizer and count its bytes.")
    ] = False,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the result as bars into this file.")
    ] = None,
) -> None:
    """Predict the memory that optimizers need.

    The sum of weights, gradients, master weights and optimizer state, on each device.
    """
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
        critic=critic,
    )
    if plot is not None:
        from rl_posttrain.views.memory import plot_memory

        plot_memory(result, plot)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_memory(result)


def bench_optimizers(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model whose parameter shapes are used.")
    ] = "smollm2-135m",
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Optimizers, separated by commas. If unset, adams,adamw,scale,sgd; with --flat all but scale."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Data type of weights and gradients: float32 or bfloat16.")] = "float32",
    steps: Annotated[int, typer.Option(min=1, help="Steps to make with each optimizer.")] = 15,
    flat: Annotated[
        bool, typer.Option("--flat", help="All parameters in one tensor, as DeepSpeed's ZeRO-1 to 3 have them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Time a step of each optimizer. torch's fused AdamW is measured beside them."""
    from rl_posttrain.optim.bench import bench, optimizers_of, print_bench

    names = optimizers_of(optimizers, flat)
    result = bench(model, names, device=device, dtype=dtype, num_steps=steps, flat=flat)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_bench(result)
