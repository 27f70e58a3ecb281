"""What classes of other packages lack of torch's contract for optimizers, so that they go through the same checks."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.checks import check_gradients, evaluate, unhooked
from rl_posttrain.optim.foreign import RefusesAdamW


class Packaged(RefusesAdamW, Optimizer):
    """The first base of such a class.

    - A copy or a pickle of the optimizer has all of its attributes; torch keeps the groups and the state alone.
    - Sparse and complex gradients are refused before anything moves.
    - The hooks of a step run once.
    """

    def __getstate__(self) -> dict[str, Any]:
        # Hooks are left out, as torch does; so is what it makes again by itself.
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        check_gradients(self)
        unhooked(super().step)(self)
        return loss
