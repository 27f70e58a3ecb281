"""Tensors on their way to the function that updates many of them at once."""

from collections.abc import Callable
from typing import Any

import torch


class Batches:
    """Hands the tensors of a group to the functions that update them, in lists of one device and one set of dtypes.

    A list is handed over once it has enough elements, the next one with twice as many, and so on: a device is at work
    on the one while Python gathers the other. Empty tensors are left out.

    Args:
        begin: takes the first tensors of a kind, and `step` of `add`. It returns the function that updates a list of
            such tensors, and that function's second argument.
        first_size: elements of the first list that is handed over before `finish`.
    """

    def __init__(
        self, begin: Callable[[tuple, Any], tuple[Callable[[list, Any], None], Any]], *, first_size: int = 2**25
    ):
        self._begin, self._first_size = begin, first_size
        self._batches: dict[tuple, _Batch] = {}
        self._kind: tuple = ()

    def add(self, tensors: tuple, step: float | torch.Tensor | None = None) -> None:
        """Hand over `tensors`, and what was gathered before, or keep them for later.

        Args:
            tensors: weight, gradient and momentum or None, of one shape.
            step: only tensors with the same one share a list.
        """
        weight, gradient, momentum = tensors
        size = weight.numel()
        if not size:
            return
        # A tensor is told by its identity: comparing values would wait for the device.
        mark = step if step is None or isinstance(step, float) else id(step)
        kind = (weight.dtype, gradient.dtype, None if momentum is None else momentum.dtype, weight.device, mark)
        if kind != self._kind:
            # Most tensors are of the same kind as the one before, and comparing is quicker than looking up.
            if kind not in self._batches:
                self._batches[kind] = _Batch(*self._begin(tensors, step), limit=self._first_size)
            self._kind, self._batch = kind, self._batches[kind]
        batch = self._batch
        batch.gathered.append(tensors)
        batch.size += size
        if batch.size >= batch.limit:
            batch.hand_over()

    def finish(self) -> None:
        for batch in self._batches.values():
            batch.hand_over()


class _Batch:
    def __init__(self, update: Callable[[list, Any], None], settings: Any, limit: int):
        self._update, self._settings = update, settings
        self.gathered: list[tuple] = []
        self.size, self.limit = 0, limit

    def hand_over(self) -> None:
        if self.gathered:
            self._update(self.gathered, self._settings)
        self.gathered, self.size, self.limit = [], 0, 2 * self.limit
