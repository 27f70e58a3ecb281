"""Guards of weights: not finite, all zero, or changed beyond recognition by an update."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.training.guards.finding import Finding
from rl_posttrain.training.guards.history import lower_rate


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
    limit, lr = recipe.guards.weights.max_change, recipe.optimizer.lr
    fix = f"lower optimizer.lr={lr:g}"
    if not math.isfinite(update_norm):
        return Finding("weights", f"the update's norm is {update_norm:g}", fix, lower_rate(recipe))
    if not update_norm > limit * weight_norm:
        return None
    what = f"the update's norm is {update_norm:.3g}, and that of all weights was {weight_norm:.3g}"
    return Finding("weights", what, fix, lower_rate(recipe))


def not_finite(recipe: Recipe) -> Finding:
    """Some weights are not, before a checkpoint."""
    what = "weights are not finite, so no checkpoint of them is written"
    return Finding("weights", what, f"lower optimizer.lr={recipe.optimizer.lr:g}", lower_rate(recipe))


def are_finite(model: torch.nn.Module) -> bool:
    """Whether all weights that this process holds are; under ZeRO-3 its shards."""
    tensors = [getattr(parameter, "ds_tensor", parameter).detach() for parameter in model.parameters()]
    # The least and the largest number of each: unlike a sum they do not overflow, and NaN shows in them.
    ends = [end for tensor in tensors if tensor.numel() for end in tensor.aminmax()]
    return all(torch.isfinite(torch.stack([end.float() for end in ends])).tolist())
