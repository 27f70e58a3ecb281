"""Models that come with Python files of their own: nothing of them runs unless a recipe says so."""

from pathlib import Path

from rl_posttrain.errors import RecipeError
from rl_posttrain.runs.files import read_json_object

_FILES = ("config.json", "tokenizer_config.json")


def refuse_foreign_code(folder: Path, name: str, *, key: str) -> None:
    """Fail where a model's folder names code of its own.

    Args:
        name: the model as the user named it, under `key`.

    Raises:
        RecipeError: so it is.
        RunError: a file in it is no JSON.
    """
    for file in _FILES:
        named = (read_json_object(folder / file) or {}).get("auto_map")
        if named:
            raise foreign_code(name, key=key, where=f"auto_map in its {file}")


def foreign_code(name: str, *, key: str, where: str) -> RecipeError:
    """The error of a model that comes with code of its own."""
    return RecipeError(
        f"{key}={name}: it comes with Python code of its own ({where}), which is not run; read that code, and set "
        "model.trust_remote_code=true to run it, or take auto_map out to load the model by transformers' own class"
    )
