"""What memory is predicted and measured of: a model by its config, maybe with a critic or adapters."""

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from rl_posttrain.optim import JointSpec, OptimizerSpec, resolve_optimizer
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.training.critic import Critic, attach_critic
from rl_posttrain.training.lora import with_adapters


def make_model(
    config, dtype: str, *, critic: bool, lora_rank: int | None = None, zero_stage: int | None = None
) -> nn.Module:
    """The model of `config` on torch's default device, which may be ``meta``; weights are random.

    Args:
        critic: give it a critic as its child ``critic``: a backbone of the same shapes, and a head.
        lora_rank: of adapters on all linear layers, which alone are trained; None: the whole model is.
        zero_stage: under which it is trained, which decides the dtype of adapters.
    """
    made = {"config": config, "dtype": getattr(torch, dtype)}
    model = AutoModelForCausalLM.from_config(**made)
    if critic:
        value_model = Critic(AutoModel.from_config(**made), config.get_text_config().hidden_size)
        value_model.head.to(made["dtype"])
        # Left as it is, it may hold NaN, and DeepSpeed skips a step without finite gradients.
        nn.init.normal_(value_model.head.weight)
        attach_critic(model, value_model)
    if lora_rank is not None:
        return with_adapters(model, LoraSection(rank=lora_rank), fp32=zero_stage is None)
    return model


def optimizer_spec(name: str, *, critic: bool) -> OptimizerSpec | JointSpec:
    """The optimizer of an option ``--optimizers``; with a critic for both halves."""
    spec = resolve_optimizer(name, lr=1e-5, key="--optimizers")
    return JointSpec(spec, spec) if critic else spec
