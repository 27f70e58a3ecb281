"""A run's directory at the start of training: new, resumed, rewound to its checkpoint, or removed again."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.machine.process import is_main_process, world_size
from rl_posttrain.recipe.load import parse_recipe, recipe_change
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.runs.goals import best_row, reached


def open_run(recipe: Recipe, resume: bool) -> tuple[RunDirectory, Path | None]:
    """The run's directory, and the checkpoint to start from; None starts at the beginning.

    Raises:
        RunError: a new run whose directory exists; or a run to resume that is missing, has another recipe, ran on
            another number of processes, or has steps but no checkpoint.
    """
    if not resume:
        if is_main_process():
            return RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml()), None
        return RunDirectory(recipe.run_path), None
    run = RunDirectory.open(recipe.run_path)
    changed = recipe_change(parse_recipe(run.recipe()), recipe)
    if changed:
        raise RunError(
            f"{changed}: {run.path} was started otherwise; resume it with the same recipe, or set another run.name"
        )
    processes = run.environment().get("num_processes", world_size())
    if processes != world_size():
        raise RunError(
            f"run.name={run.name}: it was started on {processes} processes, not {world_size()}; "
            f"resume it with torchrun --nproc_per_node {processes}"
        )
    checkpoint = run.last_checkpoint()
    if checkpoint is None and run.metrics():
        raise RunError(
            f"checkpoint.every_steps={recipe.checkpoint.every_steps}: {run.path} has steps but no checkpoint, so "
            "it cannot be resumed; set another run.name, and checkpoint.every_steps for the next time"
        )
    return run, checkpoint


def is_over(recipe: Recipe, run: RunDirectory, step: int) -> bool:
    """Whether no step follows `step`: it is the last, or has reached `algorithm.stop_at`."""
    if step == recipe.algorithm.num_steps:
        return True
    return any(row["step"] == step and reached(recipe.algorithm.stop_at, row) for row in run.metrics())


def rewind(recipe: Recipe, run: RunDirectory, checkpoint: Path | None) -> list[dict]:
    """Drop what a stopped process recorded after its last checkpoint: the resumed run makes these steps again.

    Which checkpoint is the best follows from what is left: the process may have been stopped before it said so.
    Called by the main process alone. Returns the rows of metrics that stay.
    """
    rows = run.rewind(checkpoint_step(checkpoint) if checkpoint else 0)
    if (keep_best := recipe.checkpoint.keep_best) is not None:
        kept = {checkpoint_step(folder) for folder in run.checkpoints()}
        run.write_best(best_row(keep_best.metric, keep_best.mode, rows, kept))
    return rows


@contextlib.contextmanager
def discard_unstarted(run: RunDirectory, resumed: bool) -> Iterator[None]:
    """Remove the run directory when an error comes before the first step, so that the next try can use its name."""
    try:
        yield
    except BaseException:
        if is_main_process() and not resumed and not run.metrics():
            shutil.rmtree(run.path, ignore_errors=True)
        raise
