"""Put another optimizer into a trainer of TRL or transformers, and check that it is the one that runs."""

import logging
import weakref
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim.foreign import keep_rates
from rl_posttrain.optim.joint import JointOptimizer, JointSpec
from rl_posttrain.optim.roles import NO_DECAY, describe_groups
from rl_posttrain.optim.spec import OptimizerSpec, resolve_optimizer

# Arguments of a class, and the fields of transformers' TrainingArguments that they are read from.
_FROM_TRAINER = {"lr": "learning_rate", "weight_decay": "weight_decay"}
# Fields that choose or set up transformers' own optimizers. A swapped one has arguments of its own.
# With the arguments that take the place of some.
_ADAMS_FIELDS = {"adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "eps", "optim_args": ""}
_NOT_READ = ("optim", *_ADAMS_FIELDS)


def use_optimizer(
    trainer: Any,
    name: str,
    *,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] = MappingProxyType({}),
    **options: Any,
) -> None:
    """Let `trainer` train with the optimizer `name`; call it before ``trainer.train()``.

        trainer = trl.GRPOTrainer(...)
        use_optimizer(trainer, "adams", betas=(0.9, 0.95))
        trainer.train()

    It works for `transformers.Trainer` and what is built on it: TRL's SFT, DPO, GRPO, RLOO and Reward trainers.
    transformers itself builds the optimizer, so DeepSpeed, FSDP, PEFT and learning-rate schedules work as before. When
    training begins, the main process logs one line that says what was put in, and every process checks that this class
    is the one that runs. A second call takes the place of the first.

    Args:
        trainer: not trained yet, and made without ``optimizers=(...)``.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles; the trainer's schedule scales every one.
        **options: arguments of the class. Without `lr` or `weight_decay` the trainer's own are taken: those that
            ``trainer.args`` has when the optimizer is made, in each trial of a hyperparameter search anew.

    Raises:
        RecipeError: the trainer has an optimizer already; there is no such class or role; the class refuses an
            argument; it needs whole matrices and DeepSpeed would hand it shards; or DeepSpeed's configuration would put
            another optimizer in its place. When training begins, if a search sets what the optimizer does not read.
        EngineError: when training begins, if another optimizer runs than the one asked for.
    """
    # With a model_init the trainer makes model and optimizer anew whenever it trains.
    if getattr(trainer, "optimizer", None) is not None and trainer.model_init is None:
        raise RecipeError(
            f"optimizer={name}: the trainer has {type(running_optimizer(trainer.optimizer)).__name__} already; call "
            "use_optimizer before train(), and make the trainer without optimizers=(...)"
        )
    first = _fields(trainer.args)

    def asked() -> OptimizerSpec:
        _tell_what_is_not_read(trainer, name, options, first)
        settings = {key: getattr(trainer.args, field) for key, field in _FROM_TRAINER.items()} | options
        spec = resolve_optimizer(
            name,
            lr=settings.pop("lr"),
            weight_decay=settings.pop("weight_decay"),
            options=settings,
            no_decay=no_decay,
            lr_by_role=lr_by_role,
        )
        plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
        if plugin is not None:
            spec.refuse_shards(plugin.zero_stage, stage_key="zero_optimization.stage")
            _check_deepspeed(name, plugin.deepspeed_config)
        return spec

    asked()  # a mistake shows here, and not when training begins
    put_in(trainer, asked, announce=True)
    if trainer.is_world_process_zero():
        _tell_what_was_set_in_vain(trainer.args, name, options)


def check_choice(name: str, options: Mapping[str, Any], *, key: str) -> None:
    """Check the name and options of an optimizer before there is a trainer.

    Args:
        options: arguments of `use_optimizer`.
        key: where the name was given, for the error.

    Raises:
        RecipeError: there is no such class, or it refuses an option.
    """
    settings = {"lr": 1e-6, "no_decay": NO_DECAY, "lr_by_role": {}} | dict(options)
    named = {setting: settings.pop(setting) for setting in ("lr", "no_decay", "lr_by_role")}
    resolve_optimizer(name, weight_decay=settings.pop("weight_decay", 0.0), options=settings, key=key, **named)


