"""Going back to a checkpoint in place: weights and optimizer state; steps, data and learning rates go on."""

from pathlib import Path
from typing import Any

from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from rl_posttrain.models.universal import only_weights
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.runs.manifest import find_damage
from rl_posttrain.training.adapters import is_adapted
from rl_posttrain.training.rates import rates_kept


def checkpoint_before(run: RunDirectory, step: int) -> Path | None:
    """The newest whole checkpoint from before `step`, else the newest of all; None where there is none."""
    whole = [folder for folder in run.checkpoints() if not find_damage(folder)]
    return next((folder for folder in reversed(whole) if checkpoint_step(folder) < step), (whole or [None])[-1])


def roll_back(trainer: Any, folder: Path) -> None:
    """Give `trainer` the weights and the optimizer state of a checkpoint. Every process calls it, between steps."""
    with rates_kept(trainer, place=True), only_weights(folder):
        if trainer.is_deepspeed_enabled:
            # A policy with adapters has no frozen weights in its checkpoints.
            strict = not is_adapted(trainer.model)
            deepspeed_load_checkpoint(trainer.model_wrapped, str(folder), load_module_strict=strict)
        else:
            trainer._load_from_checkpoint(str(folder))
        trainer._load_optimizer_and_scheduler(str(folder))
    running = running_optimizer(trainer.optimizer)
    if hasattr(running, "find_shards"):
        running.find_shards(trainer.optimizer)
