"""Another optimizer in a trainer of TRL or transformers, and the proof that it is the one that runs."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim.roles import NO_DECAY
from rl_posttrain.optim.spec import OptimizerSpec, resolve_optimizer


def use_optimizer(
    trainer: Any,
    name: str,
    *,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] = MappingProxyType({}),
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
    put_in(trainer, spec)


def put_in(trainer: Any, spec: OptimizerSpec) -> None:
    """Let `trainer`, of transformers or TRL, build the optimizer of `spec`, and check that it is the one that runs."""

    def build(model: nn.Module, **arguments: Any) -> torch.optim.Optimizer:
        return spec.build(model)

    # transformers reads this when training begins. What is no class is called with nothing, then with the model.
    trainer.optimizer_cls_and_kwargs = (lambda: build), dict(spec.arguments)
    trainer.add_callback(OptimizerCheck(spec.cls))


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
