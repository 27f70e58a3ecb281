"""What memory is predicted and measured of: a model by its config, with a critic where one is asked for."""

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from rl_posttrain.optim import JointSpec, OptimizerSpec, resolve_optimizer
from rl_posttrain.training.critic import Critic, attach_critic


def make_model(config, dtype: str, *, critic: bool) -> PreTrainedModel:
    """The model of `config` on torch's default device, which may be ``meta``; weights are random.

    Args:
        critic: give it a critic as its child ``critic``: a backbone of the same shapes, and a head.
    """
    made = {"config": config, "dtype": getattr(torch, dtype)}
    model = AutoModelForCausalLM.from_config(**made)
    if critic:
        value_model = Critic(AutoModel.from_config(**made), config.get_text_config().hidden_size)
        value_model.head.to(made["dtype"])
        # Left as it is, it may hold NaN, and DeepSpeed skips a step without finite gradients.
        nn.init.normal_(value_model.head.weight)
        attach_critic(model, value_model)
    return model


def optimizer_spec(name: str, *, critic: bool) -> OptimizerSpec | JointSpec:
    """The optimizer of an option ``--optimizers``; with a critic for both halves."""
    spec = resolve_optimizer(name, lr=1e-5, key="--optimizers")
    return JointSpec(spec, spec) if critic else spec
