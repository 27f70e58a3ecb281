"""What SCALE does with each parameter of a model: its groups (arXiv:2506.16659)."""

from typing import Any

from torch import nn

from rl_posttrain.optim.roles import RoledParameter, roled_parameters


def scale_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters of `model` by role, with the dimension along which their gradients are normalized.

    ==========================  ========  ====  =====================================================
    nn.Linear, LoRA [out, in]   matrix     1    each output's weights
    HF Conv1D [in, out]         matrix     0    each output's weights
    nn.Embedding [V, d]         matrix     0    each feature over the vocabulary, as the authors do
    experts [E, out, in]        matrix    -1    each output of each expert; [E, in, out]: dimension 1
    output layer [V, d]         head       1    each token's weights, of the momentum
    tied embedding [V, d]       head       1    it is also the output layer, and is treated as that
    norms, biases               vector    none  Adam
    ==========================  ========  ====  =====================================================

    The output layer is what `get_output_embeddings` returns, or a module called lm_head. A model without one, or with a
    frozen one (LoRA), has no head group, and nothing has momentum.

    Raises:
        ValueError: a parameter has more than three dimensions; convolutions are not in the paper.
    """
    found: dict[tuple[str, int | None], list[nn.Parameter]] = {}
    for roled in roled_parameters(model):
        found.setdefault(_role(roled), []).append(roled.parameter)
    return [{"params": params, "role": role, "axis": axis} for (role, axis), params in found.items()]


def _role(roled: RoledParameter) -> tuple[str, int | None]:
    if roled.makes_logits:
        return "head", 1
    if roled.role in ("norms", "biases"):
        return "vector", None
    if len(roled.shape) > 3:
        raise ValueError(f"{roled.name}={tuple(roled.shape)}: SCALE has no rule for it; leave it out, or use adams")
    if len(roled.shape) == 3:
        # transformers marks experts whose weights stand as [E, in, out].
        return "matrix", 1 if getattr(roled.module, "is_transposed", False) else -1
    by_input = isinstance(roled.module, nn.Embedding) or type(roled.module).__name__ == "Conv1D"
    return "matrix", 0 if by_input else 1
