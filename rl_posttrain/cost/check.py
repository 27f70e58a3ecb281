"""What `rl-posttrain check` shows: the whole recipe, its task, sizes and predicted memory. No weights are loaded."""

import copy
from typing import Any

import torch

from rl_posttrain.cost.placed import THIS_MACHINE, Placed, Where
from rl_posttrain.cost.rows import shown_task
from rl_posttrain.errors import HubError
from rl_posttrain.models.find import load_config, model_without_weights, published_config
from rl_posttrain.models.vocabulary import check_same_vocabulary
from rl_posttrain.optim import OptimizerSpec
from rl_posttrain.optim.ledger import MemoryLedger, predict_memory
from rl_posttrain.optim.roles import describe_groups
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes, derive_sizes
from rl_posttrain.rollout.server_client import check_addresses
from rl_posttrain.training.algorithms.algorithm import make_algorithm
from rl_posttrain.training.backends.backend import Backend, make_backend
from rl_posttrain.training.guards.completions import too_cold


def check_recipe(recipe: Recipe, num_processes: int, where: Where = THIS_MACHINE) -> dict[str, Any]:
    """Everything about a run that can be known without running it.

    Args:
        num_processes: devices that it is sized for.
        where: what devices those are.

    Returns:
        ``recipe`` (YAML text), ``task`` (as `cost.rows.shown_task` gives it), ``sizes``, ``num_parameters`` of the
        policy, ``optimizer_groups`` (roles, parameters, learning rate and weight decay of each, and with a critic whose
        it is), ``memory_bytes`` by component and device, ``step`` (as `cost.placed.predict_step` gives it; None where
        no device is named and nothing is measured), and ``notes``.

    Raises:
        RecipeError: something in the recipe cannot be used.
    """
    from rl_posttrain.training.adapters import four_bits, sized_in_4_bits, with_adapters
    from rl_posttrain.training.critic import critic_without_weights
    from rl_posttrain.training.trl_config import check_trl

    sizes = derive_sizes(recipe, num_processes)
    where.check(recipe, num_processes)
    specs = resolve(recipe)
    optimizer = specs.optimizer
    backend = make_backend(recipe, sizes)
    check_trl(recipe, sizes, backend)
    make_algorithm(recipe)
    check_addresses(recipe.rollout.servers)
    notes = [
        f"{backend.precision}{recipe.model.four_bits}",
        *filter(None, (recipe.checkpoint.warning, too_cold(recipe))),
    ]
    if recipe.rollout.engine == "vllm_server":
        notes.append(
            f"{len(recipe.rollout.servers)} servers have weights and KV cache of their own, which the predicted memory "
            "leaves out; whether they are there is asked when the run starts"
        )
    trusts = recipe.model.trust_remote_code
    config = _config(recipe.model.name, "model.name", notes, trusts)
    task = shown_task(recipe, specs, config, notes)
    critic_config = _critic_config(recipe, config, notes)
    num_parameters = groups = memory = step = None
    if config is not None and (recipe.critic is None or critic_config is not None):
        model = model_without_weights(config, backend.weights_dtype, trust_remote_code=trusts)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        trained = model
        if recipe.model.lora is not None:
            trained = model_without_weights(config, backend.weights_dtype, trust_remote_code=trusts)
            trained = with_adapters(trained, recipe.model.lora, fp32=backend.zero_stage is None)
        held = trained
        if how := four_bits(recipe.model.lora):
            held = copy.deepcopy(trained)
            sized_in_4_bits(held, model_without_weights(config, trust_remote_code=trusts), how)
        parts: dict[str, tuple[torch.nn.Module, OptimizerSpec]] = {"policy": (held, optimizer)}
        if recipe.critic is not None:
            critic = critic_without_weights(
                critic_config,
                backend.weights_dtype,
                shared_backbone=recipe.critic.shared_backbone,
                trust_remote_code=trusts,
                lora=recipe.model.lora,
                fp32=backend.zero_stage is None,
            )
            parts = {"policy": (held, optimizer.policy), "critic": (critic, optimizer.critic)}
        groups = [
            ({"part": name} if len(parts) > 1 else {}) | group
            for name, (module, spec) in parts.items()
            for group in describe_groups(spec.build(module), module)
        ]
        memory = _memory(recipe, backend, parts, sizes, num_parameters, notes)
        placed = Placed(recipe, sizes, backend, where, trained, config, task and task["longest_prompt_tokens"], notes)
        memory |= placed.on_top(memory["rollout_weights"])
        memory["total"] = None if None in memory.values() else sum(memory.values())
        step = placed.predict_step(memory)
    return {
        "recipe": recipe.to_yaml(),
        "task": task,
        "sizes": sizes.model_dump(),
        "num_parameters": num_parameters,
        "optimizer_groups": groups,
        "memory_bytes": memory,
        "step": step,
        "notes": notes,
    }


