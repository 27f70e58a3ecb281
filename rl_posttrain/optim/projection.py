"""What GaLore, Fira and APOLLO share: which matrices have a low-rank state, and which of them wait in a step."""

from collections.abc import Iterable
from typing import Any

import torch
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


def is_low_rank(parameter: torch.Tensor, group: dict[str, Any]) -> bool:
    return "rank" in group and parameter.ndim == 2


def first_state(parameter: torch.Tensor, group: dict[str, Any]) -> dict[str, Any]:
    """AdamW's state of a parameter that has not moved yet.

    It is made at the first step whatever the gradient is: torch.distributed.checkpoint asks for it by a step with
    zero gradients.

    Returns:
        ``step``: 0; ``exp_avg`` and ``exp_avg_sq``: zeros in the shape of the parameter, or of its projection, (longer
        side, rank) of a matrix whose rows are the longer side, else (rank, longer side).
    """
    shape = parameter.shape
    if is_low_rank(parameter, group):
        rows, columns = shape
        rank = min(group["rank"], rows, columns)
        shape = (rows, rank) if rows >= columns else (rank, columns)
    return {"step": 0, "exp_avg": parameter.new_zeros(shape), "exp_avg_sq": parameter.new_zeros(shape)}


def moving(groups: Iterable[dict[str, Any]]) -> set[torch.Tensor]:
    """The parameters that this step moves: those whose gradient has a value other than zero, and the AdamW half.

    A matrix with a low-rank state and a zero gradient waits: its weights, its state and its count stay. The first
    gradient of LoRA's A is zero, because B is. A projection computed from zeros would be useless until the next one,
    and Fira's and APOLLO's limiter lets an update grow by 1 % a step, so none could grow after an update of zero.
    Where all gradients are zero, everything waits: GRPO makes such a step when all completions are equally good, and
    DeepSpeed makes one before training.
    """
    given = [(group, parameter) for group in groups for parameter in group["params"] if parameter.grad is not None]
    # Without values there is nothing to compute, as on the ledger's meta tensors.
    given = [(group, parameter) for group, parameter in given if not parameter.is_meta]
    marks: dict[torch.device, list[torch.Tensor]] = {}
    for _, parameter in given:
        marks.setdefault(parameter.device, []).append(parameter.grad.any())
    # One wait for each device, not one for each parameter.
    values = {device: iter(torch.stack(found).tolist()) for device, found in marks.items()}
    nonzero = [next(values[parameter.device]) for _, parameter in given]
    any_moves = any(nonzero)
    return {
        parameter
        for (group, parameter), has_values in zip(given, nonzero, strict=True)
        if has_values or (any_moves and not is_low_rank(parameter, group))
    }
