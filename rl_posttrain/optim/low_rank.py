"""GaLore (arXiv:2403.03507) and Fira (arXiv:2410.01623): the classes of pytorch_optimizer, built from a model.

Both run AdamW on the gradient projected to its largest singular vectors, which are computed again every so many steps.
Fira also adds the rest of the gradient, scaled. Each of AdamW's two buffers is [rank, longer side] for a matrix.
"""

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from torch import nn

from rl_posttrain.optim.checks import check_gradients, evaluate, unhooked
from rl_posttrain.optim.packaged import Packaged
from rl_posttrain.optim.projection import first_state, is_low_rank, low_rank_groups, moving

# States of earlier versions contain it, and transformers loads checkpoints with weights_only=True: only tensors and
# what is named here.
torch.serialization.add_safe_globals([GaLoreProjector])


class _LowRank(Packaged):
    """The package's step, parameter by parameter: each counts its own steps, and a matrix without a gradient waits.

    The package counts steps of a group, and keeps its projector, an object, in the state. Here the state is made of
    tensors and numbers, which every form of checkpoint can hold.
    """

    needs_whole_matrices = True
    _limit: str | None = None  # under which name the class keeps the length of its last update

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        rank: int = 128,
        update_proj_gap: int = 200,
        scale: float = 0.25,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        """The optimizer over the trainable parameters of `model`.

        Args:
            rank: of the state of hidden matrices; a matrix whose smaller side is not above it takes AdamW.
            update_proj_gap: steps from one singular value decomposition to the next.
            scale: factor of the projected update.

        Raises:
            ValueError: a hyperparameter is out of its range, or no matrix is larger than `rank`.
        """
        settings = {"update_proj_gap": update_proj_gap, "scale": scale, "projection_type": "std"}
        groups = low_rank_groups(model, rank, settings)
        return cls(groups, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "rank" in param_group and param_group.setdefault("projection_type", "std") != "std":
            raise ValueError(
                f"Invalid projection_type: {param_group['projection_type']}; {type(self).__name__} projects the "
                "shorter side, which is 'std'"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # An earlier version counted a group's steps, and kept the package's projector.
        for group in self.param_groups:
            steps = group.pop("step", 0)
            for state in (self.state[parameter] for parameter in group["params"] if parameter in self.state):
                state.setdefault("step", steps)
                if "projector" in state:
                    state["projection"] = state.pop("projector").ortho_matrix.clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update; matrices with a zero gradient wait, and where all are zero, everything does."""
        loss = evaluate(closure)
        check_gradients(self)
        moved, own_groups, counted = moving(self.param_groups), self.param_groups, []
        for group in own_groups:
            by_count: dict[int, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= self._first_state(parameter, group)
                if parameter in moved:
                    by_count.setdefault(state["step"], []).append(parameter)
            counted += [{**group, "params": params, "step": steps} for steps, params in by_count.items()]
        self.param_groups = counted
        try:
            self._with_projectors(super().step)
        finally:
            self.param_groups = own_groups
        for parameter in moved:
            self.state[parameter]["step"] += 1
        return loss

    def _first_state(self, parameter: torch.Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = first_state(parameter, group)
        if is_low_rank(parameter, group):
            rows, columns = parameter.shape
            rank = min(state["exp_avg"].shape)
            state["projection"] = parameter.new_zeros((rank, columns) if rows >= columns else (rows, rank))
            if self._limit is not None:
                state[self._limit] = parameter.new_zeros(())
        return state

    def _with_projectors(self, step: Callable) -> None:
        """The package's own step on what the groups hold now."""
        projected = [
            (self.state[parameter], group)
            for group in self.param_groups
            for parameter in group["params"]
            if is_low_rank(parameter, group)
        ]
        for state, group in projected:
            names = ("rank", "update_proj_gap", "scale", "projection_type")
            state["projector"] = GaLoreProjector(**{name: group[name] for name in names})
            if state["step"]:
                state["projector"].ortho_matrix = state["projection"]
            if self._limit is not None and not state.get(self._limit):
                state.pop(self._limit, None)  # after nothing, an update of any length is allowed
        try:
            unhooked(step)(self)
        finally:
            for state, _ in projected:
                projection = state.pop("projector").ortho_matrix
                if projection is not None:
                    state["projection"] = projection
                if self._limit is not None:
                    state.setdefault(self._limit, state["exp_avg"].new_zeros(()))


class GaLore(_LowRank, pytorch_optimizer.GaLore):
    """pytorch_optimizer's GaLore, from a model. It needs whole matrices: no flat shards (ZeRO-1 to 3)."""


class Fira(_LowRank, pytorch_optimizer.Fira):
    """pytorch_optimizer's Fira, from a model. It needs whole matrices: no flat shards (ZeRO-1 to 3)."""

    _limit = "scaling_grad"
