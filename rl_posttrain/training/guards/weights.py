"""Guards of weights: not finite, all zero, or changed beyond recognition by an update."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.guards.finding import Finding
from rl_posttrain.training.guards.history import lower_rate

_UNCHANGED_STEPS = 3


def checked(
    weights: Iterable[tuple[str, torch.Tensor]], tell: Callable[[str], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Passes on the weights that a run starts from, and checks them on the way.

    Args:
        weights: names and tensors.
        tell: called with a clause where one is not finite, and, after the last, where all matrices are zero.
    """
    zero = None
    for key, tensor in weights:
        if bad := int((~torch.isfinite(tensor)).sum()):
            tell(f"{bad} of {tensor.numel()} numbers of {key} are not finite")
        if tensor.dim() >= 2:
            zero = zero is not False and not tensor.any().item()
        yield key, tensor
    if zero:
        tell("all of its matrices are zero, so no gradient reaches them")


def change(recipe: Recipe, update_norm: float, weight_norm: float) -> Finding | None:
    """The step's update is not finite, or is large against the weights.

    Args:
        update_norm: L2 norm of what the step changed.
        weight_norm: L2 norm of the weights before it.
    """
    optimizer = recipe.optimizer
    fix, override = f"lower optimizer.lr={optimizer.lr:g}", lower_rate(recipe)
    if optimizer.lr * optimizer.weight_decay > recipe.guards.weights.max_change:  # it alone shrinks them by so much
        fix, override = f"lower optimizer.weight_decay={optimizer.weight_decay:g}", ()
    if not math.isfinite(update_norm):
        return Finding("weights", f"the update's norm is {update_norm:g}", fix, override)
    if not update_norm > recipe.guards.weights.max_change * weight_norm:
        return None
    what = f"the update's norm is {update_norm:.3g}, and that of all weights was {weight_norm:.3g}"
    return Finding("weights", what, fix, override)


def unchanged(rows: Sequence[Mapping[str, Any]]) -> Finding | None:
    """The last updates changed no weight, though rewards differed and the rate was not 0.

    Args:
        rows: of all steps, the last one included.
    """

    def is_lost(row: Mapping[str, Any]) -> bool:
        return (
            row.get("update_norm") == 0
            and not row.get("skipped_updates")
            and bool(row.get("lr") and row.get("teaching_share"))
        )

    if len(rows) < _UNCHANGED_STEPS or not all(is_lost(row) for row in rows[-_UNCHANGED_STEPS:]):
        return None
    what = f"no weight has changed for {_UNCHANGED_STEPS} steps, though rewards differed"
    fix = "the gradient gets lost: look at rollout.temperature, rewards.N.weight and the algorithm's advantages"
    return Finding("weights", what, fix, (), since=rows[-_UNCHANGED_STEPS]["step"])


def not_finite(recipe: Recipe) -> Finding:
    """Some weights are not, before a checkpoint."""
    what = "weights are not finite, so no checkpoint of them is written"
    return Finding("weights", what, f"lower optimizer.lr={recipe.optimizer.lr:g}", lower_rate(recipe))


def are_finite(model: torch.nn.Module) -> bool:
    """Whether all weights that this process holds are; under ZeRO-3 and FSDP2 its shards."""
    tensors = [getattr(parameter, "ds_tensor", parameter).detach() for parameter in model.parameters()]
    tensors = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    # The least and the largest number of each: unlike a sum they do not overflow, and NaN shows in them.
    ends = [end for tensor in tensors if tensor.numel() for end in tensor.aminmax()]
    return all(torch.isfinite(torch.stack([end.float() for end in ends])).tolist())
