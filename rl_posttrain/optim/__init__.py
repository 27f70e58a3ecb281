"""Optimizers by name. This package imports torch and nothing else of weight."""

from collections.abc import Mapping
from typing import Any

from rl_posttrain.optim.adams import AdamS
from rl_posttrain.plugins import check_arguments, load_object

__all__ = ["OPTIMIZERS", "AdamS", "optimizer_class_and_arguments"]

OPTIMIZERS = {
    "adams": "rl_posttrain.optim.adams:AdamS",
    "adamw": "torch.optim:AdamW",
}


def optimizer_class_and_arguments(
    name: str, *, lr: float, weight_decay: float, options: Mapping[str, Any], key: str = "optimizer"
) -> tuple[type, dict[str, Any]]:
    """The optimizer class that `name` means, and its arguments, checked against its signature.

    Args:
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        lr, weight_decay: go to the class as they are.
        options: its other arguments, such as betas.
        key: the recipe section, for errors.

    Raises:
        RecipeError: no such class, or it takes no such argument.
    """
    cls = load_object(name, table=OPTIMIZERS, key=f"{key}.name")
    arguments = {"lr": lr, "weight_decay": weight_decay, **options}
    return cls, check_arguments(cls, arguments, key=key, supplied=("params",))
