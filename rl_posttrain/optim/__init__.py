"""Optimizers by name. This package imports torch and nothing else of weight."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from rl_posttrain.errors import RecipeError
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
        RecipeError: no such class, it takes no such argument, or it refuses a value.
    """
    cls = load_object(name, table=OPTIMIZERS, key=f"{key}.name")
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
        raise RecipeError(f"{key}.name={name}: no class of torch.optim.Optimizer; name one")
    arguments = {"lr": lr, "weight_decay": weight_decay, **options}
    parameters = inspect.signature(cls).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not weight_decay and not takes_any and "weight_decay" not in parameters:
        del arguments["weight_decay"]
    arguments = check_arguments(cls, arguments, key=key, supplied=("params",))
    try:
        # Tried on one matrix: a refused value, or an argument that a base class does not know, shows before the run.
        cls([torch.nn.Parameter(torch.zeros(2, 2))], **arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RecipeError(f"{key}={arguments}: {name} refuses it ({reason}); set values that it takes") from error
    return cls, arguments
