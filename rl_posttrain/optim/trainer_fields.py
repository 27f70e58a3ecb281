"""What a trainer's arguments and DeepSpeed's configuration say of an optimizer, where another one is put in."""

import logging
from collections.abc import Mapping
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.swapped import log_line

# Arguments of a class, and the fields of transformers' TrainingArguments that they are read from.
FROM_TRAINER = {"lr": "learning_rate", "weight_decay": "weight_decay"}
# Fields that choose or set up transformers' own optimizers. A swapped one has arguments of its own.
# With the arguments that take the place of some.
_ADAMS_FIELDS = {"adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "eps", "optim_args": ""}
_NOT_READ = ("optim", *_ADAMS_FIELDS)
# transformers' names of optimizers that step inside of backward(): its training step then hands a rate to backward().
_STEP_IN_BACKWARD = ("lomo", "adalomo")


def optimizer_fields(arguments: Any) -> dict[str, Any]:
    """The fields of TrainingArguments that say something about the optimizer."""
    found = {field: getattr(arguments, field, None) for field in (*FROM_TRAINER.values(), *_NOT_READ)}
    return {field: getattr(value, "value", value) for field, value in found.items()}  # `optim` is an enum


def tell_what_was_set_in_vain(arguments: Any, name: str, options: Mapping[str, Any]) -> None:
    """Warn of betas and the like in TrainingArguments that a user has set: the optimizer runs at its own."""
    for field, ours in _ADAMS_FIELDS.items():
        known = type(arguments).__dataclass_fields__.get(field)
        if known is not None and getattr(arguments, field) != known.default and ours not in options:
            log_line(
                f"{field}={getattr(arguments, field)} in the trainer's arguments changes nothing: {name} does not read "
                f"it; give {ours or 'its arguments'} with the optimizer",
                logging.WARNING,
            )


def tell_what_is_not_read(trainer: Any, name: str, options: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Speak up where arguments have changed since `first` that do not reach the optimizer: a search would tune nothing.

    Raises:
        RecipeError: it is a hyperparameter search that changes them.
    """
    given = {field: f"{key}={options[key]}" for key, field in FROM_TRAINER.items() if key in options}
    for field, value in optimizer_fields(trainer.args).items():
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


def check_deepspeed(name: str, config: dict[str, Any]) -> None:
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


def refuse_steps_in_backward(name: str, arguments: Any) -> None:
    """Fail where `optim` of a trainer's arguments changes more than the choice of an optimizer.

    Raises:
        RecipeError: it is LOMO or AdaLomo, for which transformers calls backward() in another way.
    """
    chosen = optimizer_fields(arguments)["optim"]
    if chosen in _STEP_IN_BACKWARD:
        raise RecipeError(
            f"optimizer={name}: the trainer's arguments have optim={chosen}, for which transformers calls backward() "
            "in another way; take optim out"
        )
