"""How long prompts are in tokens, for filters of a task."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.models.find import resolve_model
from rl_posttrain.tasks.filters import CountTokens


def token_counter(
    model: str, chat_options: Mapping[str, Any] | None, *, trust_remote_code: bool = False
) -> CountTokens:
    """Counts the tokens of prompts; it loads the model's tokenizer when it is called.

    Args:
        model: as in `model.name`.
        chat_options: further arguments of its chat template.
        trust_remote_code: whether the model's own Python code may run.

    Raises:
        RecipeError: when it is called: there is no tokenizer, or no chat template for prompts that are messages.
    """

    def count(prompts: Sequence[Any]) -> list[int]:
        # Imported here: it takes seconds, and most tasks have no filter that counts tokens.
        from rl_posttrain.rollout.prompts import load_tokenizer, tokenize

        tokenizer = load_tokenizer(resolve_model(model), name=model, trust_remote_code=trust_remote_code)
        return [len(ids) for ids in tokenize(tokenizer, prompts, chat_options or {})]

    return count