def _config(name: str, key: str, notes: list[str], trust_remote_code: bool):
    """The config of `name`, None where the hub does not give it; a note where it is not from the model's own file."""
    try:
        return load_config(name, key=key, trust_remote_code=trust_remote_code)
    except HubError as error:
        config = published_config(name)
        if config is not None:
            notes.append(f"{name}: sized from its published shapes; the hub did not give its config")
        else:
            notes.append(f"memory is not predicted: {error}")
        return config


def _critic_config(recipe: Recipe, config, notes: list[str]):
    """The config of the critic's backbone; None without a critic, or where the hub does not give it."""
    if recipe.critic is None or recipe.critic.model is None:
        return config
    trusts = recipe.model.trust_remote_code
    try:
        check_same_vocabulary(recipe.model.name, recipe.critic.model, key="critic.model", trust_remote_code=trusts)
    except HubError as error:
        notes.append(f"whether the critic reads the policy's tokens was not checked: {error}")
    return _config(recipe.critic.model, "critic.model", notes, trusts)


def _of_device(ledger: MemoryLedger) -> dict[str, int | None]:
    """Bytes of each component on the device: 0 of what is offloaded."""
    return {name: 0 if name in ledger.on_host else value for name, value in ledger.components().items()}


def _memory(
    recipe: Recipe,
    backend: Backend,
    parts: dict[str, tuple[torch.nn.Module, OptimizerSpec]],
    sizes: Sizes,
    num_parameters: int,
    notes: list[str],
) -> dict[str, int | None]:
    ledgers = {}
    for name, (module, spec) in parts.items():
        ledgers[name] = predict_memory(
            module,
            spec,
            zero_stage="fsdp2" if recipe.distributed.engine == "fsdp2" else backend.zero_stage,
            num_processes=sizes.num_processes,
            offload=recipe.distributed.offload,
            fp32_gradients=backend.fp32_gradients,
        )
        if ledgers[name].unknown:
            notes.append(f"optimizer state of {spec.name} is unknown, and the total ({ledgers[name].unknown})")
    memory = _of_device(ledgers["policy"])
    if "critic" in ledgers:
        memory |= {f"critic_{name}": value for name, value in _of_device(ledgers["critic"]).items()}
    on_host = [ledger.total() - ledger.on_device() for ledger in ledgers.values() if ledger.total() is not None]
    if sum(on_host):
        said = f"distributed.offload={recipe.distributed.offload}"
        notes.append(f"{said}: {sum(on_host) / 2**30:,.2f} GiB of each process are in main memory")
    # With adapters the policy without them is the reference.
    has_reference = recipe.algorithm.kl_coef > 0 and recipe.model.lora is None
    # Under FSDP2 the policy's weights are fp32, and the reference model's in the dtype of the forward pass.
    halves = recipe.distributed.engine == "fsdp2" and backend.weights_dtype == "bfloat16"
    memory["reference_model"] = ledgers["policy"].weights // (1 + halves) if has_reference else 0
    memory["rollout_weights"] = 0
    if recipe.rollout.engine == "vllm":
        width = 2 if recipe.model.dtype == "bfloat16" else 4
        memory["rollout_weights"] = width * num_parameters
    return memory
