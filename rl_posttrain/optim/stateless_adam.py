"""Adam (arXiv:1412.6980) with both betas 0, which needs no state.

    w_t = (1 - lr * weight_decay) * w_{t-1} - lr * g_t / (|g_t| + eps)

element by element, in any shape: with betas of 0 the averages are m = g and v = g^2, and the bias correction is 1. It
is signSGD (arXiv:1802.04434), except that an element whose gradient is far below eps hardly moves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from rl_posttrain.optim.checks import check_settings, evaluate
from rl_posttrain.optim.elementwise import step_groups


class StatelessAdam(Optimizer):
    """Adam with betas (0, 0) and decoupled weight decay. It keeps nothing.

    The arithmetic is done in fp32 (fp64 for fp64 parameters), whatever dtype the parameters have.

    Args:
        params: parameters or parameter groups, of any shapes.
        lr: learning rate: how far an element moves, unless its gradient is near `eps` or below.
        eps: added to the gradient's size.
        weight_decay: decoupled, as in AdamW.
        maximize: go up instead of down.
        foreach: True for torch's multi-tensor operations, False for one tensor after the other, None for the first on
            an accelerator and the second on a CPU.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ):
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach}
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        step_groups(self, _scalars, _update_piece, _update_lists)
        return loss


class _Scalars(NamedTuple):
    """The numbers of one step; `shrink` and `step` may be tensors of shape ()."""

    eps: float
    shrink: float | torch.Tensor
    step: float | torch.Tensor


def _check_group(group: dict[str, Any]) -> None:
    check_settings(lr=group["lr"], eps=group["eps"], weight_decay=group["weight_decay"])


def _scalars(group: dict[str, Any], lr: float | torch.Tensor) -> _Scalars:
    return _Scalars(eps=group["eps"], shrink=1 - lr * group["weight_decay"], step=-lr if group["maximize"] else lr)


def _update_piece(weight: torch.Tensor, gradient: torch.Tensor, _: None, scalars: _Scalars) -> None:
    update = gradient / gradient.abs().add_(scalars.eps)
    weight.mul_(scalars.shrink).sub_(update.mul_(scalars.step))


def _update_lists(weights: list[torch.Tensor], gradients: list[torch.Tensor], _: None, scalars: _Scalars) -> None:
    sizes = torch._foreach_abs(gradients)
    torch._foreach_add_(sizes, scalars.eps)
    updates = torch._foreach_div(gradients, sizes)
    torch._foreach_mul_(updates, scalars.step)
    torch._foreach_mul_(weights, scalars.shrink)
    torch._foreach_sub_(weights, updates)
