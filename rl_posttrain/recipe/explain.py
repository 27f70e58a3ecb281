"""One line for a validation error of pydantic: key=value: reason; fix."""

import math
import typing
from collections.abc import Iterable
from typing import Any

from rl_posttrain.errors import did_you_mean
from rl_posttrain.recipe.files import Origins
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.section import Section


def explain(error: dict, origins: Origins, schema: type[Section] = Recipe) -> str:
    """One line: key=value: reason (in the file that has the key); fix.

    Args:
        schema: what the data was checked against.
    """
    location = error["loc"]
    if location[-1] == "[key]":  # pydantic means a key of the mapping itself
        location = location[:-2]
    key = ".".join(str(part) for part in location)
    if error["type"] == "missing":
        return f"{key}: missing; every {schema.__name__.lower()} needs it, see `rl-posttrain recipes` for examples"
    file = origins.file_of(location)
    where = f" (in {file})" if file else ""
    value = _short(error["input"])
    if error["type"] == "extra_forbidden":
        return f"{key}={value}: unknown key{where}; {did_you_mean(str(location[-1]), _keys_at(location[:-1], schema))}"
    reason = _SHAPES.get(error["type"]) or error["msg"][0].lower() + error["msg"][1:]
    return f"{key}={value}: {reason.replace('input ', 'it ')}{where}; {_fix(error, location)}"


# Words of YAML for what pydantic calls by Python's types.
_SHAPES = {
    "model_type": "it should be a section of keys and values",
    "dict_type": "it should be a section of keys and values",
    "tuple_type": "it should be a list",
    "too_short": "it should have an entry or more",
    "bool_type": "it should be true or false",
}


def _fix(error: dict, location: tuple) -> str:
    expected = error.get("ctx", {}).get("expected")
    if (meant := _meant(error["input"], error["type"])) is not None:
        return f"write it as {meant}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return did_you_mean(error["input"], expected.replace("'", "").replace(" or ", ", ").split(", "))
    if error["type"] == "string_pattern_mismatch":
        return "use letters, digits and the characters . _ - = ,"
    return "set such a value in the recipe or as section.key=value"


def _meant(text: Any, wrong: str) -> str | None:
    """The number or boolean that a text looks like: in quotes, with a leading zero, or as YAML 1.1 has booleans."""
    if not isinstance(text, str) or wrong not in ("int_type", "float_type", "bool_type", "literal_error"):
        return None
    if wrong == "bool_type":
        found = [word for word, others in _BOOLEANS.items() if text.lower() in others]
        return found[0] if found else None
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else repr(number)


_BOOLEANS = {"true": ("true", "yes", "on", "y"), "false": ("false", "no", "off", "n")}


def _keys_at(location: Iterable, schema: type[Section]) -> list[str]:
    node: Any = schema
    for part in location:
        if isinstance(part, str):
            annotation = node.model_fields[part].annotation
            kinds = [annotation, *typing.get_args(annotation)]  # of a list of sections, or one that may be missing
            node = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))
    return list(node.model_fields)


def _short(value: Any) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
