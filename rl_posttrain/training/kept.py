"""What a run that ends early has kept: nothing, or what the message of its end names."""

import contextlib
import shutil
from collections.abc import Iterator

from rl_posttrain.errors import EngineError, EngineLost, Interrupted, RunError, refusal
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.machine.signals import Stop
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.commands import resume_command
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step


@contextlib.contextmanager
def discard_unstarted(run: RunDirectory, stop: Stop, *, resumed: bool) -> Iterator[None]:
    """Remove a new run directory without a step when an error or a signal comes, so that its name is free again."""

    def discard() -> None:
        if is_main_process() and not resumed and not run.checkpoint_folders() and not run.metrics_path.is_file():
            shutil.rmtree(run.path, ignore_errors=True)

    stop.last_acts.append(discard)
    try:
        yield
    except BaseException:
        discard()
        raise
    finally:
        stop.last_acts.remove(discard)


@contextlib.contextmanager
def telling_what_is_kept(recipe: Recipe, run: RunDirectory) -> Iterator[None]:
    """Add what the run has kept, and how to go on: to an interruption, a refusal of the disk, the loss of an engine.

    Raises:
        RunError: the system refused something, such as a full disk.
        EngineError: an engine was lost.
    """
    try:
        yield
    except Interrupted as stopped:
        if not is_main_process():
            raise
        raise Interrupted(stopped.number, f"{stopped}{_kept(recipe, run)}") from None
    except EngineLost as error:
        raise EngineError(f"{error}; the run stopped{_kept(recipe, run)}") from error
    except OSError as error:
        if error.errno is None or not is_main_process():
            raise
        raise RunError(f"{refusal(error)}; the run stopped{_kept(recipe, run)}") from error


def _kept(recipe: Recipe, run: RunDirectory) -> str:
    folders, row = run.checkpoints(), run.last_row()
    done, newest = row["step"] if row else 0, folders[-1] if folders else None
    if not done and newest is None:
        go_on = f"go on with: {resume_command(run)}" if run.path.exists() else "start it again with the same command"
        return f" before the first step was done; nothing is kept; {go_on}"
    said = f" after step {done} of {recipe.algorithm.num_steps}; "
    if newest is None:
        because = recipe.checkpoint.without_checkpoints
        said += f"no checkpoint is kept{f' ({because})' if because else ''}, so a resumed run starts again at step 0"
    else:
        kept = checkpoint_step(newest)
        said += f"{newest} is kept"
        if kept < done:
            said += f", and a resumed run makes {_steps(kept + 1, done)} again"
    return f"{said}; go on with: {resume_command(run)}"


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
