"""Another optimizer in a trainer of TRL or transformers, and the proof that it is the one that runs."""

from collections.abc import Callable
from typing import Any

import torch

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim.table import optimizer_class_and_arguments


def use_optimizer(trainer: Any, name: str, **options: Any) -> None:
    """Let `trainer` train with the optimizer `name`; to be called before its ``train()``.

    Any `transformers.Trainer` and what is built on it: TRL's SFT, DPO, GRPO, RLOO and Reward trainers. transformers
    creates the optimizer itself, so this holds with DeepSpeed, FSDP, PEFT and learning-rate schedules. When training
    begins the class that really runs is compared with the one asked for.

    Args:
        trainer: as made, not trained yet.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        **options: arguments of the class; `lr` and `weight_decay` are the trainer's own where they are not given.

    Raises:
        RecipeError: the trainer has an optimizer already, there is no such class, or it refuses an argument, or
            DeepSpeed's configuration would put another in its place.
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
        _check_deepspeed(name, plugin.deepspeed_config)
    trainer.optimizer_cls_and_kwargs = class_or_factory(cls), arguments
    trainer.add_callback(OptimizerCheck(cls))


def class_or_factory(cls: type) -> Any:
    """What transformers builds the optimizer from: the class, or, where it asks for the model, a factory of it."""
    if not hasattr(cls, "from_model"):
        return cls

    def factory() -> Callable[..., torch.optim.Optimizer]:
        return cls.from_model

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
