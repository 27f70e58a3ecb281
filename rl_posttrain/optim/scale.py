"""SCALE: SGD on column-normalized gradients, with momentum in the output layer only (arXiv:2506.16659).

    matrices      w <- w - lr * N(g)
    output layer  m <- momentum * m + (1 - momentum) * g;  w <- w - lr * N(m)
    vectors       Adam, at a learning rate of their own

N divides each output's gradient by its root mean square (`norm="rms"`, as the authors' code does) or its Euclidean
length (`norm="l2"`, as the paper's text says); they are sqrt(length) apart, and learning rates with them.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from rl_posttrain.errors import EngineError
from rl_posttrain.optim.checks import check_gradient, check_settings

_SMALLEST_NORM = 1e-8


class SCALE(Optimizer):
    """SCALE with decoupled weight decay. It needs whole matrices: no flat shards (ZeRO-1 to 3), no DTensors.

    Args:
        params: groups with a ``role`` as `scale_groups` makes them from a model; `from_model` does both.
        lr: of matrices and the output layer.
        momentum: of the output layer.
        norm: ``"rms"`` or ``"l2"``.
        betas, eps: of Adam for vectors.
        weight_decay: decoupled; for matrices and the output layer.

    Raises:
        ValueError: a hyperparameter is out of its range, or a group has no role.
        EngineError: at the step, when a matrix arrives flat or sharded.
    """

    needs_whole_matrices = True

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.9,
        norm: Literal["rms", "l2"] = "rms",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        check_settings(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"Invalid momentum: {momentum}; it must be in [0, 1)")
        if norm not in ("rms", "l2"):
            raise ValueError(f"Invalid norm: {norm}; it must be 'rms' or 'l2'")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "norm": norm,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
        }
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
        if param_group.get("role") not in _UPDATES:
            raise ValueError(
                f"Invalid role: {param_group.get('role')}; a group of SCALE says matrix, head or vector: make the "
                "groups with scale_groups(model), or the optimizer with SCALE.from_model(model)"
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.numel():
                    continue
                check_gradient(parameter.grad, "SCALE")
                if group["role"] != "vector" and (parameter.ndim < 2 or hasattr(parameter, "to_local")):
                    kind = "a shard" if hasattr(parameter, "to_local") else f"flat, of shape {tuple(parameter.shape)}"
                    raise EngineError(
                        f"optimizer=scale: a {group['role']} arrives as {kind}, but its columns' norms need the whole "
                        "matrix; set distributed.zero_stage: 0 (no FSDP), or use adams"
                    )
                _UPDATES[group["role"]](parameter, parameter.grad.to(_opmath(parameter)), self.state[parameter], group)
        return loss


def scale_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters of `model` by role, with the dimension that their gradients are normalized over.

    ==========================  ========  ====  =====================================================
    nn.Linear, LoRA [out, in]   matrix     1    each output's weights
    HF Conv1D [in, out]         matrix     0    each output's weights
    nn.Embedding [V, d]         matrix     0    each feature over the vocabulary, as the authors do
    experts [E, out, in]        matrix    -1    each output of each expert; [E, in, out]: dimension 1
    output layer [V, d]         head       1    each token's weights, of the momentum
    tied embedding [V, d]       head       1    it is the output layer too, and is taken as that
    norms, biases               vector    none  Adam
    ==========================  ========  ====  =====================================================

    The output layer is what `get_output_embeddings` returns, or a module called lm_head. A model without one, or with a
    frozen one (LoRA), has no head group, and nothing has momentum.

    Raises:
        ValueError: a parameter has more than three dimensions; convolutions are not in the paper.
    """
    head = _output_layer(model)
    found: dict[tuple[str, int | None], list[nn.Parameter]] = {}
    seen = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                key = ("head", 1) if parameter is head else _role(module, parameter, f"{module_name}.{name}")
                found.setdefault(key, []).append(parameter)
    return [{"params": params, "role": role, "axis": axis} for (role, axis), params in found.items()]


def _output_layer(model: nn.Module) -> nn.Parameter | None:
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if layer is None:
        named = (module for name, module in model.named_modules() if name.rpartition(".")[2] == "lm_head")
        layer = next(named, None)
    return getattr(layer, "weight", None)


def _role(module: nn.Module, parameter: nn.Parameter, name: str) -> tuple[str, int | None]:
    if parameter.ndim < 2 or name.endswith("bias"):  # experts' biases are [E, out]
        return "vector", None
    if parameter.ndim > 3:
        raise ValueError(f"{name}={tuple(parameter.shape)}: SCALE has no rule for it; leave it out, or use adams")
    if parameter.ndim == 3:
        # transformers marks experts whose weights stand as [E, in, out].
        return "matrix", 1 if getattr(module, "is_transposed", False) else -1
    by_input = isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D"
    return "matrix", 0 if by_input else 1


def _opmath(parameter: torch.Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype is torch.float64 else torch.float32


def _descend(parameter: torch.Tensor, direction: torch.Tensor, group: dict[str, Any]) -> None:
    lr, norm, axis = group["lr"], group["norm"], group["axis"]
    size = torch.linalg.vector_norm(direction, dim=axis, keepdim=True)
    if norm == "rms":
        size /= direction.shape[axis] ** 0.5
    weight = parameter.to(direction.dtype)
    weight = weight.mul(1 - lr * group["weight_decay"]).sub_(direction / size.clamp_(min=_SMALLEST_NORM), alpha=lr)
    parameter.copy_(weight)


def _update_matrix(parameter, gradient, state, group) -> None:
    _descend(parameter, gradient, group)


def _update_head(parameter, gradient, state, group) -> None:
    if not state:
        state["exp_avg"] = torch.zeros_like(parameter)
    momentum = state["exp_avg"].to(gradient.dtype).lerp(gradient, 1 - group["momentum"])
    state["exp_avg"].copy_(momentum)
    _descend(parameter, momentum, group)


def _update_vector(parameter, gradient, state, group) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
    state["step"] += 1
    count, (beta1, beta2) = state["step"].item(), group["betas"]
    mean = state["exp_avg"].to(gradient.dtype).lerp(gradient, 1 - beta1)
    square = state["exp_avg_sq"].to(gradient.dtype).mul(beta2).addcmul(gradient, gradient, value=1 - beta2)
    state["exp_avg"].copy_(mean)
    state["exp_avg_sq"].copy_(square)
    divisor = (square / (1 - beta2**count)).sqrt_().add_(group["eps"])
    weight = parameter.to(gradient.dtype).sub(mean / divisor, alpha=group["lr"] / (1 - beta1**count))
    parameter.copy_(weight)


_UPDATES = {"matrix": _update_matrix, "head": _update_head, "vector": _update_vector}