def put_in(trainer: Any, asked: Callable[[], OptimizerSpec | JointSpec], *, announce: bool = False) -> None:
    """Let `trainer`, of transformers or TRL, build another optimizer, and check that it is the one that runs.

    What was put in before is taken out.

    Args:
        asked: gives the spec, and is called whenever the trainer makes an optimizer. A joint one is for a model with a
            child ``critic``.
        announce: log one line about the optimizer when it is built, on the main process; not for a joint spec.

    Raises:
        RecipeError: what was put in before is to stay.
    """
    earlier = check_of(trainer)
    if earlier is not None:
        if earlier.kept_for:
            wanted = asked().classes[0].__name__
            raise RecipeError(f"optimizer={wanted}: {earlier.kept_for}; leave one of the two out")
        trainer.remove_callback(earlier)
    check = OptimizerCheck(trainer)

    def build(model: nn.Module, *others: Any) -> torch.optim.Optimizer:  # axolotl hands over its arguments, too
        spec = asked()
        optimizer = spec.build(model)
        keep_rates(optimizer, lambda: trainer.lr_scheduler)
        check.classes, check.built = spec.classes, weakref.ref(optimizer)
        if announce and trainer.is_world_process_zero():
            log_line(describe_optimizer(spec, optimizer, model))
        return optimizer

    # transformers reads this when training begins. What is no class it calls with nothing, and the result with the
    # model and these arguments; the spec has its own.
    trainer.optimizer_cls_and_kwargs = (lambda: build), {}
    check.classes = asked().classes
    trainer.add_callback(check)


def describe_optimizer(spec: OptimizerSpec, optimizer: torch.optim.Optimizer, model: nn.Module) -> str:
    """One line: the name and class, its arguments, and each group's roles, parameters, learning rate and decay.

    Args:
        optimizer: as `spec` built it for `model`, not wrapped yet.
    """
    own = {name: value for name, value in spec.arguments.items() if name not in ("lr", "weight_decay")}
    given = "".join(f", {name}={value}" for name, value in own.items())
    groups = [
        f"{' + '.join(group['roles'])}: {group['num_parameters']:,} parameters, lr {group['lr']:g}, "
        f"weight decay {group['weight_decay']:g}"
        for group in describe_groups(optimizer, model)
    ]
    return f"optimizer {spec.name} ({spec.cls.__module__}.{spec.cls.__qualname__}{given}); {'; '.join(groups)}"


def running_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers of accelerate and DeepSpeed."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def check_optimizer(optimizer: Any, *asked: type, because: str = "") -> None:
    """Fail unless the optimizer that runs is of the class that was asked for, and not of a subclass.

    Args:
        optimizer: the optimizer, or what accelerate or DeepSpeed wrapped around it.
        *asked: its class; for a joint optimizer also the class of each part, as the spec's `classes` has them.
        because: why another one may run and what to do, for the error; by default it is a framework's doing.

    Raises:
        EngineError: another one runs.
    """
    running = running_optimizer(optimizer)
    parts = running.parts.values() if isinstance(running, JointOptimizer) else ()
    because = because or "a framework replaced it: set distributed.engine=none, or another distributed.zero_stage"
    for wanted, found in zip(asked, map(type, [running, *parts]), strict=True):
        if found is not wanted:
            raise EngineError(
                f"optimizer: {wanted.__name__} was asked for, but {found.__module__}.{found.__name__} runs; {because}"
            )


def check_and_find_shards(wrapper: Any, *asked: type, because: str = "") -> None:
    """`check_optimizer`, and let an optimizer with a `find_shards` learn what the flat shards in its groups hold.

    Args:
        wrapper: what accelerate or DeepSpeed wrapped around the optimizer.

    Raises:
        EngineError: another optimizer runs.
    """
    check_optimizer(wrapper, *asked, because=because)
    if hasattr(asked[0], "find_shards"):
        running_optimizer(wrapper).find_shards(wrapper)


