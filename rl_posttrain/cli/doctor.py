"""`doctor`."""

import json

import typer

from rl_posttrain.cli.options import (
    JsonOption,
)


def doctor(as_json: JsonOption = False) -> None:
    """Check what this machine can run. Say what is missing, and how to fix it."""
    from rl_posttrain.machine import doctor as machine
    from rl_posttrain.models.find import bundled_status

    checks = machine.checks(bundled_status())
    if as_json:
        typer.echo(json.dumps([vars(item) for item in checks], indent=2))
    else:
        width = max(len(item.name) for item in checks)
        for item in checks:
            typer.echo(f"{item.status:<7}  {item.name:<{width}}  {item.found}")
            if item.fix:
                typer.echo(f"{'':7}  {'':{width}}  fix: {item.fix}")
    if not machine.ok(checks):
        raise typer.Exit(1)
