"""SCALE's arithmetic (arXiv:2506.16659) on whole parameters; `rl_posttrain.optim.scale` keeps the state.

It computes in fp32 (fp64 for fp64 weights), whatever dtypes the tensors have:

    m  <- m + (1 - momentum) * (g - m)          output layer only
    w  <- (1 - lr * weight_decay) * w - lr * d / max(norm(d), 1e-8)

with d the gradient, or the momentum where there is one, and one norm for each output of the layer. `group` is one of
SCALE's `param_groups`: its ``axis`` is the dimension along which a norm is taken.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim.adam import adam

from rl_posttrain.optim.native import addresses, load_kernel

SMALLEST_NORM = 1e-8
_PIECE_SIZE = 2**18


class Matrix(NamedTuple):
    """A weight, its gradient, and its momentum or None: tensors of one shape, [out, in], [in, out] or [E, out, in]."""

    weight: torch.Tensor
    gradient: torch.Tensor
    momentum: torch.Tensor | None


def update_single(matrices: Sequence[Matrix], group: dict[str, Any]) -> None:
    """torch's operations, one matrix after the other. It runs on every device."""
    for matrix in matrices:
        descend(matrix.weight, direction_of(matrix, group), group)


def update_compiled(matrices: Sequence[Matrix], group: dict[str, Any]) -> None:
    """C++ kernels; norms along rows (the last dimension) read and write each value once.

    Raises:
        EngineError: this machine cannot compile.
    """
    batches: dict[tuple, list[Matrix]] = {}
    for matrix in matrices:
        if all(tensor is None or tensor.is_contiguous() for tensor in matrix):
            # A group's axis counts from the front, so that it is the last one of some shapes and not of others.
            is_last = group["axis"] % matrix.weight.ndim == matrix.weight.ndim - 1
            batches.setdefault((is_last, *value_types(matrix)), []).append(matrix)
        else:
            update_single([matrix], group)
    for (along_rows, *types), batch in batches.items():
        kernel = load_kernel("scale", **dict(zip(("weight", "gradient", "momentum"), types, strict=True)))
        (_update_rows if along_rows else _update_columns)(kernel, batch, group)
        torch.autograd.graph.increment_version([matrix.weight for matrix in batch])


def value_types(matrix: Matrix) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """The dtypes that a kernel is compiled for. Without a momentum, the weight's takes its place."""
    weight, gradient, momentum = matrix
    return weight.dtype, gradient.dtype, (weight if momentum is None else momentum).dtype


def update_vectors(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    means: list[torch.Tensor],
    squares: list[torch.Tensor],
    steps: list[torch.Tensor],
    group: dict[str, Any],
) -> None:
    """torch's own Adam, in place.

    Args:
        weights, gradients, means, squares: as many tensors in each, the same shapes, all on one device; weights of one
            dtype.
        steps: for each weight a tensor of shape (), the number of steps so far.
    """
    (beta1, beta2), dtype = group["betas"], weights[0].dtype
    adam(
        weights,
        [gradient if gradient.dtype is dtype else gradient.to(dtype) for gradient in gradients],
        means,
        squares,
        [],
        steps,
        fused=weights[0].device.type in ("cpu", "cuda", "meta"),
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"],
        maximize=group["maximize"],
    )


def opmath(weight: torch.Tensor) -> torch.dtype:
    """The dtype of the arithmetic."""
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def direction_of(matrix: Matrix, group: dict[str, Any]) -> torch.Tensor:
    """What is normalized: the gradient, or the updated momentum where there is one; in the shape of the weight."""
    gradient = matrix.gradient.to(opmath(matrix.weight))
    if matrix.momentum is None:
        return gradient
    kept = matrix.momentum.to(gradient.dtype).lerp(gradient, 1 - group["momentum"])
    return matrix.momentum.copy_(kept).to(gradient.dtype)


def descend(
    weight: torch.Tensor,
    direction: torch.Tensor,
    group: dict[str, Any],
    *,
    length: int | None = None,
    add_up: Callable[[torch.Tensor], None] | None = None,
) -> None:
    """The weight's step along `direction`.

    Args:
        weight, direction: of one shape; the weight changes.
        length: size of the whole dimension ``axis``, if these tensors are only a part of it.
        add_up: adds the squares of all parts' norms, in place; they have the shape of `direction` with 1 at ``axis``.
    """
    axis = group["axis"]
    lengths = torch.linalg.vector_norm(direction, dim=axis, keepdim=True)
    if add_up is not None:
        squares = lengths.square()
        add_up(squares)
        lengths = squares.sqrt()
    wide = weight.to(direction.dtype)
    wide = wide.mul(1 - group["lr"] * group["weight_decay"])
    weight.copy_(wide.addcdiv_(direction, norms(lengths, length or direction.shape[axis], group), value=-group["lr"]))


def norms(lengths: torch.Tensor, num_values: int, group: dict[str, Any]) -> torch.Tensor:
    """The divisors for Euclidean lengths of `num_values` values each; any shape, in place."""
    if group["norm"] == "rms":
        lengths /= math.sqrt(num_values)
    return lengths.clamp_(min=SMALLEST_NORM)


def _update_rows(kernel: ctypes.CDLL, matrices: Sequence[Matrix], group: dict[str, Any]) -> None:
    weights, gradients, momenta = map(list, zip(*matrices, strict=True))
    counts = ctypes.c_int64 * len(weights)
    kernel.scale_rows(
        ctypes.c_int64(len(weights)),
        counts(*[weight.numel() // weight.shape[-1] for weight in weights]),
        counts(*[weight.shape[-1] for weight in weights]),
        addresses(weights),
        addresses(gradients),
        None if momenta[0] is None else addresses(momenta),
        _scalars(group),
        ctypes.c_int(torch.get_num_threads()),
    )


def _update_columns(kernel: ctypes.CDLL, matrices: Sequence[Matrix], group: dict[str, Any]) -> None:
    for weight, gradient, _ in matrices:
        rows, columns = weight.shape[-2:]
        # At least 64, so that the sums of the pieces stay small beside the matrix.
        rows_a_piece = max(64, _PIECE_SIZE // columns)
        sums = torch.empty(-(-rows // rows_a_piece), columns, dtype=opmath(weight))
        slabs = zip(weight.view(-1, rows, columns), gradient.view(-1, rows, columns), strict=True)
        for one, its_gradient in slabs:  # an expert at a time
            kernel.scale_columns(
                ctypes.c_int64(rows),
                ctypes.c_int64(columns),
                *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (one, its_gradient, sums)),
                ctypes.c_int64(rows_a_piece),
                _scalars(group),
                ctypes.c_int(torch.get_num_threads()),
            )


def _scalars(group: dict[str, Any]) -> ctypes.Array:
    values = (
        1 - group["lr"] * group["weight_decay"],
        group["lr"],
        SMALLEST_NORM,
        1 - group["momentum"],
        float(group["norm"] == "rms"),
    )
    return (ctypes.c_double * len(values))(*map(float, values))
