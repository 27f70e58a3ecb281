"""Prompt templates: `qa` and `r1_zero` for base models, `chat` and `qwen_boxed` for instruct models, or a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.tasks.template_files import is_template_file, load_template_file

Prompt = str | list[dict[str, str]]

# Short, so that a small model can follow it and a step takes little time. It does not open <think>: so the completion
# holds every tag, and the format reward does not have to know the prompt.
R1_ZERO = (
    "The assistant below works each problem out step by step between <think> and </think>, "
    "and then writes the result alone between <answer> and </answer>.\n\n"
)
# Of Qwen2.5-Math's model cards. Tasks of mathematics ask for the same in other templates.
BOXED_REQUEST = r"Please reason step by step, and put your final answer within \boxed{}."


@dataclass(frozen=True)
class Example:
    """A solved question in the prompt, for models that are too small to follow an instruction alone."""

    question: str
    working: str
    answer: str


@dataclass(frozen=True)
class Asked:
    """What a template makes a prompt of.

    Attributes:
        question: one or more sentences with everything that is needed to answer.
        request: the form that the reply should have. Only `chat` and files use it: a base model continues a `qa` prompt
            and follows no request; `r1_zero` and `qwen_boxed` have a request of their own.
        examples: solved questions before it, in the form of the template.
        system: a system message, or None.
        columns: the row, for `.jinja` files.
    """

    question: str
    request: str = ""
    examples: Sequence[Example] = ()
    system: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def load_template(template: str) -> Callable[[Asked], Prompt]:
    """The function that makes a prompt of a question: text, or a list of chat messages that ends with the user's.

    Args:
        template: `qa`, `chat`, `r1_zero`, `qwen_boxed`, or the path of a file (see `template_files.py`).

    Raises:
        RecipeError: there is no template of that name, or the file cannot be used.
    """
    if template in TEMPLATES:
        return TEMPLATES[template]
    if is_template_file(template):
        fill_in = load_template_file(template)
        return lambda asked: fill_in(
            asked.question,
            {**asked.columns, "examples": asked.examples},
            {"system": asked.system or "", "request": asked.request},
        )
    raise RecipeError(
        f"task.template={template}: no template of that name; {did_you_mean(template, TEMPLATES)} "
        "(a file's name ends in .txt or .jinja)"
    )


def _qa(asked: Asked) -> Prompt:
    solved = "".join(f"Q: {example.question}\nA: {example.answer}\n\n" for example in asked.examples)
    return f"{_in_front(asked.system)}{solved}Q: {asked.question}\nA:"


def _r1_zero(asked: Asked) -> Prompt:
    solved = "".join(
        f"User: {example.question}\n"
        f"Assistant: <think> {example.working} </think> <answer> {example.answer} </answer>\n\n"
        for example in asked.examples
    )
    return f"{_in_front(asked.system)}{R1_ZERO}{solved}User: {asked.question}\nAssistant:"


def _chat(asked: Asked) -> Prompt:
    solved = [(f"{example.question} {asked.request}".strip(), example.answer) for example in asked.examples]
    return _messages(asked.system, solved, f"{asked.question} {asked.request}".strip())


def _qwen_boxed(asked: Asked) -> Prompt:
    solved = [
        (example.question, rf"{example.working}" "\n" rf"\boxed{{{example.answer}}}") for example in asked.examples
    ]
    return _messages(BOXED_REQUEST if asked.system is None else asked.system, solved, asked.question)


def _messages(system: str | None, solved: Sequence[tuple[str, str]], question: str) -> Prompt:
    messages = [{"role": "system", "content": system}] if system else []
    for asked, reply in solved:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
    return [*messages, {"role": "user", "content": question}]


def _in_front(system: str | None) -> str:
    return f"{system}\n\n" if system else ""


TEMPLATES = {"qa": _qa, "chat": _chat, "r1_zero": _r1_zero, "qwen_boxed": _qwen_boxed}