class OptimizerCheck:
    """A callback of transformers: `check_and_find_shards` when training begins.

    Attributes:
        classes: what must run, as a spec's `classes` has them.
        built: gives the optimizer that was made last; None where there is none, or it is gone.
        kept_for: where it is to stay, who put it there, in words; another `put_in` is refused.
    """

    def __init__(self, trainer: Any):
        self.classes: tuple[type, ...] = ()
        self.built: Callable[[], torch.optim.Optimizer | None] = lambda: None
        self.kept_for = ""
        self._because = _own_method(type(trainer))

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        check_and_find_shards(optimizer, *self.classes, because=self._because)

    def __getattr__(self, name: str) -> Callable[..., None]:
        # transformers calls a method for every event, and each version has new events; the others do nothing.
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def check_of(trainer: Any) -> OptimizerCheck | None:
    """The check of the optimizer that was put into `trainer`; None if none was."""
    callbacks = trainer.callback_handler.callbacks
    return next((callback for callback in callbacks if isinstance(callback, OptimizerCheck)), None)


def _own_method(kind: type) -> str:
    """What to do where a trainer of this class has a method of its own that makes the optimizer; else nothing."""
    for method in ("create_optimizer", "create_optimizer_and_scheduler"):
        owner = next((cls for cls in kind.__mro__ if method in vars(cls)), None)
        if owner is not None and not owner.__module__.startswith("transformers."):
            return f"{owner.__name__}.{method} makes it: let that call super().{method}(), or take it out"
    return ""


def _fields(arguments: Any) -> dict[str, Any]:
    """The fields of TrainingArguments that say something about the optimizer."""
    found = {field: getattr(arguments, field, None) for field in (*_FROM_TRAINER.values(), *_NOT_READ)}
    return {field: getattr(value, "value", value) for field, value in found.items()}  # `optim` is an enum


def _tell_what_was_set_in_vain(arguments: Any, name: str, options: Mapping[str, Any]) -> None:
    """Warn of betas and the like in TrainingArguments that a user has set: the optimizer runs at its own."""
    for field, ours in _ADAMS_FIELDS.items():
        known = type(arguments).__dataclass_fields__.get(field)
        if known is not None and getattr(arguments, field) != known.default and ours not in options:
            log_line(
                f"{field}={getattr(arguments, field)} in the trainer's arguments changes nothing: {name} does not read "
                f"it; give {ours or 'its arguments'} with the optimizer",
                logging.WARNING,
            )


def _tell_what_is_not_read(trainer: Any, name: str, options: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Speak up where arguments have changed since `first` that do not reach the optimizer: a search would tune nothing.

    Raises:
        RecipeError: it is a hyperparameter search that changes them.
    """
    given = {field: f"{key}={options[key]}" for key, field in _FROM_TRAINER.items() if key in options}
    for field, value in _fields(trainer.args).items():
        if value == first[field] or field not in (*given, *_NOT_READ):
            continue
        reason = (
            f"use_optimizer was given {given[field]}; take one of the two out"
            if field in given
            else f"{name} does not read it; take it out, and give use_optimizer the arguments of {name}"
        )
        if getattr(trainer, "hp_search_backend", None) is not None:
            raise RecipeError(f"{field}={value}: the hyperparameter search sets it, but {reason}")
        log_line(f"{field}={value} in the trainer's arguments changes nothing: {reason}", logging.WARNING)


def _check_deepspeed(name: str, config: dict[str, Any]) -> None:
    """Fail where DeepSpeed's configuration would put another optimizer in the place of `name`."""
    if "optimizer" in config:
        raise RecipeError(
            f"optimizer={name}: DeepSpeed's configuration has an optimizer section "
            f"({config['optimizer'].get('type')}), which transformers would use instead; delete that section"
        )
    offload = config.get("zero_optimization", {}).get("offload_optimizer", {})
    if offload.get("device", "none") != "none" and config.get("zero_force_ds_cpu_optimizer", True):
        raise RecipeError(
            f"optimizer={name}: accelerate replaces an offloaded optimizer by DeepSpeedCPUAdam; set "
            '"zero_force_ds_cpu_optimizer": false in DeepSpeed\'s configuration'
        )


def log_line(line: str, level: int = logging.INFO) -> None:
    """Log so that the line is seen: Python shows no INFO unless a script sets logging up."""
    logger = logging.getLogger("rl_posttrain")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.log(level, line)
