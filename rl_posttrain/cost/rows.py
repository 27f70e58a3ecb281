"""What `rl-posttrain check` shows of a task: how many rows there are, and one of them as the model gets it."""

import contextlib
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rl_posttrain.errors import HubError
from rl_posttrain.models.find import resolve_model
from rl_posttrain.recipe.resolve import Specs, check_rows_to_evaluate
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.prompt_lengths import token_counter
from rl_posttrain.rollout.prompts import longest_sequence, tokenize
from rl_posttrain.scoring.golds import check_golds
from rl_posttrain.scoring.rewards import build_rewards


def shown_task(recipe: Recipe, specs: Specs, config: Any, notes: list[str]) -> dict[str, Any] | None:
    """A task's rows in numbers, and the first to train on as the model gets it.

    Args:
        config: of the model; None where it is not known.
        notes: gets a sentence where something could not be had.

    Returns:
        ``name``, ``version``, ``template`` (None where the task gives its prompts ready), ``num_train``, ``num_eval``,
        ``notes`` of the task, ``golds`` (by kind, as `scoring.golds.GoldsOfAKind`; None where no reward needs them),
        ``prompt`` (text; chat messages where there is no tokenizer on this machine to make text
        of them), ``prompt_tokens`` and ``longest_prompt_tokens`` of all rows (None then), and ``answer``, the gold.
        None where the hub does not give the data.

    Raises:
        RecipeError: the task refuses its options, the rewards do not fit its columns, the model has no chat template,
            too many golds cannot be read, or the model's context is too short for a row.
    """
    trusts = recipe.model.trust_remote_code
    counter = token_counter(recipe.model.name, recipe.trl.get("chat_template_kwargs"), trust_remote_code=trusts)
    try:
        rows = specs.task.make_rows(recipe.algorithm.prompts_per_step, counter)
    except HubError as error:
        notes.append(f"the task's rows are not shown: {error}")
        return None
    check_rows_to_evaluate(recipe, rows)
    row = rows.train[0]
    build_rewards(specs.rewards, list(row), rows.parts)
    golds = check_golds(specs.rewards, [*rows.train, *rows.eval], recipe.task.max_unreadable_golds)
    tokenizer = None if config is None else _tokenizer_on_this_machine(recipe.model.name, trusts)
    prompt, num_tokens, longest = row["prompt"], None, None
    if tokenizer is not None:
        options = recipe.trl.get("chat_template_kwargs") or {}
        prompts = [prompt, *(row["prompt"] for row in (*rows.train[1:], *rows.eval))]
        num_tokens, *others = map(len, tokenize(tokenizer, prompts, options))
        longest = max(num_tokens, *others)
        longest_sequence(longest, recipe.max_new_tokens, config, name=recipe.model.name)
        if not isinstance(prompt, str):
            prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    elif not isinstance(prompt, str):
        notes.append(f"the chat template is not applied: the tokenizer of {recipe.model.name} is not on this machine")
    return {
        "name": specs.task.name,
        "version": specs.task.version,
        "template": rows.template,
        "num_train": len(rows.train),
        "num_eval": len(rows.eval),
        "notes": [*rows.notes, *([golds.warning] if golds and golds.warning else [])],
        "golds": None if golds is None else [kind._asdict() for kind in golds.kinds],
        "prompt": prompt,
        "prompt_tokens": num_tokens,
        "longest_prompt_tokens": longest,
        "answer": row.get("answer"),
    }


def _tokenizer_on_this_machine(model: str, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    with contextlib.suppress(OSError, ValueError):
        return AutoTokenizer.from_pretrained(
            resolve_model(model), local_files_only=True, trust_remote_code=trust_remote_code
        )
    return None
