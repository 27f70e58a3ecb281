"""Checkpoints: written aside, given a manifest, and as many kept as the recipe says; the critic beside the policy."""

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rl_posttrain.models.folder import CRITIC_PREFIX
from rl_posttrain.runs.directory import CRITIC_FILE, RunDirectory, checkpoint_step
from rl_posttrain.runs.files import disk_errors
from rl_posttrain.runs.manifest import ROWS_FILE, fsync, write_manifest
from rl_posttrain.training.critic import Critic


@contextlib.contextmanager
def whole_or_absent(run: RunDirectory) -> Iterator[None]:
    """When the disk refuses a checkpoint that the block writes, what is there of it gives its room back.

    Raises:
        OSError: the disk refused something.
    """
    try:
        with disk_errors(run.checkpoints_path):
            yield
    except OSError:
        run.drop_unfinished_checkpoint()
        raise


def write_checkpoint(
    run: RunDirectory,
    accelerator: Any,
    *,
    may_write: Callable[[], bool],
    write: Callable[[], None],
    add: Callable[[], None],
    finish: Callable[[], None],
) -> None:
    """A checkpoint, or none at all; every process calls this.

    Args:
        accelerator: of accelerate; the processes wait for each other.
        may_write: whether there is to be one.
        write: writes it aside.
        add: adds what it has beside transformers' files.
        finish: completes it and puts it in its place; the main process calls this.

    Raises:
        OSError: the disk refused something.
    """
    with whole_or_absent(run):
        if accelerator.is_main_process:
            run.drop_unfinished_checkpoint()
        accelerator.wait_for_everyone()
        if not may_write():
            return
        write()
        add()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            finish()
        accelerator.wait_for_everyone()


def finish_checkpoint(
    run: RunDirectory, num_updates: int, step: int, *, keep: int, best: Mapping[str, Any] | None = None
) -> None:
    """Complete the checkpoint in `run.writing_path`, put it in its place, and remove older ones.

    The newest `keep` and the best one stay. A checkpoint gets a copy of the run's rows and a manifest, and is on the
    disk before it has its name. transformers names a checkpoint by its updates; it gets the name of its step.

    Args:
        best: the best step so far, as `runs.goals.best_row` gives it; None where the recipe keeps none.
    """
    written, newest = run.writing_path / f"checkpoint-{num_updates}", run.checkpoints_path / f"checkpoint-{step}"
    shutil.copyfile(run.metrics_path, written / ROWS_FILE)
    write_manifest(written)
    shutil.rmtree(newest, ignore_errors=True)  # of an earlier process, whose rows are gone
    written.rename(newest)
    fsync(run.checkpoints_path)
    run.drop_unfinished_checkpoint()
    run.write_best(best)  # its checkpoint is whole now, and the one before still there
    others = [path for path in run.checkpoint_folders() if path != newest]
    for path in others[::-1][keep - 1 :]:
        if best is None or checkpoint_step(path) != best["step"]:
            shutil.rmtree(path)


def save_critic(critic: Critic, state_dict: Mapping[str, torch.Tensor], folder: str | Path) -> None:
    """Write the critic's part of a policy's `state_dict` into `folder`, under names without the prefix.

    What LoRA has frozen of `critic` is left out.
    """
    left_out = _frozen(critic)
    own = {
        name.removeprefix(CRITIC_PREFIX): tensor
        for name, tensor in state_dict.items()
        if name.startswith(CRITIC_PREFIX) and not name.removeprefix(CRITIC_PREFIX).startswith(left_out)
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in own.items()}, Path(folder) / CRITIC_FILE)


def of_policy(state_dict: Mapping[str, torch.Tensor], tied: Collection[str]) -> dict[str, torch.Tensor]:
    """The policy's part of its `state_dict`, without its critic, and each tied weight once.

    Gathered tensors no longer share memory, so that transformers would write what is tied twice.

    Args:
        tied: names of weights that are another one's, too.
    """
    return {
        name: tensor for name, tensor in state_dict.items() if not name.startswith(CRITIC_PREFIX) and name not in tied
    }


def load_critic(critic: Critic, folder: str | Path) -> None:
    """Give `critic` the weights that `save_critic` wrote."""
    found = critic.load_state_dict(load_file(Path(folder) / CRITIC_FILE), strict=False)
    wrong = [*found.unexpected_keys, *(name for name in found.missing_keys if not name.startswith(_frozen(critic)))]
    assert not wrong, f"the critic's file is not of this critic: {wrong[:3]}"


def _frozen(critic: Critic) -> tuple[str, ...]:
    """The names of what is not trained; such a weight in 4 bits has more names that begin so."""
    return tuple(name for name, parameter in critic.named_parameters() if not parameter.requires_grad)
