"""The table of optimizers: what a name means, and whether a class takes what it is given."""

import importlib.util
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.roles import NO_DECAY, parameter_groups, split_groups
from rl_posttrain.plugins import check_arguments, load_object

OPTIMIZERS = {
    "adams": "rl_posttrain.optim.adams:AdamS",
    "adamw": "torch.optim:AdamW",
    "scale": "rl_posttrain.optim.scale:SCALE",
    "sgd": "torch.optim:SGD",
    "muon": "rl_posttrain.optim.muon:Muon",
    "lion": "pytorch_optimizer:Lion",
    "adam_mini": "rl_posttrain.optim.adam_mini:AdamMini",
    "galore": "rl_posttrain.optim.low_rank:GaLore",
    "fira": "rl_posttrain.optim.low_rank:Fira",
    "apollo": "rl_posttrain.optim.apollo:APOLLO",
}
# What each is, and where it does not run; `rl-posttrain optim list` and docs/optimizers.md show it.
ABOUT = {
    "adams": "Adam whose momentum is its own normalizer: one state value a parameter",
    "adamw": "Adam with decoupled weight decay: two state values a parameter",
    "scale": "SGD on column-normalized gradients, momentum in the output layer only",
    "sgd": "SGD with momentum 0.9; its weight decay is added to the gradient",
    "muon": "orthogonal updates of hidden matrices, AdamW for all else; not under ZeRO-1 to 3",
    "lion": "the sign of a momentum: one state value a parameter",
    "adam_mini": "AdamW with one second moment a head or row; not under ZeRO-1 to 3, with LoRA, or with fused experts",
    "galore": "AdamW in the gradient's largest singular vectors; not under ZeRO-1 to 3",
    "fira": "GaLore, and what lies outside of its vectors, scaled; not under ZeRO-1 to 3",
    "apollo": "step sizes learned in a random projection of the gradient; not under ZeRO-1 to 3",
}
# Names that need a package of the extra `optimizers`: the module that it is imported as.
_PACKAGES = {
    "lion": "pytorch_optimizer",
    "adam_mini": "adam_mini",
    "galore": "pytorch_optimizer",
    "fira": "pytorch_optimizer",
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
        RecipeError: no such class, its package is not installed, it takes no such argument, or it refuses a value.
    """
    package = _PACKAGES.get(name)
    if package is not None and not _installed(package):
        raise RecipeError(
            f"{key}.name={name}: the package {package} is not installed; pip install 'rl_posttrain[optimizers]'"
        )
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
    # pytorch_optimizer's classes swallow arguments that they do not know.
    named_only = name in _PACKAGES
    arguments = check_arguments(build, arguments, key=key, supplied=("params", "model"), named_only=named_only)
    try:
        # Tried on one matrix: a refused value, or an argument that a base class does not know, shows before the run.
        # The matrix that stands for a model is larger than any rank, and on no device.
        if build is cls:
            cls(nn.Linear(2, 2, bias=False).parameters(), **arguments)
        else:
            build(nn.Linear(2**15, 2**15, bias=False, device="meta"), **arguments)
    except Exception as error:
        raise RecipeError(
            f"{key}={arguments}: {name} refuses it ({_reason(error)}); set values that it takes"
        ) from error
    return cls, arguments


def build_optimizer(
    cls: type,
    model: nn.Module,
    *,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] | None = None,
    key: str = "optimizer",
    **arguments: Any,
) -> torch.optim.Optimizer:
    """`cls` over the trainable parameters of `model`, in groups by role; by its `from_model` where it has one.

    Args:
        cls, arguments: as `optimizer_class_and_arguments` gives them.
        no_decay, lr_by_role: as for `parameter_groups`.

    Raises:
        RecipeError: a role that there is not, or the class refuses this model.
    """
    by_role = {
        "lr": arguments["lr"],
        "weight_decay": arguments.get("weight_decay", 0.0),
        "no_decay": no_decay,
        "lr_by_role": lr_by_role or {},
    }
    if not hasattr(cls, "from_model"):
        return cls(parameter_groups(model, **by_role), **arguments)
    try:
        optimizer = cls.from_model(model, **arguments)
    except Exception as error:
        raise RecipeError(
            f"{key}={arguments}: {cls.__name__} refuses the model ({_reason(error)}); set other values, or use adams"
        ) from error
    optimizer.param_groups = split_groups(optimizer.param_groups, model, key=key, **by_role)
    return optimizer


def refuse_shards(cls: type, name: str, zero_stage: int, *, key: str = "optimizer") -> None:
    """Fail where `cls` needs whole matrices, and DeepSpeed's ZeRO stage `zero_stage` would hand it flat shards.

    Raises:
        RecipeError: names the stage that it runs under.
    """
    if zero_stage and getattr(cls, "needs_whole_matrices", False):
        raise RecipeError(
            f"{key}={name} needs whole matrices, but DeepSpeed's ZeRO stage {zero_stage} hands the optimizer flat 1-D "
            "shards; set stage 0, or use adams"
        )


def describe_optimizers() -> dict[str, dict[str, Any]]:
    """Of each name: ``class``, ``package``, whether that is ``installed``, and what the optimizer is (``about``)."""
    rows = {}
    for name, location in OPTIMIZERS.items():
        package = _PACKAGES.get(name, location.partition(".")[0])
        rows[name] = {"class": location, "package": package, "installed": _installed(package), "about": ABOUT[name]}
    return rows


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
