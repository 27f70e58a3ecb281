"""An optimizer that is named and checked once, and then built for any model."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.foreign import refuse_adamws
from rl_posttrain.optim.matching import name_parameters
from rl_posttrain.optim.roles import NO_DECAY, check_roles, parameter_groups, split_groups
from rl_posttrain.optim.table import DEFAULTS, EXTRAS, OPTIMIZERS, PACKAGES, is_installed
from rl_posttrain.plugins import check_arguments, load_object
from rl_posttrain.users_code import contained, reason_of


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer class with arguments that it takes, for any model. `resolve_optimizer` makes it.

    Attributes:
        name: as it was asked for: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        cls: the class.
        arguments: of the class, `lr` among them; read-only.
        no_decay: roles of `ROLES` without weight decay.
        lr_by_role: learning rates of single roles; read-only.
        key: where the optimizer was named, for errors: a recipe's section, or an option such as ``--optimizers``.
    """

    name: str
    cls: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    no_decay: tuple[str, ...]
    lr_by_role: Mapping[str, float]
    key: str

    @property
    def classes(self) -> tuple[type[torch.optim.Optimizer], ...]:
        """What must run, for `check_optimizer`: `cls`."""
        return (self.cls,)

    @property
    def needs_whole_matrices(self) -> bool:
        """Whether a step needs matrices in their own shape, so that flat shards of them (ZeRO-1 to 3) are no use.

        A class says so by the attribute `needs_whole_matrices`; torch's Muon has none.
        """
        return getattr(self.cls, "needs_whole_matrices", False) or issubclass(self.cls, torch.optim.Muon)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the trainable parameters of `model`, in groups by role.

        A class with a `from_model` is built by it.

        Raises:
            RecipeError: the class refuses this model, or `lr_by_role` names a role that the model does not train.
        """
        by_role = {
            "lr": self.arguments["lr"],
            "weight_decay": self.arguments.get("weight_decay", 0.0),
            "no_decay": self.no_decay,
            "lr_by_role": self.lr_by_role,
            "key": self.key,
        }
        from_model = getattr(self.cls, "from_model", None)
        given = model if from_model else parameter_groups(model, **by_role)
        try:
            with contained():
                optimizer = (from_model or self.cls)(given, **self.arguments)
        except Exception as error:
            raise RecipeError(
                f"{_name_key(self.key)}={self.name}: {self.cls.__name__} refuses the model ({reason_of(error)}); set "
                "other arguments, or use adams"
            ) from error
        self._refuse_what_moves_nothing(optimizer)
        if from_model:
            optimizer.param_groups = split_groups(optimizer.param_groups, model, **by_role)
        name_parameters(optimizer, model)
        if self.cls.__module__.startswith("torch.optim."):
            # torch's classes load any state with as many groups, and fail at the step.
            optimizer.register_load_state_dict_pre_hook(refuse_adamws)
        return optimizer

    def _refuse_what_moves_nothing(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
            if group["fused"] and any(p.device.type == "cpu" and p.element_size() == 2 for p in group["params"]):
                raise RecipeError(
                    f"{self.key}.fused=True: torch's fused SGD never moves bf16 and fp16 weights on a CPU (pytorch "
                    "issue 191763); leave fused out"
                )

    def refuse_shards(self, zero_stage: int | Literal["fsdp2"], *, stage_key: str = "distributed.zero_stage") -> None:
        """Fail where the optimizer needs whole matrices, and would be handed shards of them.

        Args:
            zero_stage: DeepSpeed's, or ``fsdp2``; 0 where each process has all.
            stage_key: where that was set, for the error.

        Raises:
            RecipeError: names both settings, and the values that go together.
        """
        if zero_stage and self.needs_whole_matrices:
            name_key = _name_key(self.key)
            shards, whole = ("rows of them", "none") if zero_stage == "fsdp2" else ("flat 1-D shards", 0)
            raise RecipeError(
                f"{name_key}={self.name} needs whole matrices, but {stage_key}={zero_stage} hands the optimizer "
                f"{shards}; set {_setting(stage_key.rpartition('.')[2], whole)} or {_setting(name_key, 'adams')}"
            )


def resolve_optimizer(
    name: str,
    *,
    lr: float,
    weight_decay: float = 0.0,
    options: Mapping[str, Any] = MappingProxyType({}),
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] = MappingProxyType({}),
    key: str = "optimizer",
) -> OptimizerSpec:
    """The optimizer that `name` means, with its arguments checked against the class. No model is needed.

    Args:
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        lr, weight_decay: arguments of the class. A weight decay of 0 is left out where the class has none.
        options: its other arguments, such as betas.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles, in place of `lr`.
        key: where the optimizer is named, for errors: the recipe's section, or an option such as ``--optimizers``.

    Raises:
        RecipeError: no such class, its package is not installed, it takes no such argument, or it refuses a value; or
            there is no such role.
    """
    name_key = _name_key(key)
    if not isinstance(name, str):
        raise RecipeError(f"{name_key}={name}: it is no text; give a name, such as adams, or package.module:Class")
    package = PACKAGES.get(name)
    if package is not None and not is_installed(package):
        raise RecipeError(
            f"{name_key}={name}: the package {package} is not installed; pip install "
            f"'rl_posttrain[{EXTRAS.get(package, 'optimizers')}]'"
        )
    cls = load_object(name, table=OPTIMIZERS, key=name_key)
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
        raise RecipeError(f"{name_key}={name}: it is not a subclass of torch.optim.Optimizer; name one")
    arguments = {"lr": lr, "weight_decay": weight_decay, **DEFAULTS.get(name, {}), **options}
    # A class that asks for the model, to tell its layers apart, is built by its `from_model`.
    build = getattr(cls, "from_model", cls)
    parameters = inspect.signature(build).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not weight_decay and not takes_any and "weight_decay" not in parameters:
        del arguments["weight_decay"]
    # pytorch_optimizer's classes swallow arguments that they do not know.
    named_only = name in PACKAGES
    arguments = check_arguments(build, arguments, key=key, supplied=("params", "model"), named_only=named_only)
    _refuse_values(name, cls, arguments, key)
    check_roles(no_decay, lr_by_role, key=key)
    return OptimizerSpec(
        name, cls, MappingProxyType(arguments), tuple(no_decay), MappingProxyType(dict(lr_by_role)), key
    )


def _refuse_values(name: str, cls: type[torch.optim.Optimizer], arguments: Mapping[str, Any], key: str) -> None:
    """Fail on a value that the class refuses, or an argument that a base class of it does not know.

    Raises:
        RecipeError: names the argument, its value, and the reason.
    """
    reason = _reason_against(cls, arguments)
    if reason is None:
        return
    # Argument after argument, so that the message names the one from which on it fails.
    parameters = inspect.signature(getattr(cls, "from_model", cls)).parameters
    needed = {word for word, parameter in parameters.items() if parameter.default is parameter.empty}
    given = {word: value for word, value in arguments.items() if word in needed}
    for word, value in arguments.items():
        given[word] = value
        if (here := _reason_against(cls, given)) is not None:
            key, reason = f"{key}.{word}={value}", here
            break
    raise RecipeError(f"{key}: {name} refuses it ({reason}); set a value that it takes")


def _reason_against(cls: type[torch.optim.Optimizer], arguments: Mapping[str, Any]) -> str | None:
    """Why the class refuses these arguments, tried on one matrix; None if it takes them.

    The matrix that stands for a model is larger than any rank, and on no device.
    """
    try:
        with contained():
            if hasattr(cls, "from_model"):
                cls.from_model(nn.Linear(2**15, 2**15, bias=False, device="meta"), **arguments)
            else:
                cls(nn.Linear(2, 2, bias=False).parameters(), **arguments)
    except Exception as error:
        return reason_of(error)
    return None


def build_optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float = 0.0,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] = MappingProxyType({}),
    **options: Any,
) -> torch.optim.Optimizer:
    """The optimizer `name` over the trainable parameters of `model`, for a training loop of your own.

        optimizer = build_optimizer(model, "scale", lr=3e-7, vector_lr=1e-6)
        model, optimizer = accelerator.prepare(model, optimizer)      # with accelerate

    Parameters are grouped by role, so that weight decay and learning rates can differ by role. Trainers of
    transformers and TRL take `use_optimizer` instead.

    Args:
        model: on its device; frozen parameters are left out.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        lr, weight_decay: of every role that the next two do not name.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles, in place of `lr`.
        **options: other arguments of the class, such as betas.

    Raises:
        RecipeError: no such class or role, its package is not installed, or it refuses an argument or the model.
    """
    return resolve_optimizer(
        name, lr=lr, weight_decay=weight_decay, options=options, no_decay=no_decay, lr_by_role=lr_by_role
    ).build(model)


def _name_key(key: str) -> str:
    """Where the name itself stands: an option of a command holds it, a recipe's section has a key for it."""
    return key if key.startswith("--") else f"{key}.name"


def _setting(key: str, value: Any) -> str:
    return f"{key}={value}" if key.startswith("--") else f"{key}: {value}"
