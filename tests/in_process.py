"""The command line in this process, for fuzz tests: a command costs milliseconds and not seconds."""

import contextlib
import io

from rl_posttrain.cli.door import through_the_door
from rl_posttrain.cli.main import app


def run_here(*arguments) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            words = list(map(str, arguments))
            through_the_door(lambda: app(args=words, prog_name="rl-posttrain", standalone_mode=False))
        except SystemExit as end:
            status = end.code or 0
    return status, out.getvalue(), err.getvalue()


def complaint(status: int, err: str) -> str | None:
    """What is wrong with how a command ended; None if it did what it should, or refused in one line."""
    if status == 0:
        return f"status 0 and standard error {err[:300]!r}" if err else None
    if status != 2:
        return f"status {status}: {err[:600]}"
    if err.count("\n") != 1 or not err.startswith("rl-posttrain: ") or "Traceback" in err:
        return f"not one line: {err[:600]!r}"
    return None
