"""PowerStep: a power of the momentum instead of a division by a second moment (arXiv:2605.10335).

    m_t = momentum * m_{t-1} + g_t
    w_t = w_{t-1} - lr * (sign(m_t) * |m_t|^power + weight_decay * w_{t-1})

with m_0 = 0; g_t is the gradient and w_t the parameter, element by element, in any shape. With a power of 1 it is SGD
with momentum, with a power of 0 the sign of the momentum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from rl_posttrain.optim.checks import check_settings, evaluate
from rl_posttrain.optim.elementwise import step_groups
from rl_posttrain.optim.foreign import loading, nothing_to_adopt

_STATE_DTYPES = ("bfloat16", "float32")


class PowerStep(Optimizer):
    """PowerStep with decoupled weight decay.

    The state is one buffer, ``momentum_buffer``, in the parameter's shape; with ``momentum=0`` there is none. The
    arithmetic is done in fp32 (fp64 for fp64 parameters), whatever dtypes parameters and state are kept in.

    Args:
        params: parameters or parameter groups, of any shapes.
        lr: learning rate. An element whose momentum is of size 1 moves by lr, one of size 1e-5 by 0.32 lr (at a power
            of 0.1), so that rates are near those of a sign.
        momentum: the decay of the sum of gradients, gamma in the paper; in [0, 1).
        power: of the momentum's size, beta in the paper; in [0, 1].
        weight_decay: decoupled, as in AdamW.
        maximize: go up instead of down.
        foreach: True for torch's multi-tensor operations, False for one tensor after the other, None for the first on
            an accelerator and the second on a CPU.
        state_dtype: of the buffer: ``"bfloat16"``, ``"float32"`` or torch's names; None for the parameter's own.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0.9,
        power: float = 0.1,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        state_dtype: str | torch.dtype | None = None,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "power": power,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            # By name: a state_dict of plain values passes through every checkpoint format.
            "state_dtype": None if state_dtype is None else str(state_dtype).removeprefix("torch."),
        }
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, except that the buffer keeps `state_dtype`; torch casts it to the parameter's dtype.

        Raises:
            ValueError: another optimizer saved the state.
        """
        with loading(self, self._before_load, self._after_load):
            super().load_state_dict(state_dict)

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        if not all("power" in group for group in state_dict["param_groups"]):
            raise nothing_to_adopt(self, state_dict)
        return state_dict

    def _after_load(self, state_dict: dict[str, Any]) -> None:
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            _check_group(group)
            for parameter, place in zip(group["params"], saved["params"], strict=True):
                loaded = state_dict["state"].get(place, {}).get("momentum_buffer")
                if loaded is not None:
                    dtype = _state_dtype(group, parameter)
                    self.state[parameter]["momentum_buffer"] = loaded.to(parameter.device, dtype, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        step_groups(self, _scalars, _update_piece, _update_lists, self._momentum)
        return loss

    def _momentum(self, group: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor | None:
        """The buffer of `parameter`, made where it is missing; None where there is no momentum."""
        if not group["momentum"]:
            return None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            dtype = _state_dtype(group, parameter)
            state["momentum_buffer"] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
        return state["momentum_buffer"]


class _Scalars(NamedTuple):
    """The numbers of one step; `shrink` and `step` may be tensors of shape ()."""

    keep: float
    sign: float
    power: float
    shrink: float | torch.Tensor
    step: float | torch.Tensor


def _scalars(group: dict[str, Any], lr: float | torch.Tensor) -> _Scalars:
    return _Scalars(
        keep=group["momentum"],
        sign=-1.0 if group["maximize"] else 1.0,
        power=group["power"],
        shrink=1 - lr * group["weight_decay"],
        step=lr,
    )


def _check_group(group: dict[str, Any]) -> None:
    check_settings(lr=group["lr"], weight_decay=group["weight_decay"])
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"Invalid momentum: {group['momentum']}; it must be in [0, 1)")
    if not 0 <= group["power"] <= 1:
        raise ValueError(f"Invalid power: {group['power']}; it must be in [0, 1]")
    if group["state_dtype"] not in (None, *_STATE_DTYPES):
        raise ValueError(f"Invalid state_dtype: {group['state_dtype']}; it must be one of {_STATE_DTYPES}, or None")


def _state_dtype(group: dict[str, Any], parameter: torch.Tensor) -> torch.dtype:
    return getattr(torch, group["state_dtype"]) if group["state_dtype"] else parameter.dtype


def _update_piece(
    weight: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor | None, scalars: _Scalars
) -> None:
    if momentum is None:
        momentum = gradient * scalars.sign
    else:
        momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.sign)
    update = momentum.abs().pow_(scalars.power).mul_(momentum.sign())
    weight.mul_(scalars.shrink).sub_(update.mul_(scalars.step))


def _update_lists(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    momenta: list[torch.Tensor] | None,
    scalars: _Scalars,
) -> None:
    if momenta is None:
        momenta = torch._foreach_mul(gradients, scalars.sign)
    else:
        torch._foreach_mul_(momenta, scalars.keep)
        torch._foreach_add_(momenta, gradients, alpha=scalars.sign)
    updates = torch._foreach_abs(momenta)
    torch._foreach_pow_(updates, scalars.power)
    torch._foreach_mul_(updates, torch._foreach_sign(momenta))
    torch._foreach_mul_(updates, scalars.step)
    torch._foreach_mul_(weights, scalars.shrink)
    torch._foreach_sub_(weights, updates)
