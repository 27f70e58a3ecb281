"""The tokenizer of a run, and how long its sequences can become."""

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.tasks.rows import TaskRows


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which pads and cuts on the left.

    Raises:
        RecipeError: the model has none.
    """
    try:
        return AutoTokenizer.from_pretrained(model, padding_side="left", truncation_side="left")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.name={model}: its tokenizer cannot be loaded ({one_line(error, limit=200)}); "
            "save one beside the model"
        ) from error


def longest_sequence(tokenizer: PreTrainedTokenizerBase, rows: TaskRows, recipe: Recipe, config: Any) -> int:
    """Tokens of the longest prompt and a completion together.

    Raises:
        RecipeError: the model's context is shorter, or a chat template is needed and missing.
    """
    prompts = [row["prompt"] for row in (*rows.train, *rows.eval)]
    if isinstance(prompts[0], str):
        lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]]
    elif tokenizer.chat_template is None:
        raise RecipeError(
            f"task.template: {recipe.model.name} has no chat template, and the task's prompts are chat messages; "
            "set a plain template such as task.template=r1_zero"
        )
    else:
        options = {"add_generation_prompt": True, "return_dict": False} | (recipe.trl.get("chat_template_kwargs") or {})
        lengths = [len(tokenizer.apply_chat_template(prompt, **options)) for prompt in prompts]
    longest = max(lengths) + recipe.rollout.max_new_tokens
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and longest > context:
        raise RecipeError(
            f"rollout.max_new_tokens={recipe.rollout.max_new_tokens}: with the longest prompt of {max(lengths)} tokens "
            f"that is {longest}, and {recipe.model.name} has a context of {context}; lower max_new_tokens"
        )
    return longest
