"""How recipes name code: the ``name`` of a built-in, ``package.module:attr`` or ``file.py:attr``."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.users_code import contained, reason_of


def load_object(spec: str, *, table: Mapping[str, str], key: str) -> Any:
    """The object that `spec` names.

    Args:
        spec: a key of `table`, ``package.module:attr``, or ``path/to/file.py:attr``, relative to the working directory.
        table: from the names of built-ins to ``package.module:attr``.
        key: the recipe key that holds `spec`, for the error message.

    Raises:
        RecipeError: there is no such name, or importing it fails.
    """
    location = table.get(spec, spec)
    if ":" not in location:
        raise RecipeError(
            f"{key}={spec}: no built-in of that name; {did_you_mean(spec, table)} "
            "(your own code is named 'package.module:attr' or 'file.py:attr')"
        )
    module_name, _, attribute = location.rpartition(":")
    module = _load_module(module_name, spec, key)
    try:
        with contained():  # a module may have a __getattr__
            return getattr(module, attribute)
    except Exception:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise RecipeError(
            f"{key}={spec}: {module_name} has no {attribute!r}; {did_you_mean(attribute, public)}"
        ) from None


def signature_of(function: Callable, key: str) -> inspect.Signature:
    """The signature of the function or class that a recipe names under `key`.

    Raises:
        RecipeError: `function` cannot be called, or is a Python builtin without a signature.
    """
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise RecipeError(
            f"{key}: a {type(function).__name__} whose arguments Python does not know; name a function or a class"
        ) from None


def check_arguments(
    function: Callable,
    given: Mapping[str, Any],
    *,
    key: str,
    supplied: Iterable[str] = (),
    named_only: bool = False,
) -> dict[str, Any]:
    """`given` as keyword arguments of `function`, converted to the types of its annotations.

    Args:
        function: a function or class. Values are checked where pydantic knows the annotation, and pass unchanged
            otherwise.
        given: argument names and values from a recipe.
        key: the recipe key of these arguments, for the error message.
        supplied: arguments that the project passes itself; a recipe must not give them.
        named_only: every argument must be a named parameter, even where the function takes ``**kwargs``.

    Raises:
        RecipeError: an argument is unknown, missing, or of a wrong type, or `function` cannot be called.
    """
    parameters = signature_of(function, key).parameters
    target = function.__init__ if inspect.isclass(function) else function
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):  # annotations that cannot be resolved from outside the module
        hints = {}
    takes_any = not named_only and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    arguments = {}
    for name, value in given.items():
        if name in supplied or (name not in named and not takes_any):
            known = named - set(supplied)
            hint = did_you_mean(name, known) if known else "it takes none; leave it out"
            raise RecipeError(f"{key}.{name}={value}: {_name(function)} takes no such argument; {hint}")
        arguments[name] = _in_type(value, hints[name], f"{key}.{name}") if name in hints else value
    for name in named - set(supplied) - set(given):
        if parameters[name].default is inspect.Parameter.empty:
            raise RecipeError(f"{key}.{name}: missing; {_name(function)} needs it, so set it")
    return arguments


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _in_type(value: Any, hint: Any, key: str) -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if type(value) in kinds:
        return value
    # Imported here: optimizers use this module, and they must also run where torch is the only package.
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, TypeError):
        return value
    try:
        # As JSON, which a recipe's values are: strict there means that `true` is no number, that "3" is none either,
        # and that a list may become a tuple and a text a path.
        return adapter.validate_json(json.dumps(value), strict=True)
    except TypeError:  # of Python, and no value of a recipe
        return value
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        wanted = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else hint
        raise RecipeError(
            f"{key}={value}: {reason[0].lower() + reason[1:]}; set a value of the type {wanted}"
        ) from None


def _load_module(module_name: str, spec: str, key: str) -> ModuleType:
    if not module_name.endswith(".py"):
        try:
            with contained():
                return importlib.import_module(module_name)
        except Exception as error:
            raise RecipeError(f"{key}={spec}: importing {module_name} failed: {reason_of(error)}") from error
    path = Path(module_name).expanduser().resolve()
    if not path.is_file():
        raise RecipeError(
            f"{key}={spec}: no file {path}; give a path relative to the working directory, or an absolute one"
        )
    # The module gets an entry in sys.modules, so that its functions can be pickled for worker processes.
    name = f"rl_posttrain_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        with contained():
            module_spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise RecipeError(f"{key}={spec}: running {path} failed: {reason_of(error)}") from error
    return module
