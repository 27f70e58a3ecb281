"""The task rows of each step, also of steps ahead."""

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any


class RowsOfSteps:
    """The rows that TRL's data loader gives this process for each step: from a sampler like the loader's own.

    The loader gives the rows of a step when it begins, and what is drawn ahead needs those of later ones. And a loader
    that transformers winds forward in a later epoch, after a resume, gives that epoch the order of the first.

    Args:
        trainer: of TRL; knows its sampler and its data.
        max_ahead: how far behind the newest step may still be asked.
    """

    def __init__(self, trainer: Any, max_ahead: int):
        self._trainer = trainer
        self._batches = enumerate(self._walk(), start=1)
        self._known: deque[tuple[int, list[int]]] = deque(maxlen=max_ahead + 1)

    def __call__(self, step: int) -> list[dict]:
        """The rows of a step, one for each of its completions; the first step is 1."""
        if self._known and step < self._known[0][0]:  # another training begins
            self._batches = enumerate(self._walk(), start=1)
            self._known.clear()
        while not self._known or self._known[-1][0] < step:
            self._known.append(next(self._batches))
        places = dict(self._known)[step]
        size = len(places) // self._trainer.accelerator.num_processes
        start = self._trainer.accelerator.process_index * size
        return [dict(self._trainer.train_dataset[place]) for place in places[start : start + size]]

    def _walk(self) -> Iterator[list[int]]:
        """The places of the rows of each step, of all processes."""
        trainer, args = self._trainer, self._trainer.args
        size = args.generation_batch_size
        # The sampler gives a step's rows again for each micro batch.
        repeats = trainer.num_iterations * args.steps_per_generation
        sampler = trainer._get_train_sampler()
        while True:  # an epoch
            places = iter(sampler)
            while batch := list(itertools.islice(places, size * repeats)):
                yield batch[:size]
