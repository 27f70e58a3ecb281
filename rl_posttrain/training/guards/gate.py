"""The gate in front of the optimizer's step: a step that does not go through it changes neither weights nor state.

It stands on the optimizer that really runs. Under ZeRO that one steps on fp32 masters, a group at a time; where it does
not step, the masters stay as they are, and so do the weights, which are copied from them.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from rl_posttrain.optim.swap import running_optimizer


class Gate(TrainerCallback):
    """A callback of transformers: puts the gate in when training begins.

    Args:
        opens: asked once an update whether it is made, with the gradient's norm before clipping; all processes ask.

    Attributes:
        num_asked: how many updates of this step asked the gate. DeepSpeed leaves out an update whose gradient is not
            finite without asking.
        num_made: how many updates were made.
    """

    def __init__(self, opens: Callable[[float], bool]):
        self._opens = opens
        self._norm: float | None = None  # of plain PyTorch, which knows it before the step
        self._answer: bool | None = None
        self.num_asked = self.num_made = 0

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        running = running_optimizer(optimizer)
        step = running.step

        @functools.wraps(step)
        def through_the_gate(*arguments: Any, **options: Any) -> Any:
            if self._answer is None:
                self._answer = self._opens(self._known_norm(optimizer, running))
                self.num_asked += 1
                self.num_made += self._answer
            if self._answer:
                return step(*arguments, **options)
            running._opt_called = True  # else torch's scheduler says that it was called too early
            return None

        running.step = through_the_gate

    def clipped(self, norm: Any) -> None:
        """The gradient's norm, as transformers' clipping gives it before the step; DeepSpeed has stepped by then."""
        self._norm = None if norm is None else float(norm)

    def next_update(self) -> None:
        """A micro batch of the next update is on its way."""
        self._answer = self._norm = None

    def next_step(self) -> None:
        """A step is over."""
        self.next_update()
        self.num_asked = self.num_made = 0

    def _known_norm(self, wrapper: Any, running: torch.optim.Optimizer) -> float:
        if self._norm is not None:
            return self._norm
        while wrapper is not running:
            if getattr(wrapper, "_global_grad_norm", None) is not None:  # of DeepSpeed's optimizers
                return float(wrapper._global_grad_norm)
            wrapper = wrapper.optimizer
        # ZeRO-0 in fp32 keeps no norm. It has clipped already: a norm that was not finite still is not.
        gradients = [p.grad for group in running.param_groups for p in group["params"] if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))
