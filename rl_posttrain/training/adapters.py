"""Adapters and 4 bits in a model that is trained: what peft and bitsandbytes are asked for, and what they may do.

peft wraps the policy, as in TRL's own trainers.
"""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.pytorch_utils import Conv1D

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.models.find import model_without_weights
from rl_posttrain.models.quantized import FourBits, layers_in_4_bits, quantized_layers
from rl_posttrain.optim.joint import JointSpec
from rl_posttrain.optim.ledger import KEPT_WHOLE
from rl_posttrain.optim.spec import OptimizerSpec
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.schema import Recipe

BASE = ".base_layer."
"""What stands in the name of a frozen weight that has adapters."""


def lora_arguments(recipe: Recipe, config: Any, optimizer: OptimizerSpec | JointSpec) -> dict[str, Any]:
    """The arguments of TRL's trainer by which it loads the model in 4 bits, and has peft put adapters on it.

    There are none where the whole model is trained. Call it before the backend starts.

    Args:
        config: of the model.
        optimizer: which adapters may not suit.

    Raises:
        RecipeError: as `with_adapters`, or as the optimizer's `build`; no weights are loaded to see it.
    """
    if recipe.model.lora is None:
        return {}
    unset_hf_deepspeed_config()  # an earlier run under ZeRO-3 in this process has let every model be sharded
    model = model_without_weights(config, trust_remote_code=recipe.model.trust_remote_code)
    of_policy = optimizer.policy if isinstance(optimizer, JointSpec) else optimizer
    of_policy.build(with_adapters(model, recipe.model.lora, fp32=True))
    how = four_bits(recipe.model.lora)
    return {
        "peft_config": _config(recipe.model.lora),
        "quantization_config": how.config(recipe.model.dtype) if how else None,
    }


def four_bits(lora: LoraSection | None) -> FourBits | None:
    """How the frozen weights are kept in 4 bits; None where they are not, or none is frozen."""
    return FourBits(lora.quantize, lora.double_quant) if lora and lora.quantize else None


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
        policy = get_peft_model(model, _config(lora, has_head=output is not None), autocast_adapter_dtype=fp32)
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
        if getattr(layer, "source_cls", type(layer)) not in (torch.nn.Linear, Conv1D):
            raise RecipeError(
                f"{key}: {name} is of the kind {type(layer).__name__}, and only linear ones are merged; {fix}"
            )
    return policy


def _config(lora: LoraSection, *, has_head: bool = True) -> LoraConfig:
    targets = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM" if has_head else "FEATURE_EXTRACTION",  # a critic's backbone has no head of tokens
    )


def sized_in_4_bits(policy: PeftModel, plain: torch.nn.Module, how: FourBits) -> None:
    """Let the frozen weights of a policy on the meta device have the bytes that they have in 4 bits.

    Args:
        plain: the model without adapters, on the meta device; it is of no use afterwards.
    """
    in_4_bits = layers_in_4_bits(plain, how)
    for name, module in bare(policy).named_modules():
        if checkpoint_name(name) in in_4_bits and not isinstance(module, LoraLayer):
            bits, magnitudes = (
                torch.empty(size, dtype=torch.uint8, device="meta") for size in how.num_bytes(module.weight.numel())
            )
            module.weight = torch.nn.Parameter(bits, requires_grad=False)
            module.register_buffer(KEPT_WHOLE, magnitudes)


def settle_quantized(policy: torch.nn.Module) -> None:
    """Undo what TRL and bitsandbytes do to a policy that was just loaded in 4 bits; any other stays as it is.

    TRL makes adapters bf16, in which plain PyTorch would lose small updates: the engine decides on their dtype. And on
    some CPUs bitsandbytes would put weights into another layout at the first evaluation, for good.
    """
    layers = [layer for _, layer in quantized_layers(policy)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    for parameter in policy.parameters() if layers else ():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def is_adapted(policy: torch.nn.Module) -> bool:
    """Whether adapters are trained, and not the whole model."""
    return isinstance(policy, PeftModel)


def bare(policy: torch.nn.Module) -> torch.nn.Module:
    """The model of transformers: without peft's wrapper, if it has one; its layers keep their adapters."""
    return policy.get_base_model() if is_adapted(policy) else policy


def checkpoint_name(name: str) -> str:
    """The name that a parameter or a module of `bare(policy)` has in the model's checkpoint."""
    return name.replace(BASE, ".").removesuffix(".base_layer")
