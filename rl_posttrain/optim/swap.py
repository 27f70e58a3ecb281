"""Another optimizer in a trainer of TRL or transformers, and the proof that it is the one that runs."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim.roles import NO_DECAY, check_roles
from rl_posttrain.optim.table import build_optimizer, optimizer_class_and_arguments, refuse_shards


def use_optimizer(
    trainer: Any,
    name: str,
    *,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] | None = None,
    **options: Any,
) -> None:
    """Let `trainer` train with the optimizer `name`; to be called before its ``train()``.

    Any `transformers.Trainer` and what is built on it: TRL's SFT, DPO, GRPO, RLOO and Reward trainers. transformers
    creates the optimizer itself, so this holds with DeepSpeed, FSDP, PEFT and learning-rate schedules. When training
    begins the class that really runs is compared with the one asked for.

    Args:
        trainer: as made, not trained yet.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles; the trainer's schedule scales every one.
        **options: arguments of the class; `lr` and `weight_decay` are the trainer's own where they are not given.

    Raises:
        RecipeError: the trainer has an optimizer already, there is no such class, or it refuses an argument, or it
            needs whole matrices and DeepSpeed would hand it shards; or a role that there is not; or DeepSpeed's
            configuration would put another in its place.
        EngineError: when training begins, if a framework put another optimizer in its place.
    """
    if getattr(trainer, "optimizer", None) is not None:
        raise RecipeError(
            f"optimizer={name}: the trainer has {type(trainer.optimizer).__name__} already; call use_optimizer before "
            "train(), and make the trainer without optimizers=(...)"
        )
    arguments = {"lr": trainer.args.learning_rate, "weight_decay": trainer.args.weight_decay, **options}
    cls, arguments = optimizer_class_and_arguments(
        name, lr=arguments.pop("lr"), weight_decay=arguments.pop("weight_decay"), options=arguments
    )
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:
        refuse_shards(cls, name, plugin.zero_stage)
        _check_deepspeed(name, plugin.deepspeed_config)
    check_roles(no_decay, lr_by_role or {})
    trainer.optimizer_cls_and_kwargs = optimizer_factory(cls, no_decay, lr_by_role), arguments
    trainer.add_callback(OptimizerCheck(cls))


def optimizer_factory(
    cls: type, no_decay: Collection[str], lr_by_role: Mapping[str, float] | None
) -> Callable[[], Callable[..., torch.optim.Optimizer]]:
    """What transformers builds the optimizer from: called first with nothing, then with the model and arguments."""

    def factory() -> Callable[..., torch.optim.Optimizer]:
        return functools.partial(build_optimizer, cls, no_decay=no_decay, lr_by_role=lr_by_role)

    return factory


def running_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The innermost optimizer, under whatever accelerate and DeepSpeed wrapped around it."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def check_optimizer(optimizer: Any, asked: type) -> None:
    """Fail unless the optimizer that runs is of the class that was asked for.

    Raises:
        EngineError: a framework replaced or dropped it.
    """
    running = type(running_optimizer(optimizer))
    if running is not asked:
        raise EngineError(
            f"optimizer: {asked.__name__} was asked for, but {running.__module__}.{running.__name__} runs; "
            "a framework replaced it: set distributed.engine=none, or another distributed.zero_stage"
        )


class OptimizerCheck:
    """A callback of transformers: at the first moment that the prepared optimizer can be seen, is it the right one?"""

    def __init__(self, asked: type):
        self._asked = asked

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        check_optimizer(optimizer, self._asked)
        if hasattr(self._asked, "find_shards"):
            running_optimizer(optimizer).find_shards(optimizer)

    def __getattr__(self, name: str) -> Callable[..., None]:
        # transformers calls every event of its protocol, and gets a hold of new ones with each version.
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def _check_deepspeed(name: str, config: dict[str, Any]) -> None:
    """Fail where DeepSpeed's configuration would put another optimizer in its place."""
    if "optimizer" in config:
        raise RecipeError(
            f"optimizer={name}: DeepSpeed's configuration has an optimizer section "
            f"({config['optimizer'].get('type')}), which transformers takes instead; take that section out"
        )
    offload = config.get("zero_optimization", {}).get("offload_optimizer", {})
    if offload.get("device", "none") != "none" and config.get("zero_force_ds_cpu_optimizer", True):
        raise RecipeError(
            f"optimizer={name}: accelerate replaces an offloaded optimizer by DeepSpeedCPUAdam; set "
            '"zero_force_ds_cpu_optimizer": false in DeepSpeed\'s configuration'
        )
