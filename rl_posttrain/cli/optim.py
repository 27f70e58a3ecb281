"""`optim list`, `optim run`, `optim memory` and `optim bench`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rl_posttrain.cli.options import JsonOption
from rl_posttrain.errors import RecipeError
from rl_posttrain.runs.yaml12 import YamlError, read_yaml


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


def run_program(
    program: Annotated[
        list[str],
        typer.Argument(
            metavar="-- PROGRAM",
            help="A program and its arguments, as in a shell: trl grpo ..., torchrun ... train.py; or train.py ..., "
            "-m MODULE ... or other words of a python command, which this Python runs.",
        ),
    ],
    optimizer: Annotated[str, typer.Option(help="A name of `optim list`, package.module:Class or file.py:Class.")],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An argument of use_optimizer, such as betas=[0.9,0.95] or lr=1e-6; may stand several times.",
        ),
    ] = None,
    no_decay: Annotated[
        str | None, typer.Option(metavar="ROLES", help="Roles without weight decay, separated by commas.")
    ] = None,
) -> int:
    """Run a program with another optimizer in every Trainer of transformers and TRL that it makes.

    The program stays as it is. At its end stands which optimizer ran in which trainer. The exit status is the
    program's, or 2 if the optimizer ran in none.
    """
    from rl_posttrain.optim.launch import run_program
    from rl_posttrain.optim.swap import resolve_choice

    settings = dict(map(_setting, options or []))
    if no_decay is not None:
        settings["no_decay"] = [role for role in no_decay.split(",") if role]
    resolve_choice(optimizer, settings, key="--optimizer")
    return run_program(program, optimizer, settings)


def _setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {text}: it is written key=value, such as --set betas=[0.9,0.95]")
    try:
        return key, read_yaml(value)
    except YamlError as error:
        raise RecipeError(f"--set {text}: the value is not valid YAML ({error}); quote it") from None


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
        typer.Option(help="DeepSpeed's ZeRO stage, 0 to 3; none, plain PyTorch without master weights; or fsdp2."),
    ] = "2",
    num_processes: Annotated[int, typer.Option(min=1, help="Devices (processes).")] = 1,
    dtype: Annotated[str, typer.Option(help="Data type of the weights: bfloat16 or float32.")] = "bfloat16",
    offload: Annotated[
        str, typer.Option(help="What is in main memory: none, optimizer (with masters), or parameters (all of it).")
    ] = "none",
    critic: Annotated[
        bool,
        typer.Option(
            "--critic", help="Also a critic, as PPO has it: a backbone of the same shapes, with the same optimizer."
        ),
    ] = False,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Freeze the model, and train LoRA's adapters of this rank on it."),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(metavar="nf4|fp4", help="With --lora-rank: keep the frozen weights in 4 bits, as QLoRA does."),
    ] = None,
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
        lora_rank=lora_rank,
        quantize=quantize,
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
