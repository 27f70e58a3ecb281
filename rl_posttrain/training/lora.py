"""LoRA in training: the adapters that a recipe asks for, and a policy's weights with its adapters merged in.

peft wraps the policy, as in TRL's own trainers. Every engine and every folder gets whole weights under the names of the
checkpoint, so that nothing else has to know of adapters.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.pytorch_utils import Conv1D

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.models.find import model_without_weights
from rl_posttrain.models.lora import merged_weight
from rl_posttrain.optim.joint import JointSpec
from rl_posttrain.optim.spec import OptimizerSpec
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.critic import policy_parameters

_BASE = ".base_layer."


def lora_config(recipe: Recipe, config: Any, optimizer: OptimizerSpec | JointSpec) -> LoraConfig | None:
    """What peft is asked for, by TRL's trainer on the model that it loads; None where the whole model is trained.

    Call it before the backend starts.

    Args:
        config: of the model.
        optimizer: which adapters may not suit.

    Raises:
        RecipeError: as `with_adapters`, or as the optimizer's `build`; no weights are loaded to see it.
    """
    if recipe.model.lora is None:
        return None
    unset_hf_deepspeed_config()  # an earlier run under ZeRO-3 in this process has let every model be sharded
    model = model_without_weights(config, trust_remote_code=recipe.model.trust_remote_code)
    optimizer.build(with_adapters(model, recipe.model.lora, fp32=True))
    return _config(recipe.model.lora)


def with_adapters(model: torch.nn.Module, lora: LoraSection, *, fp32: bool) -> PeftModel:
    """`model` with adapters, which alone are trainable.

    Args:
        fp32: the adapters are fp32 whatever the model is, as plain PyTorch trains them; else of its dtype, as DeepSpeed
            has them.

    Raises:
        RecipeError: a name is of no layer, or of one that cannot have adapters here.
    """
    targets = _config(lora).target_modules
    key = f"model.lora.target_modules={targets if isinstance(targets, str) else sorted(targets)}"
    fix = "name linear layers such as [q_proj, v_proj], or set all-linear"
    output = model.get_output_embeddings()
    try:
        policy = get_peft_model(model, _config(lora), autocast_adapter_dtype=fp32)
    except ValueError as error:
        raise RecipeError(f"{key}: peft refuses it ({one_line(error, limit=200)}); {fix}") from error
    for parameter in policy.parameters():
        if parameter.requires_grad:  # peft leaves adapters on the meta device in fp32
            parameter.data = parameter.data.to(torch.float32 if fp32 else model.dtype)
    for name, module in bare(policy).named_modules():
        if not isinstance(module, LoraLayer):
            continue
        layer = module.get_base_layer()
        if layer is output:
            raise RecipeError(f"{key}: log-probabilities are computed from the output layer's own weight; {fix}")
        if type(layer) not in (torch.nn.Linear, Conv1D):
            raise RecipeError(
                f"{key}: {name} is of the kind {type(layer).__name__}, and only linear ones are merged; {fix}"
            )
    return policy


def _config(lora: LoraSection) -> LoraConfig:
    targets = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def bare(policy: torch.nn.Module) -> torch.nn.Module:
    """The model of transformers: without peft's wrapper, if it has one; its layers keep their adapters."""
    return policy.get_base_model() if isinstance(policy, PeftModel) else policy


def whole_weights(policy: torch.nn.Module, backend: Backend) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of every whole weight, under its checkpoint name; every process must walk all of them.

    A critic's weights are not among them. Adapters are merged into copies, one weight at a time.

    Args:
        policy: unwrapped but for peft's wrapper.
    """
    if not isinstance(policy, PeftModel):
        yield from backend.whole_weights(policy_parameters(policy))
        return
    layers = _layers(policy)

    def walk() -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The adapters of a layer stand right before its frozen weight."""
        for name, parameter in bare(policy).named_parameters():
            if name in layers:
                (adapter,) = layers[name].active_adapters
                yield f"{name} A", layers[name].lora_A[adapter].weight
                yield f"{name} B", layers[name].lora_B[adapter].weight
            if _BASE in name or ".lora_" not in name:
                yield name, parameter

    adapters: list[torch.Tensor] = []
    num_merged = 0
    for name, tensor in backend.whole_weights(walk()):
        if name.endswith((" A", " B")):
            adapters.append(tensor)
            continue
        if (layer := layers.get(name)) is not None:
            (adapter,) = layer.active_adapters
            tensor = merged_weight(tensor, *adapters, layer.scaling[adapter], transposed=layer.fan_in_fan_out)
            adapters, num_merged = [], num_merged + 1
        yield checkpoint_name(name), tensor
    assert num_merged == len(layers), "an adapter was not merged"


def checkpoint_name(name: str) -> str:
    """The name that a parameter or a module of `bare(policy)` has in the model's checkpoint."""
    return name.replace(_BASE, ".")


def save_adapter(
    policy: PeftModel, tokenizer: Any, folder: str, state_dict: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapters of `policy` as peft loads them, and the tokenizer.

    Args:
        state_dict: of the policy, where an engine has gathered it.
    """
    # Embeddings are never trained; left to itself, peft asks the hub whether they were resized.
    policy.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
    Path(folder, "README.md").unlink()  # peft's form of a card, not filled in
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def reference_model(trainer: Any) -> Iterator[torch.nn.Module | None]:
    """The model that a KL penalty is to: TRL's copy, or the policy itself with its adapters switched off; else None."""
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(policy, PeftModel) or trainer.args.beta == 0:
        yield trainer.ref_model
        return
    with policy.disable_adapter():
        yield trainer.model


def _layers(policy: PeftModel) -> dict[str, LoraLayer]:
    """The layers with adapters, by the name of their frozen weight in `bare(policy)`."""
    return {
        f"{name}{_BASE}weight": module for name, module in bare(policy).named_modules() if isinstance(module, LoraLayer)
    }
