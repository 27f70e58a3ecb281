"""A run of another program. It is read by the same methods as a `RunDirectory`."""

from dataclasses import dataclass, field
from pathlib import Path

from rl_posttrain.runs.columns import Columns


@dataclass(frozen=True)
class ForeignRun:
    """A run of another program, as read.

    Attributes:
        path: the file or folder.
        name: the run's name.
        variant: the name that it shares with its other seeds.
        seed: None where it is not known.
        metrics: in columns, by step, under our names.
        planned: steps that it was to make, where its file says so.
        task: its task, where the user's pattern says it; else empty.
    """

    path: Path
    name: str = ""
    variant: str = ""
    seed: int | None = None
    metrics: Columns = field(default_factory=dict, repr=False)
    planned: int | None = None
    task: str = ""

    def columns(self) -> tuple[Columns, tuple[str, ...]]:
        """The metrics in columns, by step; the prompts are not known."""
        return self.metrics, ()

    def planned_steps(self) -> int | None:
        return self.planned

    def recipe(self) -> dict:
        return {}

    def environment(self) -> dict:
        return {}

    def rollouts(self, step: int) -> list[dict]:
        return []
