"""The entry point `rl-posttrain`: the table of commands, and the one door that errors leave by."""

import sys

import typer

from rl_posttrain.cli import doctor, evaluate, export, golds, optim, study, train
from rl_posttrain.errors import RlPosttrainError

app = typer.Typer(
    help="R1-Zero style RL post-training of language models, from a YAML recipe.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    train.train,
    train.check,
    golds.golds,
    export.export,
    doctor.doctor,
    train.recipes,
    study.curves,
    study.report,
    study.compare,
):
    app.command()(command)

app.command("eval")(evaluate.evaluate)

optimizers = typer.Typer(help="List optimizers, their memory and step time.", rich_markup_mode=None)
optimizers.command("list")(optim.list_optimizers)
optimizers.command("memory")(optim.optimizer_memory)
optimizers.command("bench")(optim.bench_optimizers)
app.add_typer(optimizers, name="optim")

# Its public subclass is the one way to this class that every version of typer has.
_UsageError = typer.BadParameter.__base__


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
    message = "\\n".join(message.splitlines())  # a value of the user's may have several lines
    typer.echo(f"rl-posttrain: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
