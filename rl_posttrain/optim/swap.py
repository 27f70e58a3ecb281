"""Put another optimizer into a trainer of TRL or transformers, and check that it is the one that runs."""

import logging
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
    is the one that runs.

    Args:
        trainer: not trained yet, and made without ``optimizers=(...)``.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles; the trainer's schedule scales every one.
        **options: arguments of the class. Without `lr` or `weight_decay` the trainer's own are taken.

    Raises:
        RecipeError: the trainer has an optimizer already; there is no such class or role; the class refuses an
            argument; it needs whole matrices and DeepSpeed would hand it shards; or DeepSpeed's configuration would put
            another optimizer in its place.
        EngineError: when training begins, if another optimizer runs than the one asked for.
    """
    if getattr(trainer, "optimizer", None) is not None:
        raise RecipeError(
            f"optimizer={name}: the trainer has {type(trainer.optimizer).__name__} already; call use_optimizer before "
            "train(), and make the trainer without optimizers=(...)"
        )
    settings = {"lr": trainer.args.learning_rate, "weight_decay": trainer.args.weight_decay, **options}
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
    put_in(trainer, spec, announce=True)


def put_in(trainer: Any, spec: OptimizerSpec | JointSpec, *, announce: bool = False) -> None:
    """Let `trainer`, of transformers or TRL, build the optimizer of `spec`, and check that it is the one that runs.

    Args:
        spec: a joint one is for a model with a child ``critic``.
        announce: log one line about the optimizer when it is built, on the main process; not for a joint spec.
    """

    def build(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = spec.build(model)
        keep_rates(optimizer, lambda: trainer.lr_scheduler)
        if announce and trainer.is_world_process_zero():
            _log(describe_optimizer(spec, optimizer, model))
        return optimizer

    # transformers reads this when training begins. What is no class it calls with nothing, and the result with the
    # model and these arguments; the spec has its own.
    trainer.optimizer_cls_and_kwargs = (lambda: build), {}
    trainer.add_callback(OptimizerCheck(*spec.classes))


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


def check_optimizer(optimizer: Any, *asked: type) -> None:
    """Fail unless the optimizer that runs is of the class that was asked for, and not of a subclass.

    Args:
        optimizer: the optimizer, or what accelerate or DeepSpeed wrapped around it.
        *asked: its class; for a joint optimizer also the class of each part, as the spec's `classes` has them.

    Raises:
        EngineError: a framework put another one in its place.
    """
    running = running_optimizer(optimizer)
    parts = running.parts.values() if isinstance(running, JointOptimizer) else ()
    for wanted, found in zip(asked, map(type, [running, *parts]), strict=True):
        if found is not wanted:
            raise EngineError(
                f"optimizer: {wanted.__name__} was asked for, but {found.__module__}.{found.__name__} runs; "
                "a framework replaced it: set distributed.engine=none, or another distributed.zero_stage"
            )


def check_and_find_shards(wrapper: Any, *asked: type) -> None:
    """`check_optimizer`, and let an optimizer with a `find_shards` learn what the flat shards in its groups hold.

    Args:
        wrapper: what accelerate or DeepSpeed wrapped around the optimizer.

    Raises:
        EngineError: a framework put another optimizer in its place.
    """
    check_optimizer(wrapper, *asked)
    if hasattr(asked[0], "find_shards"):
        running_optimizer(wrapper).find_shards(wrapper)


class OptimizerCheck:
    """A callback of transformers: `check_and_find_shards` when training begins."""

    def __init__(self, *asked: type):
        self._asked = asked

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        check_and_find_shards(optimizer, *self._asked)

    def __getattr__(self, name: str) -> Callable[..., None]:
        # transformers calls a method for every event, and each version has new events; the others do nothing.
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


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


def _log(line: str) -> None:
    """Log at INFO so that the line is seen: Python shows no INFO unless a script sets logging up."""
    logger = logging.getLogger("rl_posttrain")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.info(line)
