"""What a signal does to training: the step is finished or dropped, a checkpoint written, and the run left.

Until the update begins, a step can be dropped: it has changed nothing. From there on it is finished. Either way the
checkpoint is the one that a run without a signal would have written after that step. All processes leave together:
they compare what they have heard where a step begins, before its update, and where it ends.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from rl_posttrain.errors import Interrupted
from rl_posttrain.machine.signals import Stop
from rl_posttrain.recipe.schema import CheckpointSection


class Stopping(TrainerCallback):
    """Ends training at a signal to any of its processes.

    Args:
        stop: what this process hears.
        most: the largest number over all processes of the one each has; a collective.
        updates_per_step: of the recipe.

    Attributes:
        number: of the signal, once all processes know of it; 0 before.
        kept_step: of the newest checkpoint that this process wrote or began with; 0: none.
    """

    def __init__(self, stop: Stop, section: CheckpointSection, most: Callable[[int], int], updates_per_step: int):
        self.stop, self.saves, self._most, self._updates_per_step = stop, section.on_signal, most, updates_per_step
        self.number = self.kept_step = 0
        self._random: tuple | None = None
        self._may_drop = False

    def is_asked(self) -> bool:
        """Whether a signal has reached any process; all call it at the same moments."""
        self.number = self.number or self._most(self.stop.number or 0)
        return self.number != 0

    def begin_step(self) -> None:
        """A step begins, and has changed nothing yet.

        Raises:
            Interrupted: there was a signal.
        """
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state(), _cuda_states()
        if self.is_asked():
            raise Interrupted(self.number)

    @contextlib.contextmanager
    def droppable(self) -> Iterator[None]:
        """What runs inside, on all processes, may be dropped; at its end they agree whether it is.

        Raises:
            Interrupted: it is.
        """
        self._may_drop = True
        try:
            yield
        except Interrupted:
            pass  # the others learn of it below
        finally:
            self._may_drop = False
        if self.is_asked():
            raise Interrupted(self.number)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside of `droppable`: no other process waits for what runs inside, so a signal ends it at once."""
        with self.stop.interruptible() if self._may_drop else contextlib.nullcontext():
            yield

    def drop_step(self) -> None:
        """Take back what the step's beginning changed beside weights and optimizer: random numbers."""
        python, numpy, cpu, cuda = self._random
        random.setstate(python), np.random.set_state(numpy), torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.kept_step = state.global_step // self._updates_per_step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        is_last = state.global_step >= state.max_steps
        if not is_last and state.global_step % self._updates_per_step == 0 and self.is_asked():
            control.should_training_stop = True
            control.should_save |= self.saves

    def on_save(self, args, state, control, **kwargs) -> None:
        self.kept_step = state.global_step // self._updates_per_step


def train_until_stopped(trainer: Any, checkpoint: Path | None) -> None:
    """Train to the end, or to the step at which a signal ends it.

    Args:
        checkpoint: to continue from.

    Raises:
        Interrupted: on every process, once the checkpoint is whole.
    """
    stopping = trainer.stopping
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Interrupted:
        stopping.drop_step()
        if stopping.saves and trainer.steps_done > stopping.kept_step:
            trainer._save_checkpoint(trainer.model_wrapped, None)
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    if not stopping.number or trainer.is_over:
        return
    # Nobody may leave before all are deaf: torchrun ends the others as soon as one process has left.
    trainer.accelerator.wait_for_everyone()
    stopping.stop.end()
    trainer.accelerator.wait_for_everyone()
    raise Interrupted(stopping.number)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
