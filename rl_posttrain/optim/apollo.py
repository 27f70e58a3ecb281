"""APOLLO: AdamW's step sizes, learned in a random projection of the gradient (arXiv:2412.05270).

    r   = P g                                     r: [rank, longer side]; P: [rank, shorter side], random
    s   = |Adam(r)| / |r|                         one for each channel of the longer side, or one for the matrix
    w  <- (1 - lr * weight_decay) * w - lr * sqrt(scale) * limit(s * g)

A new P is drawn every so many steps. limit() lets the length of s * g grow by at most 1 % a step (Fira's limiter). All
other parameters take AdamW. The rule is that of the authors' package apollo-torch, which is not used because it depends
on bitsandbytes. pytorch_optimizer's class of this name moves weights by the projected gradient instead of g.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.checks import check_gradients, check_settings, evaluate
from rl_posttrain.optim.foreign import RefusesAdamW
from rl_posttrain.optim.projection import first_state, is_low_rank, low_rank_groups, moving

_GROWTH = 1.01
_SMALLEST_NORM = 1e-8


class APOLLO(RefusesAdamW, Optimizer):
    """APOLLO with decoupled weight decay. It needs whole matrices: no flat shards (ZeRO-1 to 3).

    Args:
        params: groups; a group with a ``rank`` holds matrices, and their state is low-rank. `from_model` makes them.
        update_proj_gap: steps from one random projection to the next.
        scale: the update of matrices is multiplied by its square root.
        scale_type: one step size for each ``"channel"`` (APOLLO), or one for the whole ``"tensor"`` (APOLLO-Mini, with
            rank 1 and scale 128).
        seed: decides the projections; every process and a resumed run draw the same.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    needs_whole_matrices = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        update_proj_gap: int = 200,
        scale: float = 1.0,
        scale_type: Literal["channel", "tensor"] = "channel",
        seed: int = 0,
    ):
        check_settings(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        if scale_type not in ("channel", "tensor"):
            raise ValueError(f"Invalid scale_type: {scale_type}; it must be 'channel' or 'tensor'")
        if not (update_proj_gap >= 1 and scale > 0):
            raise ValueError(f"Invalid update_proj_gap={update_proj_gap} or scale={scale}; both must be above 0")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "update_proj_gap": update_proj_gap,
            "scale": scale,
            "scale_type": scale_type,
            "seed": seed,
        }
        super().__init__(params, defaults)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        rank: int = 128,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        update_proj_gap: int = 200,
        scale: float = 1.0,
        scale_type: Literal["channel", "tensor"] = "channel",
        seed: int = 0,
    ):
        """APOLLO over the trainable parameters of `model`.

        Args:
            rank: of the state of hidden matrices; a matrix whose smaller side is not above it takes AdamW.

        Raises:
            ValueError: a hyperparameter is out of its range, or no matrix is larger than `rank`.
        """
        groups = low_rank_groups(model, rank, {})
        return cls(groups, lr, betas, eps, weight_decay, update_proj_gap, scale, scale_type, seed)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update; matrices with a zero gradient wait, and where all are zero, everything does."""
        loss = evaluate(closure)
        check_gradients(self)
        moved, place = moving(self.param_groups), 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= first_state(parameter, group)
                    if is_low_rank(parameter, group):
                        rank = min(state["exp_avg"].shape)
                        state["projection"] = parameter.new_zeros(rank, min(parameter.shape))
                        state["update_norm"] = parameter.new_zeros(())
                if parameter in moved:
                    self._update(parameter, state, group, seed=group["seed"] + 2**20 * place)
        return loss

    def _update(self, parameter: nn.Parameter, state: dict[str, Any], group: dict[str, Any], seed: int) -> None:
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        state["step"] += 1
        steps, projected, low_rank = state["step"], gradient, is_low_rank(parameter, group)
        if low_rank:
            if (steps - 1) % group["update_proj_gap"] == 0:
                state["projection"] = _random_projection(state["projection"], seed + steps)
            rows_are_long = gradient.shape[0] >= gradient.shape[1]
            projected = gradient @ state["projection"].T if rows_are_long else state["projection"] @ gradient
        state["exp_avg"].lerp_(projected, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(projected, projected, value=1 - beta2)
        update = state["exp_avg"] / state["exp_avg_sq"].sqrt().add_(group["eps"])
        if low_rank:
            over = {"dim": 1 if rows_are_long else 0, "keepdim": True} if group["scale_type"] == "channel" else {}
            factor = torch.linalg.vector_norm(update, **over)
            factor /= torch.linalg.vector_norm(projected, **over).add_(_SMALLEST_NORM)
            update = _limited(gradient * factor, state).mul_(group["scale"] ** 0.5)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * (1 - beta2**steps) ** 0.5 / (1 - beta1**steps))


def _random_projection(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Normal values of variance 1 / rank, of the shape of `like`, (rank, shorter side)."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype) / like.shape[0] ** 0.5


def _limited(update: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """`update`, of any shape, made shorter where its length grew by more than 1 % since the last step.

    A matrix's first update, before which the length is 0, has no limit.
    """
    norm, last = torch.linalg.vector_norm(update), state["update_norm"]
    excess = (norm / (last + _SMALLEST_NORM)).clamp_(min=_GROWTH).div_(_GROWTH)
    excess = excess.where(last > 0, 1.0)
    state["update_norm"] = norm / excess
    return update / excess
