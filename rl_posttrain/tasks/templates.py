"""How a question is put: `qa` for base models, `chat` for instruct models, `r1_zero` for reasoning from scratch."""

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import did_you_mean

Prompt = str | list[dict[str, str]]

# Short, so that a small model can follow it and a step stays cheap. It does not open <think>: the completion then holds
# every tag, and the format reward needs to know nothing of the prompt.
R1_ZERO = (
    "The assistant below works each problem out step by step between <think> and </think>, "
    "and then writes the result alone between <answer> and </answer>.\n\n"
    "User: {question}\nAssistant:"
)


def render(template: str, question: str, *, request: str = "") -> Prompt:
    """The prompt for one question.

    Args:
        template: `qa`, `chat` or `r1_zero`.
        question: one or more sentences; all that a reader must know to answer.
        request: the form that the reply should have. Only `chat` adds it: `qa` is continued, not obeyed, and
            `r1_zero` has its own.

    Returns:
        Text for `qa` and `r1_zero`; a list of one user message for `chat`.

    Raises:
        RecipeError: no template of that name.
    """
    if template not in TEMPLATES:
        raise RecipeError(f"task.template={template}: no template of that name; {did_you_mean(template, TEMPLATES)}")
    return TEMPLATES[template](question, request)


def _qa(question: str, request: str) -> Prompt:
    return f"Q: {question}\nA:"


def _chat(question: str, request: str) -> Prompt:
    return [{"role": "user", "content": f"{question} {request}".strip()}]


def _r1_zero(question: str, request: str) -> Prompt:
    return R1_ZERO.format(question=question)


TEMPLATES = {"qa": _qa, "chat": _chat, "r1_zero": _r1_zero}
