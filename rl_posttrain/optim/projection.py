"""What GaLore, Fira and APOLLO share: which matrices have a low-rank state, and which steps are skipped."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from rl_posttrain.optim.roles import roled_parameters


def low_rank_groups(model: nn.Module, rank: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainable parameters of `model`: a group of matrices with a rank and `settings`, and one of all others.

    A hidden matrix whose smaller side is above `rank` has a low-rank state, as in the papers. Embeddings, the output
    layer and vectors take AdamW, and so does a matrix that a projection would not make smaller.

    Args:
        settings: further entries of the group of matrices.

    Raises:
        ValueError: `rank` is no whole number above 0, or no matrix is that large, so that nothing would be projected.
    """
    if not (isinstance(rank, int) and rank > 0):
        raise ValueError(f"Invalid rank: {rank}; it must be a whole number above 0")
    low, others, largest = [], [], 0
    for roled in roled_parameters(model):
        hidden = roled.role == "matrices" and len(roled.shape) == 2
        largest = max(largest, min(roled.shape)) if hidden else largest
        (low if hidden and min(roled.shape) > rank else others).append(roled.parameter)
    if not low:
        raise ValueError(f"Invalid rank: {rank}; the smaller side of every hidden matrix is {largest} or less")
    groups = [{"params": low, "rank": rank, **settings}]
    return groups + [{"params": others}] * bool(others)


def no_gradient(groups: Iterable[dict[str, Any]]) -> bool:
    """Whether every gradient is zero or missing.

    Such steps are skipped. DeepSpeed makes one before training, and GRPO makes one when all completions are equally
    good. A projection computed from zeros would be useless until the next one. Fira and APOLLO let an update grow by
    1 % a step, so after an update of zero all later ones would be zero.
    """
    return not any(p.grad is not None and bool(p.grad.any()) for group in groups for p in group["params"])
