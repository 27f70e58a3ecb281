"""`export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write; it must be empty or not exist.")],
    step: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Step of a checkpoint. Default: the final model, else the newest checkpoint.",
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint that checkpoint.keep_best kept.")] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Data type of the weights: bfloat16 or float32. Default: as they were trained.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Of a run with LoRA: the adapters alone, as peft and vLLM load them.")
    ] = False,
) -> None:
    """Write a trained model as a plain Hugging Face folder, with its tokenizer and a model card.

    transformers and `vllm serve` load it. A critic is not exported. Adapters of LoRA are merged in, unless --adapter
    asks for them alone.
    """
    import shlex

    from rl_posttrain.machine.tools import serve_command
    from rl_posttrain.models.export import export_model
    from rl_posttrain.runs.card import ask_in_python
    from rl_posttrain.runs.directory import RunDirectory

    directory = RunDirectory.open(run)
    exported = export_model(directory, to, step=step, best=best, dtype=dtype, adapter=adapter)
    if adapter:
        typer.echo(f"{exported.folder}: step {exported.step}, adapters, {exported.num_bytes / 2**20:.1f} MiB")
        typer.echo(f"from {exported.source}\n\nREADME.md in it says how peft and vLLM load them")
        return
    kind = "fp32 masters of a bf16 policy" if exported.masters else exported.dtype
    typer.echo(f"{exported.folder}: step {exported.step}, {kind}, {exported.num_bytes / 2**20:.0f} MiB")
    typer.echo(f"from {exported.source}\n\nload it and ask it a question")
    for line in ask_in_python(directory, exported.step, str(exported.folder)):
        typer.echo(f"  {line}")
    typer.echo(f"\nor serve it\n  {serve_command()} {shlex.quote(str(exported.folder))}")
