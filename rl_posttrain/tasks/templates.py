"""Prompt templates: `qa` for base models, `chat` for instruct models, `r1_zero` for reasoning from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass

from rl_posttrain.errors import RecipeError, did_you_mean

Prompt = str | list[dict[str, str]]

# Short, so that a small model can follow it and a step takes little time. It does not open <think>: so the completion
# holds every tag, and the format reward does not have to know the prompt.
R1_ZERO = (
    "The assistant below works each problem out step by step between <think> and </think>, "
    "and then writes the result alone between <answer> and </answer>.\n\n"
)


@dataclass(frozen=True)
class Example:
    """A solved question in the prompt, for models that are too small to follow an instruction alone."""

    question: str
    working: str
    answer: str


def render(
    template: str, question: str, *, request: str = "", examples: Sequence[Example] = (), system: str | None = None
) -> Prompt:
    """The prompt for one question.

    Args:
        template: `qa`, `chat` or `r1_zero`.
        question: one or more sentences with everything that is needed to answer.
        request: the form that the reply should have. Only `chat` uses it: a base model continues a `qa` prompt and
            follows no request, and `r1_zero` has a request of its own.
        examples: solved questions before it, in the form of the template.
        system: a message of the role `system` before the others in `chat`; text in front of a prompt of text.

    Returns:
        Text for `qa` and `r1_zero`. For `chat` a list of messages that ends with the user's.

    Raises:
        RecipeError: there is no template of that name.
    """
    if template not in TEMPLATES:
        raise RecipeError(f"task.template={template}: no template of that name; {did_you_mean(template, TEMPLATES)}")
    prompt = TEMPLATES[template](question, request, examples)
    if system is None:
        return prompt
    if isinstance(prompt, str):
        return f"{system}\n\n{prompt}"
    return [{"role": "system", "content": system}, *prompt]


def _qa(question: str, request: str, examples: Sequence[Example]) -> Prompt:
    solved = "".join(f"Q: {example.question}\nA: {example.answer}\n\n" for example in examples)
    return f"{solved}Q: {question}\nA:"


def _chat(question: str, request: str, examples: Sequence[Example]) -> Prompt:
    messages = []
    for example in examples:
        messages.append({"role": "user", "content": f"{example.question} {request}".strip()})
        messages.append({"role": "assistant", "content": example.answer})
    return [*messages, {"role": "user", "content": f"{question} {request}".strip()}]


def _r1_zero(question: str, request: str, examples: Sequence[Example]) -> Prompt:
    solved = "".join(
        f"User: {example.question}\n"
        f"Assistant: <think> {example.working} </think> <answer> {example.answer} </answer>\n\n"
        for example in examples
    )
    return f"{R1_ZERO}{solved}User: {question}\nAssistant:"


TEMPLATES = {"qa": _qa, "chat": _chat, "r1_zero": _r1_zero}
