"""What memory is predicted and measured of: a model by its config, maybe with a critic or adapters."""

from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from rl_posttrain.models.quantized import put_into_4_bits
from rl_posttrain.optim import JointSpec, OptimizerSpec, resolve_optimizer
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.training.adapters import four_bits, sized_in_4_bits, with_adapters
from rl_posttrain.training.critic import Critic, attach_critic


def make_model(
    config,
    dtype: str,
    *,
    critic: bool,
    lora_rank: int | None = None,
    quantize: str | None = None,
    zero_stage: int | Literal["fsdp2"] | None = None,
) -> nn.Module:
    """The model of `config` on torch's default device, which may be ``meta``; weights are random.

    Args:
        critic: give it a critic as its child ``critic``: a backbone of the same shapes, and a head.
        lora_rank: of adapters on all linear layers, which alone are trained, and the critic's head; None: all is.
        quantize: the frozen weights are in 4 bits, as ``nf4`` or ``fp4``; None: in `dtype`.
        zero_stage: under which it is trained, which decides the dtype of adapters.
    """
    made = {"config": config, "dtype": getattr(torch, dtype)}
    lora = None if lora_rank is None else LoraSection(rank=lora_rank, quantize=quantize)
    fp32 = zero_stage in (None, "fsdp2")
    model = _adapted(AutoModelForCausalLM, made, lora, fp32=fp32)
    if critic:
        value_model = Critic(_adapted(AutoModel, made, lora, fp32=fp32), config.get_text_config().hidden_size)
        value_model.head.to(torch.float32 if lora and fp32 else made["dtype"])
        # Left as it is, it may hold NaN, and DeepSpeed skips a step without finite gradients.
        nn.init.normal_(value_model.head.weight)
        attach_critic(model, value_model)
    return model


def _adapted(kind: type, made: dict[str, Any], lora: LoraSection | None, *, fp32: bool) -> nn.Module:
    """A model of transformers, with adapters where there is a `lora`."""
    model = kind.from_config(**made)
    if lora is None:
        return model
    how, on_meta = four_bits(lora), model.device.type == "meta"
    if how and not on_meta:
        put_into_4_bits(model, how)
    policy = with_adapters(model, lora, fp32=fp32)
    if how and on_meta:
        sized_in_4_bits(policy, kind.from_config(**made), how)
    return policy


def optimizer_spec(name: str, *, critic: bool) -> OptimizerSpec | JointSpec:
    """The optimizer of an option ``--optimizers``; with a critic for both halves."""
    spec = resolve_optimizer(name, lr=1e-5, key="--optimizers")
    return JointSpec(spec, spec) if critic else spec
