"""What `rl-posttrain check` shows: the resolved recipe, its sizes and predicted memory. No weights are loaded."""

from typing import Any

from rl_posttrain.errors import HubError
from rl_posttrain.models.find import kv_cache_bytes_per_token, load_config, model_without_weights, published_config
from rl_posttrain.optim import OptimizerSpec
from rl_posttrain.optim.ledger import predict_memory
from rl_posttrain.optim.roles import describe_groups
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes, derive_sizes
from rl_posttrain.training.algorithms.algorithm import make_algorithm
from rl_posttrain.training.backends.backend import Backend, make_backend


def check_recipe(recipe: Recipe, num_processes: int) -> dict[str, Any]:
    """Everything about a run that can be known without running it.

    Args:
        num_processes: devices that it is sized for.

    Returns:
        ``recipe`` (YAML text), ``sizes``, ``num_parameters``, ``optimizer_groups`` (roles, parameters, learning rate
        and weight decay of each), ``memory_bytes`` by component and device, and ``notes``.

    Raises:
        RecipeError: something in the recipe cannot be used.
    """
    from rl_posttrain.training.trl_config import check_trl

    sizes = derive_sizes(recipe, num_processes)
    optimizer = resolve(recipe).optimizer
    backend = make_backend(recipe, sizes)
    check_trl(recipe, sizes, backend)
    make_algorithm(recipe)
    notes = [backend.precision]
    config, source = _config(recipe.model.name)
    num_parameters = groups = memory = None
    if source:
        notes.append(source)
    if config is not None:
        model = model_without_weights(config, backend.weights_dtype)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        groups = describe_groups(optimizer.build(model), model)
        memory = _memory(recipe, backend, model, optimizer, sizes, notes)
    return {
        "recipe": recipe.to_yaml(),
        "sizes": sizes.model_dump(),
        "num_parameters": num_parameters,
        "optimizer_groups": groups,
        "memory_bytes": memory,
        "notes": notes,
    }


def _config(name: str):
    """The model's config, None where the hub does not give it; and a note when it is not from the model's own file."""
    try:
        return load_config(name), None
    except HubError as error:
        config = published_config(name)
        if config is not None:
            return config, f"{name}: sized from its published shapes; the hub did not give its config"
        return None, f"memory is not predicted: {error}"


def _memory(recipe: Recipe, backend: Backend, model, optimizer: OptimizerSpec, sizes: Sizes, notes: list[str]):
    ledger = predict_memory(
        model,
        optimizer,
        zero_stage=backend.zero_stage,
        num_processes=sizes.num_processes,
        fp32_gradients=backend.fp32_gradients,
    )
    if ledger.unknown:
        notes.append(f"optimizer state of {recipe.optimizer.name} is unknown, and the total ({ledger.unknown})")
    memory = ledger.components()
    memory["reference_model"] = ledger.weights if recipe.algorithm.kl_coef > 0 else 0
    memory["rollout_weights"] = 0
    if recipe.rollout.engine == "vllm":
        width = 2 if recipe.model.dtype == "bfloat16" else 4
        memory["rollout_weights"] = width * sum(parameter.numel() for parameter in model.parameters())
        memory["kv_cache_of_completions"] = (
            kv_cache_bytes_per_token(model.config, recipe.model.dtype)
            * sizes.completions_per_process
            * recipe.rollout.max_new_tokens
        )
    total = None if None in memory.values() else sum(memory.values())
    notes.append("activations, logits and the prompts' KV cache come on top of the predicted memory")
    return {**memory, "total": total}
