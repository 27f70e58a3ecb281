"""AdamS: the momentum is its own normalizer, so that there is no second moment to store (arXiv:2505.16363).

    nu_t = beta2 * m_{t-1}^2 + (1 - beta2) * g_t^2
    m_t  = beta1 * m_{t-1} + (1 - beta1) * g_t
    w_t  = (1 - lr * weight_decay) * w_{t-1} - lr * m_t / (sqrt(nu_t) + eps)

with m_0 = 0. One buffer a parameter, no step counter and no bias correction.
"""

from collections.abc import Callable, Iterable

import torch
from torch.optim.optimizer import Optimizer, ParamsT

_PIECE_SIZE = 2**18
# No cache to keep to, and every piece is several launches: long enough to fill a device, and a bound for temporaries.
_PIECE_SIZE_ON_DEVICE = 2**26


class AdamS(Optimizer):
    """AdamS with decoupled weight decay.

    An element moves by at most ``lr * sqrt(beta1^2 / beta2 + (1 - beta1)^2 / (1 - beta2))`` a step: 1.026 lr at the
    defaults. The state is one buffer, ``exp_avg``, in the parameter's shape and dtype.

    Args:
        params: parameters or parameter groups, as for `torch.optim.AdamW`.
        lr: learning rate.
        betas: decay of the momentum, and weight of the old momentum in the normalizer.
        eps: added to the square root; it keeps a parameter whose gradient has always been zero where it is.
        weight_decay: decoupled, as in AdamW.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        if not lr >= 0:
            raise ValueError(f"Invalid lr: {lr}; it must not be negative")
        if len(betas) != 2:
            raise ValueError(f"Invalid betas: {betas}; there are two of them, for the momentum and the normalizer")
        for index, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta{index + 1}: betas[{index}]={beta}; it must be in [0, 1)")
        if not eps > 0:
            raise ValueError(f"Invalid eps: {eps}; it must be above 0: a zero gradient would divide by zero")
        if not weight_decay >= 0:
            raise ValueError(f"Invalid weight_decay: {weight_decay}; it must not be negative")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update_group(group, (p for p in group["params"] if p.grad is not None))
        return loss

    def _update_group(self, group: dict, parameters: Iterable[torch.Tensor]) -> None:
        beta1, beta2 = group["betas"]
        lr, eps, decay = group["lr"], group["eps"], group["lr"] * group["weight_decay"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                # The name that DeepSpeed's universal checkpoints and offload look for.
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            for weight, gradient, momentum in _in_pieces(parameter, parameter.grad, state["exp_avg"]):
                normalizer = (momentum * momentum).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                normalizer.sqrt_().add_(eps)
                momentum.lerp_(gradient, 1 - beta1)
                if decay:
                    weight.mul_(1 - decay)
                weight.addcdiv_(momentum, normalizer, value=-lr)


def _in_pieces(*tensors: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Views of element-wise corresponding tensors, small enough that a temporary stays in cache.

    DeepSpeed hands over one flat tensor of all parameters, and a temporary of that size costs more than the arithmetic.
    """
    size = _PIECE_SIZE if tensors[0].device.type == "cpu" else _PIECE_SIZE_ON_DEVICE
    if all(tensor.is_contiguous() for tensor in tensors):
        return zip(*(tensor.view(-1).split(size) for tensor in tensors), strict=True)
    return [tensors]
