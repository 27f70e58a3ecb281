"""Data sets of reasoning-gym (https://github.com/open-thought/reasoning-gym), and their entries as text.

The package is imported where it is used: it takes a second, and it is an extra.
"""

import dataclasses
import datetime
import enum
import io
import json
import numbers
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from rl_posttrain.errors import RecipeError, class_and_message, did_you_mean

# What `make_dataset` decides; and data sets of data sets, in whose place a task lists the data sets itself.
_OURS = ("seed", "size")
_NOT_A_DATASET = ("composite",)


def dataset_names() -> list[str]:
    """The names of all data sets.

    Raises:
        RecipeError: the package is not installed.
    """
    return sorted(set(_registered()) - set(_NOT_A_DATASET))


def make_dataset(name: str, options: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """A data set of reasoning-gym: its items are entries, dictionaries of question, answer and metadata.

    Args:
        options: keys of the data set's config with values as YAML or JSON has them: a list stands for a tuple, a text
            for a member of an enumeration, a date or a time of day, a mapping for a config of its own.

    Raises:
        RecipeError: there is no such data set or key, or the data set refuses a value.
    """
    if name not in dataset_names():
        raise RecipeError(
            f"task.dataset={name}: reasoning-gym has none of that name; {did_you_mean(name, dataset_names())}"
        )
    dataset_class, config_class = _registered()[name]
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    config = config_class()
    values = {}
    for key, value in options.items():
        if key in _OURS:
            raise RecipeError(f"task.{key}={value}: run.seed and task.num_train decide it; leave it out")
        if key not in fields:
            raise RecipeError(
                f"task.{key}={value}: {name} takes no such key; {did_you_mean(key, {*fields} - {*_OURS})}"
            )
        values[key] = _in_kind_of(getattr(config, key), value)
    try:
        with redirect_stdout(io.StringIO()):  # some print while they work
            return dataset_class(config_class(**values, seed=seed, size=size))
    except (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RecipeError(
            f"task.dataset={name}: it refuses {dict(options)} ({class_and_message(error)}); change these keys"
        ) from error


def _registered() -> dict[str, tuple[type, type]]:
    try:
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"task.name=reasoning_gym: the package {error.name} is not installed; pip install 'rl_posttrain[tasks]'"
        ) from None
    return DATASETS


def _in_kind_of(default: Any, value: Any) -> Any:
    """`value` of a recipe in the kind of the config's default. Annotations do not say it: some are wrong."""
    if isinstance(value, list):
        kind = next(iter(default), None) if isinstance(default, (list, tuple)) else None
        values = [_in_kind_of(kind, item) for item in value]
        return tuple(values) if isinstance(default, tuple) else values
    if isinstance(value, dict) and dataclasses.is_dataclass(default):
        return dataclasses.replace(default, **value)
    try:
        if isinstance(value, str) and isinstance(default, enum.Enum):
            return type(default)(value)
        if isinstance(value, str) and isinstance(default, (datetime.date, datetime.time)):
            return type(default).fromisoformat(value)
    except ValueError:
        pass  # the data set refuses it in its own words
    return value


def to_text(value: Any) -> str:
    """JSON in which tuples and keys that are no text keep their kind: scorers tell them apart."""
    return json.dumps(_tagged(value), ensure_ascii=False)


def from_text(text: str) -> Any:
    """What `to_text` was given; a date or time of day as its text."""
    return _untagged(json.loads(text))


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and not {"tuple", "pairs"} & set(value):
            return {key: _tagged(item) for key, item in value.items()}
        return {"pairs": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, int, float)):  # numpy's
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tuple"}:
        return tuple(_untagged(item) for item in value["tuple"])
    if value.keys() == {"pairs"}:
        return {_untagged(key): _untagged(item) for key, item in value["pairs"]}
    return {key: _untagged(item) for key, item in value.items()}
