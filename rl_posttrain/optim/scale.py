"""SCALE: SGD on column-normalized gradients, with momentum in the output layer only (arXiv:2506.16659).

    matrices [out, in]    w <- w - lr * N(g)
    output layer [V, d]   m <- momentum * m + (1 - momentum) * g;  w <- w - lr * N(m)
    vectors [n]           Adam, at a learning rate of their own

N divides the gradient of each output by its root mean square (`norm="rms"`, as the authors' code does) or by its
Euclidean length (`norm="l2"`, as the paper's text says). The two differ by sqrt(in), and so do the learning rates.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

import rl_posttrain.optim.scale_kernels as kernels
from rl_posttrain.errors import EngineError
from rl_posttrain.optim.batches import Batches
from rl_posttrain.optim.checks import (
    adopt_old_names,
    check_gradient,
    check_settings,
    check_shape,
    evaluate,
    has_triton,
    kernel_missing,
    local_parts,
)
from rl_posttrain.optim.foreign import ReadsFlatStates, adopt, loading, tell_replaced
from rl_posttrain.optim.native import can_compile
from rl_posttrain.optim.rounding import OFF, by_chance, step_keys
from rl_posttrain.optim.scale_roles import scale_groups
from rl_posttrain.optim.scale_shards import Shard, find_shards, update_dtensor, update_shard

_STATE_OF = {"matrix": (), "head": ("exp_avg",), "vector": ("step", "exp_avg", "exp_avg_sq")}


class SCALE(ReadsFlatStates, Optimizer):
    """SCALE with decoupled weight decay.

    It needs the norms of whole rows and columns. DeepSpeed's ZeRO-1 to 3 hand it flat shards, so it must learn once
    what they hold: recipes and `use_optimizer` do that, other code calls `find_shards`. DTensors (FSDP2) need no such
    call. The processes exchange one number for each norm.

    Args:
        params: groups with a ``role`` and an ``axis``; `scale_groups` makes them from a model, `from_model` does both.
        lr: of matrices and the output layer.
        momentum: of the output layer.
        norm: ``"rms"`` or ``"l2"``.
        betas, eps: of Adam for vectors.
        weight_decay: decoupled; of matrices and the output layer.
        fused: True: kernels for matrices and the output layer, C++ on a CPU and Triton on CUDA; False: torch's
            operations; None: the kernels where they run, else torch's operations. Parts of matrices (ZeRO-1 to 3,
            FSDP2) and, while a CUDA graph is captured, all matrices take torch's operations.
        maximize: go up instead of down.
        stochastic_rounding: round bf16 parameters up or down by chance, so that steps too small for bf16 arrive on
            average (arXiv:2010.06192), as `AdamS` does.

    Raises:
        ValueError: a hyperparameter is out of its range, or a group has no role.
        EngineError: at the step, when a matrix arrives flat and `find_shards` was not called, when `fused` is True and
            there is no kernel here, or when a CUDA graph is captured with `stochastic_rounding`.
    """

    _shards: Mapping[torch.Tensor, Shard] = {}

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.9,
        norm: Literal["rms", "l2"] = "rms",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool | None = None,
        *,
        maximize: bool = False,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "norm": norm,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "fused": fused,
            "maximize": maximize,
        }
        defaults |= OFF | {"stochastic_rounding": stochastic_rounding}
        _check_group(defaults)
        super().__init__(params, defaults)

    @classmethod
    def from_model(cls, model: nn.Module, *, lr: float = 1e-3, vector_lr: float | None = None, **options: Any):
        """SCALE over the trainable parameters of `model`; vectors take `vector_lr`, or `lr` where that is None."""
        groups = scale_groups(model)
        for group in groups:
            if group["role"] == "vector" and vector_lr is not None:
                group["lr"] = vector_lr
        return cls(groups, lr=lr, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if param_group.get("role") not in ("matrix", "head", "vector"):
            raise ValueError(
                f"Invalid role: {param_group.get('role')}; a group of SCALE says matrix, head or vector: make the "
                "groups with scale_groups(model), or the optimizer with SCALE.from_model(model)"
            )
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A state of an earlier version says it otherwise, or not at all.
        later = {"fused": None, "maximize": False} | OFF
        adopt_old_names(self.defaults, later)
        for group in self.param_groups:
            adopt_old_names(group, {name: self.defaults[name] for name in later})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's. The state of Adam, AdamW or Lion is taken over as `rl_posttrain.optim.foreign` says.

        The output layer takes ``exp_avg`` as its momentum, and vectors take Adam's whole state.

        Raises:
            ValueError: the state is of no such optimizer, or its parameters cannot be matched.
        """
        with loading(self, self._before_load, self._after_load):
            super().load_state_dict(state_dict)

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        if all("role" in group for group in state_dict["param_groups"]):
            tell_replaced(self, state_dict)
            return state_dict
        return adopt(self, state_dict, lambda group: _STATE_OF[group["role"]])

    def _after_load(self, state_dict: dict[str, Any]) -> None:
        for group in self.param_groups:
            _check_group(group)
            if group["role"] == "vector":
                for parameter in group["params"]:
                    state = self.state.get(parameter, {})
                    if set(state) < set(_STATE_OF["vector"]):
                        state.clear()  # not of Adam: it starts anew
                    elif state:
                        # torch leaves the counter where the file had it.
                        step = torch.as_tensor(state["step"], dtype=torch.float32)
                        state["step"] = step.to(parameter.device, copy=True)

    def find_shards(self, wrapper: Any) -> None:
        """Learn what the flat shards of DeepSpeed's ZeRO-1 to 3 hold. Call it before the first step.

        Args:
            wrapper: the engine or optimizer that ``deepspeed.initialize`` or accelerate made.
        """
        self._shards = find_shards(wrapper)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        numbers = itertools.count()
        for group in self.param_groups:
            given = []
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None:
                    check_gradient(gradient, "SCALE")
                    given.append((parameter, gradient))
            step = self._step_vectors if group["role"] == "vector" else self._step_matrices
            step(given, group, step_keys(group, numbers))
        return loss

    def _step_vectors(
        self, given: list[tuple[torch.Tensor, torch.Tensor]], group: dict[str, Any], keys: Iterator[int] | None
    ) -> None:
        places: dict[tuple, list[tuple]] = {}
        for parameter, gradient in given:
            state = self.state[parameter]
            if not parameter.numel():
                continue
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
            for kept in ("exp_avg", "exp_avg_sq"):
                check_shape(parameter, state[kept], what=kept)
            tensors = local_parts(parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
            places.setdefault((parameter.device, parameter.dtype), []).append((*tensors, state["step"]))
        for tensors in places.values():
            by_chance(kernels.update_vectors, keys)(tensors, group)

    def _step_matrices(
        self, given: list[tuple[torch.Tensor, torch.Tensor]], group: dict[str, Any], keys: Iterator[int] | None
    ) -> None:
        if "max_momentum" in group:
            # A schedule cycles momenta, such as OneCycleLR, and writes betas, because there are some.
            group = group | {"momentum": group["betas"][0]}
        if group["maximize"]:
            # The kernels go down. Both signs turned, weights still shrink; the momentum is that of the gradient.
            group = group | {"lr": -group["lr"], "weight_decay": -group["weight_decay"]}
        # Few lists: each of them takes some launches, and the update is short.
        batches = Batches(lambda matrix, _: (by_chance(_choose(matrix, group), keys), group), first_size=2**27)
        is_head, shards, momentum = group["role"] == "head", self._shards, None
        # On a GPU this loop can take longer than the update itself, so it calls as little as possible.
        for parameter, gradient in given:
            if is_head:
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum = state["exp_avg"]
                check_shape(parameter, momentum)
            else:
                self.state[parameter]  # torch.distributed.checkpoint looks for that of every parameter, if it is empty
            matrix = kernels.Matrix(parameter, gradient, momentum)
            if hasattr(parameter, "to_local"):
                update_dtensor(parameter, kernels.Matrix(*local_parts(*matrix)), group, keys and next(keys))
            elif shards and parameter in shards:
                update_shard(matrix, shards[parameter], group, keys and next(keys))
            elif parameter.ndim < 2:
                raise EngineError(
                    f"optimizer=scale: a {group['role']} arrives flat, of shape {tuple(parameter.shape)}, and its "
                    "columns' norms need to know what it holds; call optimizer.find_shards(engine) after "
                    "deepspeed.initialize (use_optimizer and recipes do), or use adams"
                )
            else:
                batches.add(matrix)
        batches.finish()


def _check_group(group: dict[str, Any]) -> None:
    check_settings(lr=group["lr"], betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"Invalid momentum: {group['momentum']}; it must be in [0, 1)")
    if group["norm"] not in ("rms", "l2"):
        raise ValueError(f"Invalid norm: {group['norm']}; it must be 'rms' or 'l2'")


def _choose(matrix: kernels.Matrix, group: dict[str, Any]) -> Callable:
    """The function that runs the step, as `fused` says, or by device and dtypes.

    Raises:
        EngineError: `fused` is True, and there is no kernel for this device.
    """
    fused, device = group["fused"], matrix.weight.device.type
    if fused is False or device == "meta":  # on which are shapes alone, such as the ledger's
        return kernels.update_single
    if device == "cpu":
        usable = fused or can_compile("scale", *kernels.value_types(matrix))
        return kernels.update_compiled if usable else kernels.update_single
    if has_triton(device):
        from rl_posttrain.optim.scale_triton import update_triton

        return update_triton
    if fused:
        raise kernel_missing("SCALE", device)
    return kernels.update_single
