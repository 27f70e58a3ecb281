"""The protocol of displays: what `train` reports while it runs. The views implement it; `NoDisplay` shows nothing."""

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rl_posttrain.machine.describe import device_name
from rl_posttrain.recipe.schema import Recipe


class Display(Protocol):
    """What `train` reports to its user. Use it as a context manager: leaving it restores the terminal."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """A message of one line that stays on the screen, such as "loading model"."""

    def phase(self, text: str) -> None:
        """What the run is doing right now, such as "rollout"."""

    def resumed(self, rows: list[dict]) -> None:
        """The rows of the steps that an earlier process finished; to be called before the first `step`."""

    def evaluated(self, metrics: dict) -> None:
        """The ``eval/...`` metrics from before the first step; those of later steps are in their rows."""

    def step(self, row: dict, samples: list[dict]) -> None:
        """A finished step: its metrics row, and some completions (dicts of prompt, completion, reward, answer)."""

    def finish(self) -> None:
        """The last step is done."""


class NoDisplay(contextlib.nullcontext):
    """Shows nothing: for Python callers and for every process but the first."""

    def note(self, text: str) -> None: ...

    def phase(self, text: str) -> None: ...

    def evaluated(self, metrics: dict) -> None: ...

    def step(self, row: dict, samples: list[dict]) -> None: ...

    def resumed(self, rows: list[dict]) -> None: ...

    def finish(self) -> None: ...

    def __enter__(self):
        return self


MakeDisplay = Callable[..., Display]
"""Makes a display from the keyword arguments `name` (the run's), `num_steps` and `device` (in words)."""


def start_display(recipe: Recipe, display: MakeDisplay | None) -> Display:
    """The display of a run on this device; None shows nothing."""
    if display is None:
        return NoDisplay()
    return display(name=recipe.run.name, num_steps=recipe.algorithm.num_steps, device=device_name())
