"""The entry point `rl-posttrain`: the table of commands."""

import contextlib
import faulthandler
import os
import re
import sys

import typer

from rl_posttrain.cli import compare, doctor, evaluate, export, golds, optim, study, train
from rl_posttrain.cli.door import through_the_door

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
    compare.compare,
):
    app.command()(command)

app.command("eval")(evaluate.evaluate)

optimizers = typer.Typer(
    help="List optimizers, their memory and step time; run a program with one.", rich_markup_mode=None
)
optimizers.command("list")(optim.list_optimizers)
# From its first word on, what follows is the program's.
optimizers.command("run", context_settings={"allow_interspersed_args": False})(optim.run_program)
optimizers.command("memory")(optim.optimizer_memory)
optimizers.command("bench")(optim.bench_optimizers)
app.add_typer(optimizers, name="optim")


def main() -> None:
    """Entry point: a mistake is one line on stderr and exit status 2; cli/door.py has the other statuses."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be no file
        faulthandler.enable()  # a crash of C code, which no Python sees, shows whose call it was
    arguments = sys.argv[1:] or ["--help"]
    if arguments[:2] != ["optim", "run"]:  # whose program gets its words as they are
        arguments = list(map(_with_home, arguments))
    through_the_door(lambda: app(args=arguments, prog_name="rl-posttrain", standalone_mode=False))


def _with_home(argument: str) -> str:
    """An argument whose path begins with ~ made whole: no shell does that behind `--out=`, nor in quotes."""
    option, path = re.fullmatch(r"(--[\w-]+=)?(.*)", argument, re.DOTALL).groups(default="")
    return option + (os.path.expanduser(path) if path.startswith("~") else path)


if __name__ == "__main__":
    main()
