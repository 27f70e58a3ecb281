"""GaLore (arXiv:2403.03507) and Fira (arXiv:2410.01623): the classes of pytorch_optimizer, built from a model.

Both run AdamW on the gradient projected to its largest singular vectors, which are computed again every so many steps.
Fira also adds the rest of the gradient, scaled. Each of AdamW's two buffers is [rank, longer side] for a matrix.
"""

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from torch import nn

from rl_posttrain.optim.projection import low_rank_groups, no_gradient

# The state contains it, and transformers loads checkpoints with weights_only=True: only tensors and what is named here.
torch.serialization.add_safe_globals([GaLoreProjector])


class _FromModel:
    needs_whole_matrices = True

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

    def step(self, closure: Any = None) -> Any:
        """One update, or none where all gradients are zero."""
        return None if closure is None and no_gradient(self.param_groups) else super().step(closure)


class GaLore(_FromModel, pytorch_optimizer.GaLore):
    """pytorch_optimizer's GaLore, from a model. It needs whole matrices: no flat shards (ZeRO-1 to 3)."""


class Fira(_FromModel, pytorch_optimizer.Fira):
    """pytorch_optimizer's Fira, from a model. It needs whole matrices: no flat shards (ZeRO-1 to 3)."""
