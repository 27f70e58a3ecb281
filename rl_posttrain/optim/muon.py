"""Muon for hidden matrices and AdamW for all else, both torch's, as one optimizer (arXiv:2502.16982).

hidden matrices [out, in]                           torch.optim.Muon: the momentum, orthogonalized by Newton-Schulz
embeddings, output layer, vectors, 3-D experts      torch.optim.AdamW
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.checks import check_gradients, evaluate, unhooked
from rl_posttrain.optim.foreign import nothing_to_adopt
from rl_posttrain.optim.roles import roled_parameters


class Muon(Optimizer):
    """Muon over a whole model; torch's takes matrices only. It needs whole matrices: no flat shards (ZeRO-1 to 3).

    Args:
        params: groups with an ``update``, ``"muon"`` or ``"adamw"``; `from_model` makes them.
        lr: of both.
        weight_decay: decoupled, of both.
        momentum, nesterov, ns_steps: of Muon.
        adjust_lr_fn: the factor of `lr` in Muon's step: ``"match_rms_adamw"`` is 0.2 sqrt(max(out, in)), so that one
            learning rate and weight decay suit both halves; ``"original"`` is sqrt(max(1, out / in)).
        betas, eps: of AdamW.

    Raises:
        ValueError: a hyperparameter is out of its range, a group has no ``update``, or a group for Muon holds something
            other than matrices.
    """

    needs_whole_matrices = True

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        # Each half starts with an empty group, so that its settings are checked even if the model does not need it.
        self._halves = {
            "muon": torch.optim.Muon(
                [{"params": []}],
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn=adjust_lr_fn,
            ),
            "adamw": torch.optim.AdamW([{"params": []}], lr=lr, weight_decay=weight_decay, betas=tuple(betas), eps=eps),
        }
        # Schedules that cycle a momentum look for it here.
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_halves": self._halves}

    @classmethod
    def from_model(cls, model: nn.Module, *, lr: float = 1e-3, **options: Any):
        """Muon over the trainable parameters of `model`."""
        taken: dict[str, list[nn.Parameter]] = {"muon": [], "adamw": []}
        for roled in roled_parameters(model):
            hidden = roled.role == "matrices" and len(roled.shape) == 2
            taken["muon" if hidden else "adamw"].append(roled.parameter)
        return cls(
            [{"params": params, "update": update} for update, params in taken.items() if params], lr=lr, **options
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        update = param_group.get("update")
        if update not in self._halves:
            raise ValueError(
                f"Invalid update: {update}; a group of Muon says muon or adamw: make the optimizer with "
                "Muon.from_model(model)"
            )
        super().add_param_group(param_group)
        if update == "muon" and any(parameter.ndim != 2 for parameter in param_group["params"]):
            raise ValueError("Invalid group: muon is for matrices; the others' update is adamw")
        if update == "adamw":
            del param_group["momentum"]
        # The half fills in the settings that the group leaves out.
        self._halves[update].add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's.

        Raises:
            ValueError: another optimizer saved the state.
        """
        if not all("update" in group for group in state_dict["param_groups"]):
            raise nothing_to_adopt(self, state_dict)
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        loss = evaluate(closure)
        check_gradients(self)
        for update, half in self._halves.items():
            # Groups and state belong to this optimizer, also after a load; the halves only make the step.
            half.param_groups = [_with_cycled_beta(group) for group in self.param_groups if group["update"] == update]
            half.state = self.state
            if half.param_groups:
                unhooked(half.step)(half)
        return loss


def _with_cycled_beta(group: dict[str, Any]) -> dict[str, Any]:
    """`group`, of either half, with AdamW's beta1 where a schedule cycles momenta: OneCycleLR writes ``momentum``."""
    if group["update"] == "adamw" and "max_momentum" in group:
        return group | {"betas": (group["momentum"], group["betas"][1])}
    return group
