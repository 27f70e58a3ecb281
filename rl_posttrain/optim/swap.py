"""Put another optimizer into a trainer of TRL or transformers, and check that it is the one that runs."""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import EngineError, RecipeError, RlPosttrainError
from rl_posttrain.optim.foreign import keep_rates
from rl_posttrain.optim.joint import JointOptimizer, JointSpec
from rl_posttrain.optim.roles import NO_DECAY, describe_groups
from rl_posttrain.optim.spec import OptimizerSpec, resolve_optimizer
from rl_posttrain.optim.swapped import log_line
from rl_posttrain.optim.trainer_fields import (
    FROM_TRAINER,
    check_deepspeed,
    optimizer_fields,
    refuse_steps_in_backward,
    tell_what_is_not_read,
    tell_what_was_set_in_vain,
)

# Why another optimizer may run than the one asked for, and what to do: in a recipe, and in somebody's own program.
_IN_A_RECIPE = "a framework replaced it: set distributed.engine=none, or another distributed.zero_stage"
_IN_A_PROGRAM = (
    "the program, accelerate or DeepSpeed replaced it; leave the trainer's optimizer alone, and take the optimizer out "
    "of their configuration"
)


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
        trainer: not trained yet, and made without ``optimizers=(...)`` and ``optimizer_cls_and_kwargs=(...)``.
        name: a name of `OPTIMIZERS`, ``package.module:Class`` or ``file.py:Class``.
        no_decay: roles of `ROLES` without weight decay; as in transformers, vectors have none.
        lr_by_role: learning rates of single roles; the trainer's schedule scales every one.
        **options: arguments of the class. Without `lr` or `weight_decay` the trainer's own are taken: those that
            ``trainer.args`` has when the optimizer is made, in each trial of a hyperparameter search anew.

    Raises:
        RecipeError: the trainer has an optimizer already; there is no such class or role; the class refuses an
            argument; it needs whole matrices and DeepSpeed would hand it shards; DeepSpeed's configuration would put
            another optimizer in its place; or the trainer's `optim` is one that steps inside of backward(). When
            training begins, if a search sets what the optimizer does not read.
        EngineError: when training begins, if another optimizer runs than the one asked for.
    """
    kind = type(trainer).__name__
    # With a model_init the trainer makes model and optimizer anew whenever it trains.
    if getattr(trainer, "optimizer", None) is not None and trainer.model_init is None:
        raise RecipeError(
            f"optimizer={name}: {kind} has {type(running_optimizer(trainer.optimizer)).__name__} already; call "
            "use_optimizer before train(), and make the trainer without optimizers=(...)"
        )
    own = getattr(trainer, "optimizer_cls_and_kwargs", None)
    if own is not None and check_of(trainer) is None:
        raise RecipeError(
            f"optimizer={name}: {kind} has {getattr(own[0], '__name__', 'an optimizer')} already; make the trainer "
            "without optimizer_cls_and_kwargs=(...)"
        )
    first = optimizer_fields(trainer.args)

    def asked() -> OptimizerSpec:
        tell_what_is_not_read(trainer, name, options, first)
        refuse_steps_in_backward(name, trainer.args)
        settings = {key: getattr(trainer.args, field) for key, field in FROM_TRAINER.items()}
        spec = resolve_choice(name, settings | {"no_decay": no_decay, "lr_by_role": lr_by_role} | options)
        plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
        if plugin is not None:
            spec.refuse_shards(plugin.zero_stage, stage_key="zero_optimization.stage")
            check_deepspeed(name, plugin.deepspeed_config)
        return spec

    asked()  # a mistake shows here, and not when training begins
    put_in(trainer, asked, announce=True, because=_IN_A_PROGRAM)
    if trainer.is_world_process_zero():
        tell_what_was_set_in_vain(trainer.args, name, options)


def resolve_choice(name: str, options: Mapping[str, Any], *, key: str = "optimizer") -> OptimizerSpec:
    """`resolve_optimizer` on the arguments of `use_optimizer`; also a check of them before there is a trainer.

    Args:
        options: arguments of `use_optimizer`. Without `lr` any rate stands for the trainer's.
        key: where the name was given, for the error.

    Raises:
        RecipeError: there is no such class, or it refuses an option.
    """
    settings = {"lr": 1e-6} | dict(options)
    named = ("lr", "weight_decay", "no_decay", "lr_by_role")
    given = {setting: settings.pop(setting) for setting in named if setting in settings}
    return resolve_optimizer(name, options=settings, key=key, **given)


def put_in(
    trainer: Any,
    asked: Callable[[], OptimizerSpec | JointSpec],
    *,
    announce: bool = False,
    because: str = _IN_A_RECIPE,
) -> None:
    """Let `trainer`, of transformers or TRL, build another optimizer, and check that it is the one that runs.

    What was put in before is taken out.

    Args:
        asked: gives the spec, and is called whenever the trainer makes an optimizer. A joint one is for a model with a
            child ``critic``.
        announce: log one line about the optimizer when it is built, on the main process; not for a joint spec.
        because: why another one may run and what to do, for the error.

    Raises:
        RecipeError: what was put in before is to stay.
    """
    earlier = check_of(trainer)
    if earlier is not None:
        if earlier.kept_for:
            wanted = asked().classes[0].__name__
            raise RecipeError(f"optimizer={wanted}: {earlier.kept_for}; leave one of the two out")
        trainer.remove_callback(earlier)
    check = OptimizerCheck(trainer, because)

    def build(model: nn.Module, *others: Any) -> torch.optim.Optimizer:  # axolotl hands over its arguments, too
        with check.telling():
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


def check_optimizer(optimizer: Any, *asked: type, because: str = _IN_A_RECIPE) -> None:
    """Fail unless the optimizer that runs is of the class that was asked for, and not of a subclass.

    Args:
        optimizer: the optimizer, or what accelerate or DeepSpeed wrapped around it.
        *asked: its class; for a joint optimizer also the class of each part, as the spec's `classes` has them.
        because: why another one may run and what to do, for the error; by default that of a recipe.

    Raises:
        EngineError: another one runs.
    """
    running = running_optimizer(optimizer)
    parts = running.parts.values() if isinstance(running, JointOptimizer) else ()
    for wanted, found in zip(asked, map(type, [running, *parts]), strict=True):
        if found is not wanted:
            raise EngineError(
                f"optimizer: {wanted.__name__} was asked for, but {found.__module__}.{found.__name__} runs; {because}"
            )


def check_and_find_shards(wrapper: Any, *asked: type, because: str = _IN_A_RECIPE) -> None:
    """`check_optimizer`, and let an optimizer with a `find_shards` learn what the flat shards in its groups hold.

    Args:
        wrapper: what accelerate or DeepSpeed wrapped around the optimizer.

    Raises:
        EngineError: another optimizer runs.
    """
    check_optimizer(wrapper, *asked, because=because)
    if hasattr(asked[0], "find_shards"):
        running_optimizer(wrapper).find_shards(wrapper)


class TrainerEvents:
    """A callback of transformers that does nothing at any event; a subclass has the methods that it needs."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        # transformers calls a method for every event, and each version has new events.
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class OptimizerCheck(TrainerEvents):
    """A callback of transformers: `check_and_find_shards` when training begins.

    Attributes:
        classes: what must run, as a spec's `classes` has them.
        built: gives the optimizer that was made last; None where there is none, or it is gone.
        kept_for: where it is to stay, who put it there, in words; another `put_in` is refused.
        tell: called with the error where making or checking the optimizer fails, before that is raised.
    """

    def __init__(self, trainer: Any, because: str):
        self.classes: tuple[type, ...] = ()
        self.built: Callable[[], torch.optim.Optimizer | None] = lambda: None
        self.kept_for = ""
        self.tell: Callable[[RlPosttrainError], None] = lambda error: None
        self._because = _own_method(type(trainer)) or because

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        with self.telling():
            check_and_find_shards(optimizer, *self.classes, because=self._because)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Call `tell` where the body raises an error of ours; that is raised all the same."""
        try:
            yield
        except RlPosttrainError as error:
            self.tell(error)
            raise


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
