"""Learning rates across the loading of a checkpoint, whose optimizer and schedule come with rates of their own."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def rates_kept(trainer: Any, *, place: bool) -> Iterator[None]:
    """The schedule keeps the rates that it was made with, whatever is loaded inside of the block.

    So a run that is resumed with another `optimizer.lr` has the new one. With the same one nothing changes, to the bit.

    Args:
        trainer: of transformers, with its optimizer and a schedule of `LambdaLR`.
        place: keep the place in the schedule, too: a run that goes back to a checkpoint goes on counting updates.
    """
    scheduler = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)  # accelerate may have wrapped it
    base, update = list(scheduler.base_lrs), scheduler.last_epoch
    yield
    scheduler.base_lrs = base
    if place:
        scheduler.last_epoch = update
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    rates = [rate * factor for rate, factor in zip(base, factors, strict=True)]
    for group, initial, rate in zip(trainer.optimizer.param_groups, base, rates, strict=True):
        group["initial_lr"], group["lr"] = initial, rate
    scheduler._last_lr = rates
