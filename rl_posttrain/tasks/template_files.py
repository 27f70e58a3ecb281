"""Templates and system messages in files of your own."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RecipeError, one_line

TEXT, JINJA = (".txt",), (".jinja", ".j2")
_PLACE = re.compile(r"\{(question|system|request)\}")

# From a question, a row's columns, and texts such as the system message to a prompt.
FillIn = Callable[[str, Mapping[str, Any], Mapping[str, str]], str]


def is_template_file(template: str) -> bool:
    """Whether `template` is meant as the path of a file, by its ending."""
    return template.endswith((*TEXT, *JINJA))


def load_template_file(path: str) -> FillIn:
    """The function that fills in a template file.

    - A `.txt` file has `{question}` once, and may have `{system}` and `{request}`. Other braces stay as they are.
    - A `.jinja` file has `{{ question }}`; `system`, `request` and the row's columns are there by name. It runs in
      jinja2's sandbox. An undefined name is an error.

    One line end at the end of the file does not count. A system message goes in front where the file has no place for
    it.

    Raises:
        RecipeError: the file cannot be read, or has no place for the question.
    """
    text = read_text(path, "task.template").removesuffix("\n")
    return _jinja(path, text) if path.endswith(JINJA) else _plain(path, text)


def read_system(system: str) -> str:
    """The system message that `task.system` says: the text itself, or the content of the .txt file that it names.

    Raises:
        RecipeError: the file cannot be read.
    """
    if system.endswith(TEXT) and not any(space in system for space in "\n\t"):
        return read_text(system, "task.system").strip()
    return system


def read_text(path: str, key: str) -> str:
    """The text of a file that a recipe names under `key`.

    Raises:
        RecipeError: there is no such file, or it is not UTF-8.
    """
    try:
        file = Path(path).expanduser()
        if file.exists() and not file.is_file():  # reading a pipe may never end
            raise RecipeError(f"{key}={path}: a folder, a pipe or a device, and no file; name a text file")
        return file.read_text(encoding="utf-8-sig")
    except RecipeError:
        raise
    except FileNotFoundError:
        raise RecipeError(
            f"{key}={path}: no such file; give a path relative to the working directory, or an absolute one"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{key}={path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:  # the last two are of no possible path
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RecipeError(f"{key}={path}: cannot be read ({reason}); name a text file") from None


def _plain(path: str, text: str) -> FillIn:
    count = text.count("{question}")
    if count != 1:
        raise RecipeError(
            f"task.template={path}: has {{question}} {count} times; write it once, where the question goes"
        )

    def fill_in(question: str, columns: Mapping[str, Any], texts: Mapping[str, str]) -> str:
        # In one go: what is filled in is never read as a template.
        values = {**texts, "question": question}
        return _with_system(_PLACE.sub(lambda match: values[match[1]], text), texts, "{system}" in text)

    return fill_in


def _jinja(path: str, text: str) -> FillIn:
    import jinja2
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        names = meta.find_undeclared_variables(environment.parse(text))
        template = environment.from_string(text)
    except jinja2.TemplateError as error:
        raise RecipeError(f"task.template={path}: no jinja template ({one_line(error)}); correct it") from None
    if "question" not in names:
        raise RecipeError(f"task.template={path}: has no {{{{ question }}}}; write it once, where the question goes")

    def fill_in(question: str, columns: Mapping[str, Any], texts: Mapping[str, str]) -> str:
        try:
            filled = template.render({**columns, **texts, "question": question})
        except Exception as error:  # whatever an expression in somebody's template raises
            columns_found = ", ".join(columns)
            raise RecipeError(
                f"task.template={path}: {one_line(error).rstrip('.')}; the row has the columns {columns_found}"
            ) from None
        if not filled.strip():
            raise RecipeError(f"task.template={path}: makes an empty prompt of {question[:60]!r}; correct it")
        return _with_system(filled, texts, "system" in names)

    return fill_in


def _with_system(prompt: str, texts: Mapping[str, str], has_place: bool) -> str:
    return prompt if has_place or not texts["system"] else f"{texts['system']}\n\n{prompt}"
