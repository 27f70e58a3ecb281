"""The table of optimizers: what a name means, and whether a class takes what it is given."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import check_arguments, load_object

OPTIMIZERS = {
    "adams": "rl_posttrain.optim.adams:AdamS",
    "adamw": "torch.optim:AdamW",
    "scale": "rl_posttrain.optim.scale:SCALE",
    "sgd": "torch.optim:SGD",
}
# Arguments of a built-in where the class's own default is not what its name stands for here.
_DEFAULTS = {"sgd": {"momentum": 0.9}}


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
    arguments = {"lr": lr, "weight_decay": weight_decay, **_DEFAULTS.get(name, {}), **options}
    # A class that asks for the model, to tell its layers apart, is built by its `from_model`.
    build = getattr(cls, "from_model", cls)
    parameters = inspect.signature(build).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not weight_decay and not takes_any and "weight_decay" not in parameters:
        del arguments["weight_decay"]
    arguments = check_arguments(build, arguments, key=key, supplied=("params", "model"))
    try:
        # Tried on one matrix: a refused value, or an argument that a base class does not know, shows before the run.
        layer = nn.Linear(2, 2, bias=False)
        build(layer if build is not cls else layer.parameters(), **arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RecipeError(f"{key}={arguments}: {name} refuses it ({reason}); set values that it takes") from error
    return cls, arguments


def build_optimizer(cls: type, model: nn.Module, **arguments: Any) -> torch.optim.Optimizer:
    """`cls` over the trainable parameters of `model`; by its `from_model` where it has one.

    Args:
        cls, arguments: as `optimizer_class_and_arguments` gives them.
    """
    if hasattr(cls, "from_model"):
        return cls.from_model(model, **arguments)
    return cls([parameter for parameter in model.parameters() if parameter.requires_grad], **arguments)
