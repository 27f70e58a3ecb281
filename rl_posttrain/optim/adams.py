"""AdamS: the momentum takes the place of Adam's second moment, so one buffer is enough (arXiv:2505.16363).

    nu_t = beta2 * m_{t-1}^2 + (1 - beta2) * g_t^2
    m_t  = beta1 * m_{t-1} + (1 - beta1) * g_t
    w_t  = (1 - lr * weight_decay) * w_{t-1} - lr * m_t / (sqrt(nu_t) + eps)

with m_0 = 0; g_t is the gradient and w_t the parameter, element by element, in any shape. There is no step counter and
no bias correction. `variant` has other rules of this name.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from rl_posttrain.optim.adams_state import adopt_universal, restore, step_device, steps_missing, to_load
from rl_posttrain.optim.adams_step import choose_way, scalars_of
from rl_posttrain.optim.batches import Batches
from rl_posttrain.optim.checks import (
    adopt_old_names,
    check_gradient,
    check_settings,
    check_shape,
    evaluate,
    local_parts,
)
from rl_posttrain.optim.foreign import ReadsFlatStates, loading
from rl_posttrain.optim.rounding import OFF, by_chance, step_keys

Variant = Literal["paper", "authors", "new_momentum"]
_STATE_DTYPES = ("bfloat16", "float32")


class AdamS(ReadsFlatStates, Optimizer):
    """AdamS with decoupled weight decay. It takes the place of `torch.optim.AdamW`, and takes all of its arguments.

    An element moves by at most ``lr * sqrt(beta1^2 / beta2 + (1 - beta1)^2 / (1 - beta2))`` a step: 1.026 lr at the
    defaults (0.9, 0.95). The state is one buffer, ``exp_avg``, in the parameter's shape. The arithmetic is done in fp32
    (fp64 for fp64 parameters), whatever dtypes parameters and state are kept in.

    Args:
        params: parameters or parameter groups, of any shapes.
        lr: learning rate; a tensor of one element may be changed in place.
        betas: beta1, the decay of the momentum, and beta2, the weight of the old momentum in the normalizer.
        eps: added to the square root, so that a parameter whose gradient was always zero stays where it is.
        weight_decay: decoupled, as in AdamW.
        amsgrad: False: there is no second moment whose maximum could be kept.
        maximize: go up instead of down.
        foreach: use torch's multi-tensor operations.
        fused: use one kernel that reads and writes each element once: Triton on CUDA, C++ on a CPU, compiled on first
            use. As in torch, at most one of `foreach` and `fused` is True, and False for either with no True means one
            tensor after the other. None for both chooses: the kernel where it runs (on a CPU from 2**16 elements on),
            else multi-tensor operations on an accelerator and one tensor after the other on a CPU.
        capturable: keep every number of a step on the device, so that a CUDA graph can hold the step. `lr` must then
            be a tensor there to follow a schedule.
        differentiable: False: the buffer is updated in place, which autograd cannot differentiate.
        bias_correction: divide m_{t-1} and m_t by 1 - beta1^t. The authors' published code does so, the paper's rule
            does not: the first step is 4.47 lr instead of 0.447 lr. It adds a step counter to each parameter's state.
        eps_inside_sqrt: sqrt(nu + eps) instead of sqrt(nu) + eps.
        variant: ``"paper"``: its rule. ``"authors"``: their published code, which is `bias_correction`.
            ``"new_momentum"``: nu_t = beta2 * m_t^2 + (1 - beta2) * g_t^2, as some copies have it; torch's operations
            run it, not the kernels.
        state_dtype: of the buffer: ``"bfloat16"``, ``"float32"`` or torch's names; None for the parameter's own.
        stochastic_rounding: round bf16 parameters up or down at random, so that steps too small for bf16 arrive on
            average (arXiv:2010.06192). It is for bf16 weights without fp32 masters; other dtypes are not touched. The
            random numbers follow from the step's number and the parameter's, so a resumed run rounds alike.

    Raises:
        ValueError: a hyperparameter is out of its range.
        EngineError: at the step, when `fused` is True and there is no kernel here.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        bias_correction: bool = False,
        eps_inside_sqrt: bool = False,
        variant: Variant = "paper",
        state_dtype: str | torch.dtype | None = None,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
            "bias_correction": bias_correction,
            "variant": variant,
            "eps_inside_sqrt": eps_inside_sqrt,
            # By name: a state_dict of plain values passes through every checkpoint format.
            "state_dtype": None if state_dtype is None else str(state_dtype).removeprefix("torch."),
        }
        defaults |= OFF | {"stochastic_rounding": stochastic_rounding}
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check_group(group)
        group["bias_correction"] = group["bias_correction"] or group["variant"] == "authors"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A state of an earlier version names fewer settings, and one otherwise.
        own = {"foreach": None, "fused": None, "amsgrad": False, "variant": "paper"}
        adopt_old_names(self.defaults, own | OFF)
        for group in self.param_groups:
            adopt_old_names(group, self.defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, except that the buffer keeps `state_dtype` and the step counter its place.

        torch casts the buffer to the parameter's dtype, and takes the counter to its device where `fused` is True.
        The state of Adam, AdamW or Lion is taken over as `rl_posttrain.optim.foreign` says: ``exp_avg`` is the
        momentum, and the settings stay those of this optimizer.

        Raises:
            ValueError: the state is of no such optimizer, its parameters cannot be matched, or `bias_correction` needs
                steps that it has not counted.
        """
        with loading(self, functools.partial(to_load, self), self._after_load):
            super().load_state_dict(state_dict)

    def _after_load(self, state_dict: dict[str, Any]) -> None:
        for group in self.param_groups:
            _check_group(group)
        restore(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        total = sum(parameter.numel() for group in self.param_groups for parameter in group["params"])
        numbers = itertools.count()
        for group in self.param_groups:
            keys = step_keys(group, numbers)
            batches = Batches(
                lambda triple, step, group=group, keys=keys: (
                    by_chance(choose_way(group, triple, total), keys),
                    scalars_of(group, step, triple[0].device),
                )
            )
            dtype = getattr(torch, group["state_dtype"]) if group["state_dtype"] else None
            # On a GPU this loop can take longer than the update itself, so it calls as little as possible.
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                check_gradient(gradient, "AdamS")
                state = self.state[parameter]
                momentum, step = state.get("exp_avg"), None
                if momentum is None or momentum.dtype is not (dtype or parameter.dtype) or "exp_avg_sq" in state:
                    momentum = self._prepare(group, parameter, dtype or parameter.dtype)
                if momentum.shape != parameter.shape:
                    check_shape(parameter, momentum)
                if group["bias_correction"]:
                    if "step" not in state:
                        raise steps_missing(group)
                    state["step"] += 1
                    step = state["step"] if group["capturable"] else state["step"].item()
                tensors = (parameter, gradient, momentum)
                batches.add(local_parts(*tensors) if hasattr(parameter, "to_local") else tensors, step)
            batches.finish()
        return loss

    def _prepare(self, group: dict[str, Any], parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Make the state, or turn what a checkpoint brought into ours; returns the momentum."""
        state = self.state[parameter]
        if state:
            adopt_universal(state, dtype, keeps_step=group["bias_correction"])
        else:
            # The name that DeepSpeed's universal checkpoints and offload look for.
            state["exp_avg"] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
            if group["bias_correction"]:
                state["step"] = torch.zeros((), dtype=torch.float32, device=step_device(group, parameter))
        return state["exp_avg"]


def _check_group(group: dict[str, Any]) -> None:
    check_settings(lr=group["lr"], betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])
    if group["state_dtype"] not in (None, *_STATE_DTYPES):
        raise ValueError(f"Invalid state_dtype: {group['state_dtype']}; it must be one of {_STATE_DTYPES}, or None")
    if group["variant"] not in get_args(Variant):
        raise ValueError(f"Invalid variant: {group['variant']}; it must be one of {get_args(Variant)}")
    if group["variant"] == "new_momentum" and group["fused"]:
        raise ValueError("Invalid fused: True with variant=new_momentum; it has no kernel, leave fused out")
    if group["amsgrad"]:
        raise ValueError("Invalid amsgrad: True; AdamS keeps no second moment whose maximum it could take")
    if group["differentiable"]:
        raise ValueError("Invalid differentiable: True; AdamS changes its buffer in place, leave it out")
    if group["stochastic_rounding"] and group["capturable"]:
        raise ValueError(
            "Invalid stochastic_rounding: True with capturable=True; a CUDA graph repeats one step's random numbers"
        )
    if group["foreach"] and group["fused"]:
        raise ValueError("Invalid foreach: True with fused=True; at most one of the two may be True")
    _warn_about(*group["betas"])


@functools.cache
def _warn_about(beta1: float, beta2: float) -> None:
    """Warn once about betas with which unstable training was reported."""
    bound = math.sqrt(beta1**2 / beta2 + (1 - beta1) ** 2 / (1 - beta2)) if beta2 else math.inf
    if beta2 > 0.99:
        seen = f"the normalizer follows the gradient so slowly that one element may move {bound:.2f} lr in a step"
    elif beta1 > 0.95 and beta2 > 0.98:
        seen = "momentum and normalizer both lag the gradient"
    else:
        return
    warnings.warn(
        f"AdamS with betas=({beta1}, {beta2}): {seen}, and unstable training was reported there; its paper uses "
        "(0.9, 0.95), also where AdamW runs with beta2=0.999",
        stacklevel=5,
    )
