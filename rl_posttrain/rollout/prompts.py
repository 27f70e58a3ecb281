"""The tokenizer of a model, prompts as tokens, and how long a sequence can become."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.machine.hub import hub
from rl_posttrain.models.find import check_source

Prompt = str | list[dict[str, str]]


def load_tokenizer(model: str, *, name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which pads and cuts on the left.

    Args:
        model: local folder or hub name.
        name: the model as the user named it, for errors.
        trust_remote_code: whether the model's own Python code may run.

    Raises:
        RecipeError: the model has none, or one with code of its own that may not run.
        HubError: it is not on this machine, and the hub does not give it.
    """
    check_source(model, trust_remote_code=trust_remote_code)
    try:
        with hub(model):
            return AutoTokenizer.from_pretrained(
                model, padding_side="left", truncation_side="left", trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.name={name}: its tokenizer cannot be loaded ({one_line(error, limit=200)}); save one beside the "
            "model"
        ) from error


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], chat_options: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of prompts: text as it is, chat messages by the model's chat template, ready for the reply.

    Args:
        chat_options: further arguments of the template, such as ``enable_thinking``.

    Raises:
        RecipeError: the prompts are chat messages, and the tokenizer has no chat template.
    """
    if isinstance(prompts[0], str):
        return tokenizer(text=list(prompts))["input_ids"]
    if tokenizer.chat_template is None:
        raise RecipeError(
            f"task.template: {tokenizer.name_or_path} has no chat template, and the task's prompts are chat messages; "
            "set a plain template such as task.template=r1_zero"
        )
    return tokenizer.apply_chat_template(
        conversation=list(prompts), add_generation_prompt=True, tokenize=True, return_dict=True, **chat_options
    )["input_ids"]


def context_length(config: Any) -> int | None:
    """The most tokens of a sequence that the model of `config` reads; None where it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def longest_sequence(longest_prompt: int, max_new_tokens: Mapping[str, int], config: Any, *, name: str) -> int:
    """Tokens of the longest prompt and a completion together.

    Args:
        max_new_tokens: of a completion, by the recipe's section that says it.
        config: of the model.
        name: the model as the user named it.

    Raises:
        RecipeError: the model's context is shorter.
    """
    context = context_length(config)
    for section, number in max_new_tokens.items():
        if context is not None and longest_prompt + number > context:
            raise RecipeError(
                f"{section}.max_new_tokens={number}: with the longest prompt of {longest_prompt} tokens that is "
                f"{longest_prompt + number}, and {name} has a context of {context}; lower max_new_tokens"
            )
    return longest_prompt + max(max_new_tokens.values())
