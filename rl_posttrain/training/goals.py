"""What a finished step decides: whether it is the best so far and gets a checkpoint, and whether the run stops."""

from collections.abc import Mapping
from typing import Any

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.goals import as_best, is_better, reached
from rl_posttrain.training.agree import of_main_process


class Goals:
    """`checkpoint.keep_best` and `algorithm.stop_at` of a recipe.

    Attributes:
        best: the best step so far, as `runs.goals.as_best` gives it; of a resumed run, what its best.json says.
        stopped: whether a step has reached `stop_at`.
    """

    def __init__(self, recipe: Recipe):
        self._keep_best = recipe.checkpoint.keep_best
        self._stop_at = recipe.algorithm.stop_at
        self.best: dict[str, Any] | None = None
        self.stopped = False

    def stops(self, row: Mapping[str, Any]) -> bool:
        """Whether the step of `row` is the last, because it has reached `stop_at`.

        Every process calls this and `is_best`, and gets the main one's answer: seconds and memory differ between them.
        """
        self.stopped = bool(self._stop_at) and of_main_process(lambda: reached(self._stop_at, row))
        return self.stopped

    def is_best(self, row: Mapping[str, Any]) -> bool:
        """Whether the step of `row` is the best so far; if so, it is remembered."""
        if self._keep_best is None:
            return False
        metric, mode = self._keep_best.metric, self._keep_best.mode
        found = of_main_process(lambda: as_best(metric, mode, row) if is_better(metric, mode, row, self.best) else None)
        self.best = found or self.best
        return found is not None
