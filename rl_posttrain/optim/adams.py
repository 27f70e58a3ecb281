"""AdamS: the momentum is its own normalizer, so that there is no second moment to store (arXiv:2505.16363).

    nu_t = beta2 * m_{t-1}^2 + (1 - beta2) * g_t^2
    m_t  = beta1 * m_{t-1} + (1 - beta1) * g_t
    w_t  = (1 - lr * weight_decay) * w_{t-1} - lr * m_t / (sqrt(nu_t) + eps)

with m_0 = 0. One buffer a parameter, no step counter and no bias correction.
"""

import functools
import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.optim.optimizer import Optimizer, ParamsT

import rl_posttrain.optim.adams_kernels as kernels
from rl_posttrain.errors import EngineError
from rl_posttrain.optim.checks import check_gradient, check_settings, evaluate, local_parts
from rl_posttrain.optim.native import can_compile

Implementation = Literal["auto", "compiled", "triton", "foreach", "single"]
_IMPLEMENTATIONS = ("auto", "compiled", "triton", "foreach", "single")
_STATE_DTYPES = ("bfloat16", "float32")
COMPILED_FROM = 2**16
"""Elements from which "auto" compiles on a CPU: below, a step is over before a compiler has started."""


class AdamS(Optimizer):
    """AdamS with decoupled weight decay.

    An element moves by at most ``lr * sqrt(beta1^2 / beta2 + (1 - beta1)^2 / (1 - beta2))`` a step: 1.026 lr at the
    defaults. The state is one buffer, ``exp_avg``, in the parameter's shape. The arithmetic is done in fp32 whatever
    dtypes parameters and state are kept in (fp64 for fp64 parameters).

    There is no ``differentiable``: the buffer is updated in place, which autograd cannot go back through.

    Args:
        params: parameters or parameter groups, as for `torch.optim.AdamW`.
        lr: learning rate; a tensor of one element may be changed in place.
        betas: decay of the momentum, and weight of the old momentum in the normalizer.
        eps: added to the square root; it keeps a parameter whose gradient has always been zero where it is.
        weight_decay: decoupled, as in AdamW.
        maximize: go up instead of down.
        foreach: as in torch: True is ``implementation="foreach"``, False ``"single"``.
        capturable: keep every number of a step on the device, so that a CUDA graph can hold the step. `lr` must then
            be a tensor there to follow a schedule.
        bias_correction: divide m_{t-1} and m_t by 1 - beta1^t, as the authors' published code does and the paper's rule
            does not: the first step is 4.47 lr instead of 0.447 lr. It adds a step counter to each parameter's state.
        eps_inside_sqrt: sqrt(nu + eps) instead of sqrt(nu) + eps.
        state_dtype: of the buffer: ``"bfloat16"``, ``"float32"`` or torch's names; None for the parameter's own.
        implementation: how a step is run. ``"auto"``: on CUDA Triton where it is installed; on a CPU a compiled kernel
            for 2**16 parameters or more where there is a C++ compiler; plain operations everywhere else.

    Raises:
        ValueError: a hyperparameter is out of its range.
        EngineError: at the step, when a named implementation cannot run here.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        bias_correction: bool = False,
        eps_inside_sqrt: bool = False,
        state_dtype: str | torch.dtype | None = None,
        implementation: Implementation = "auto",
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "bias_correction": bias_correction,
            "eps_inside_sqrt": eps_inside_sqrt,
            # By name: a state_dict of plain values passes through every checkpoint format.
            "state_dtype": None if state_dtype is None else str(state_dtype).removeprefix("torch."),
            "implementation": implementation,
        }
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A state of an earlier version names fewer settings.
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, except that the buffer keeps `state_dtype`: torch casts it to the parameter's dtype."""
        super().load_state_dict(state_dict)
        saved = itertools.chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = state_dict["state"].get(next(saved), {}).get("exp_avg")
                if buffer is not None:
                    dtype = _state_dtype(group, parameter)
                    self.state[parameter]["exp_avg"] = buffer.to(parameter.device, dtype, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        total = sum(parameter.numel() for group in self.param_groups for parameter in group["params"])
        for group in self.param_groups:
            batches: dict[tuple, list] = {}
            scalars: dict[tuple, kernels.Scalars] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                triple, step = self._prepare(group, parameter)
                key = (triple[0].device, *(tensor.dtype for tensor in triple), step)
                batches.setdefault(key, []).append(triple)
                if key not in scalars:
                    scalars[key] = _scalars(group, step, triple[0].device)
            for key, triples in batches.items():
                _choose(group, triples[0], total)(triples, scalars[key])
        return loss

    def _prepare(self, group: dict[str, Any], parameter: torch.Tensor) -> tuple[kernels.Triple, Any]:
        """The tensors that the step is done on, and the count of steps if it matters."""
        check_gradient(parameter.grad, "AdamS")
        state, dtype = self.state[parameter], _state_dtype(group, parameter)
        if not state:
            # The name that DeepSpeed's universal checkpoints and offload look for.
            state["exp_avg"] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
            if group["bias_correction"]:
                place = parameter.device if group["capturable"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=place)
        elif "exp_avg_sq" in state or state["exp_avg"].dtype is not dtype:
            _adopt(state, dtype, keeps_step=group["bias_correction"])
        step = None
        if group["bias_correction"]:
            state["step"] += 1
            step = state["step"] if group["capturable"] else state["step"].item()
        return local_parts(parameter, parameter.grad, state["exp_avg"]), step


def _check_group(group: dict[str, Any]) -> None:
    check_settings(lr=group["lr"], betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])
    if group["state_dtype"] not in (None, *_STATE_DTYPES):
        raise ValueError(f"Invalid state_dtype: {group['state_dtype']}; it must be one of {_STATE_DTYPES}, or None")
    if group["implementation"] not in _IMPLEMENTATIONS:
        raise ValueError(f"Invalid implementation: {group['implementation']}; it must be one of {_IMPLEMENTATIONS}")
    if group["foreach"] is not None and group["implementation"] != "auto":
        raise ValueError(
            f"Invalid foreach: {group['foreach']} with implementation={group['implementation']}; give one of the two"
        )
    _warn_about(*group["betas"])


