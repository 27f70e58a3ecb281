"""Adam-mini (arXiv:2406.16793): its authors' package adam_mini, built from a model.

It is AdamW with one second moment for each head of queries and keys, each row of other matrices, and each norm.
"""

from collections.abc import Callable
from typing import Any

import adam_mini
import torch
from torch import nn

from rl_posttrain.optim.packaged import Packaged
from rl_posttrain.optim.roles import roled_parameters

_BY_HEAD = ("q_proj", "k_proj")


class AdamMini(Packaged, adam_mini.Adam_mini):
    """The authors' Adam_mini, from a model. It needs whole matrices: no flat shards (ZeRO-1 to 3).

    Its groups have `betas`, which schedules look for, in the place of the package's `beta1` and `beta2`.
    """

    needs_whole_matrices = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for settings in (self.defaults, *self.param_groups):
            _name_betas(settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _name_betas(self.defaults)
        _name_betas(self.param_groups[-1])

    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        for group in self.param_groups:
            group["beta1"], group["beta2"] = group["betas"]
        loss = super().step(closure)
        for group in self.param_groups:
            _name_betas(group)
        return loss

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        """Adam_mini over the trainable parameters of `model`; the config of the model says how wide a head is.

        Raises:
            ValueError: a hyperparameter is out of its range; queries and keys do not divide into heads (LoRA); or a
                parameter has more than two dimensions (experts, convolutions).
        """
        roled = roled_parameters(model)
        by_head = [found for found in roled if found.role == "matrices" and any(n in found.name for n in _BY_HEAD)]
        for found in roled:
            if len(found.shape) > 2:
                raise ValueError(f"{found.name}={tuple(found.shape)}: Adam-mini has no rule for it; use adamw")
        named = [(found.name, found.parameter) for found in roled]
        optimizer = cls(named, lr, tuple(betas), eps, weight_decay, verbose=False)
        # The package counts GPUs, and assumes that each parameter is split over as many processes.
        optimizer.world_size = 1
        if by_head:
            # A critic has none of its own; its backbone has one.
            config = next(module.config for module in model.modules() if hasattr(module, "config")).get_text_config()
            # The package's own dim * dim // n_heads is right only if all heads together are as wide as the model.
            head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            optimizer.head_numel = head_dim * config.hidden_size
            for found in by_head:
                if found.shape[1] != config.hidden_size or found.shape[0] % head_dim:
                    raise ValueError(
                        f"{found.name}={tuple(found.shape)}: it does not divide into heads of {head_dim} x "
                        f"{config.hidden_size}; Adam-mini takes no such layers (LoRA's); use adamw"
                    )
        return optimizer


def _name_betas(settings: dict[str, Any]) -> None:
    if "beta1" in settings:
        betas = settings.pop("beta1"), settings.pop("beta2")
        settings.setdefault("betas", betas)
