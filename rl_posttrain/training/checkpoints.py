"""Checkpoints: marked once they are whole, and only as many kept as the recipe says; the critic beside the policy."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rl_posttrain.models.export import CRITIC_PREFIX
from rl_posttrain.runs.directory import CRITIC_FILE, RunDirectory, checkpoint_step
from rl_posttrain.training.critic import Critic


def finish_checkpoint(
    folder: str | Path, num_updates: int, step: int, *, keep: int, best: Mapping[str, Any] | None = None
) -> None:
    """Mark the checkpoint of `step` as whole, then remove all but the newest `keep` and the best one.

    transformers names a checkpoint by its updates; it gets the name of its step.

    Args:
        best: the best step so far, as `runs.goals.best_row` gives it; None where the recipe keeps none.
    """
    newest = Path(folder) / f"checkpoint-{step}"
    if num_updates != step:
        shutil.rmtree(newest, ignore_errors=True)  # of a process that was killed at this place
        (Path(folder) / f"checkpoint-{num_updates}").rename(newest)
    (newest / "complete").touch()
    RunDirectory(Path(folder).parent).write_best(best)  # its checkpoint is whole now, and the one before still there
    others = [path for path in Path(folder).glob("checkpoint-*") if path != newest]
    for path in sorted(others, key=checkpoint_step, reverse=True)[keep - 1 :]:
        if best is None or checkpoint_step(path) != best["step"]:
            shutil.rmtree(path)


def save_critic(state_dict: Mapping[str, torch.Tensor], folder: str | Path) -> None:
    """Write the critic's part of a policy's `state_dict` into `folder`, under names without the prefix."""
    own = {
        name.removeprefix(CRITIC_PREFIX): tensor
        for name, tensor in state_dict.items()
        if name.startswith(CRITIC_PREFIX)
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in own.items()}, Path(folder) / CRITIC_FILE)


def without_critic(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The policy's part of its `state_dict`."""
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith(CRITIC_PREFIX)}


def load_critic(critic: Critic, folder: str | Path) -> None:
    """Give `critic` the weights that `save_critic` wrote."""
    critic.load_state_dict(load_file(Path(folder) / CRITIC_FILE))