@functools.cache
def _warn_about(beta1: float, beta2: float) -> None:
    """A word, once, on betas that training was seen to suffer from."""
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


def _state_dtype(group: dict[str, Any], parameter: torch.Tensor) -> torch.dtype:
    return getattr(torch, group["state_dtype"]) if group["state_dtype"] else parameter.dtype


def _adopt(state: dict[str, Any], dtype: torch.dtype, *, keeps_step: bool) -> None:
    """Make AdamS's state of what a universal checkpoint of DeepSpeed loads: fp32, and under ZeRO-3 all of Adam's."""
    state.pop("exp_avg_sq", None)
    step = state.pop("step", None)
    if keeps_step:
        state["step"] = step.clone()  # ZeRO-3 gives all of its sub-groups the same tensor
    state["exp_avg"] = state["exp_avg"].to(dtype)


def _scalars(group: dict[str, Any], step: Any, device: torch.device) -> kernels.Scalars:
    beta1, beta2 = group["betas"]
    lr = group["lr"]
    if isinstance(lr, torch.Tensor):
        # Reading a number of the CPU costs nothing; one of a device stays there.
        lr = lr.item() if lr.device.type == "cpu" else lr.to(device)
    if isinstance(step, torch.Tensor):
        step = step.double()  # 1 - beta1**step loses digits while step is small
    correction = 1.0 if step is None else 1 / (1 - beta1**step)
    inside = group["eps_inside_sqrt"]
    return kernels.Scalars(
        old=beta2 * correction**2,
        new=1 - beta2,
        keep=beta1,
        add=beta1 - 1 if group["maximize"] else 1 - beta1,
        inner_eps=group["eps"] if inside else 0.0,
        outer_eps=0.0 if inside else group["eps"],
        shrink=1 - lr * group["weight_decay"],
        step=lr * correction,
    )


def _choose(group: dict[str, Any], triple: kernels.Triple, num_elements: int) -> Callable:
    """The function that runs the step, by name or by device and size.

    Raises:
        EngineError: the named one cannot run on this device.
    """
    name, device = group["implementation"], triple[0].device.type
    if group["foreach"] is not None:
        name = "foreach" if group["foreach"] else "single"
    if device == "meta":
        name = "foreach"  # shapes alone, such as the ledger's
    if name == "auto":
        if device == "cpu":
            large = num_elements >= COMPILED_FROM
            name = "compiled" if large and can_compile("adams", *(tensor.dtype for tensor in triple)) else "single"
        else:
            name = "triton" if device == "cuda" and importlib.util.find_spec("triton") else "foreach"
    if name == "triton":
        if device != "cuda":
            raise EngineError(f"implementation=triton: the parameters are on {device}; it needs CUDA, or set auto")
        from rl_posttrain.optim.adams_triton import update_triton

        return update_triton
    if name == "compiled":
        if device != "cpu":
            raise EngineError(f"implementation=compiled: the parameters are on {device}; it is for a CPU, or set auto")
        return kernels.update_compiled
    return {"foreach": kernels.update_foreach, "single": kernels.update_single}[name]
