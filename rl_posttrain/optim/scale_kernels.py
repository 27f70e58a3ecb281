"""SCALE's arithmetic (arXiv:2506.16659) on whole parameters; `rl_posttrain.optim.scale` keeps the state.

It computes in fp32 (fp64 for fp64 weights), whatever dtypes the tensors have:

    m  <- m + (1 - momentum) * (g - m)          output layer only
    w  <- (1 - lr * weight_decay) * w - lr * d / max(norm(d), 1e-8)

with d the gradient, or the momentum where there is one, and one norm for each output of the layer. `group` is one of
SCALE's `param_groups`: its ``axis`` is the dimension along which a norm is taken. With `keys`, one for each weight,
bf16 weights are rounded stochastically (`rl_posttrain.optim.rounding`), every way with the same bits.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim.adam import adam

from rl_posttrain.optim.native import addresses, load_kernel, numbers_of_c
from rl_posttrain.optim.rounding import pick, store

SMALLEST_NORM = 1e-8
_PIECE_SIZE = 2**18


class Matrix(NamedTuple):
    """A weight, its gradient, and its momentum or None: tensors of one shape, [out, in], [in, out] or [E, out, in]."""

    weight: torch.Tensor
    gradient: torch.Tensor
    momentum: torch.Tensor | None


def update_single(matrices: Sequence[Matrix], group: dict[str, Any], keys: Sequence[int] | None = None) -> None:
    """torch's operations, one matrix after the other. It runs on every device."""
    for matrix, key in zip(matrices, keys or [None] * len(matrices), strict=True):
        descend(matrix.weight, direction_of(matrix, group), group, key)


def update_compiled(matrices: Sequence[Matrix], group: dict[str, Any], keys: Sequence[int] | None = None) -> None:
    """C++ kernels; norms along rows (the last dimension) read and write each value once.

    Raises:
        EngineError: this machine cannot compile.
    """
    batches: dict[tuple, list[int]] = {}
    for number, matrix in enumerate(matrices):
        if all(tensor is None or tensor.is_contiguous() for tensor in matrix):
            # A group's axis counts from the front, so that it is the last one of some shapes and not of others.
            is_last = group["axis"] % matrix.weight.ndim == matrix.weight.ndim - 1
            batches.setdefault((is_last, *value_types(matrix)), []).append(number)
        else:
            update_single([matrix], group, pick(keys, [number]))
    for (along_rows, *types), numbers in batches.items():
        kernel = load_kernel("scale", **dict(zip(("weight", "gradient", "momentum"), types, strict=True)))
        batch = pick(matrices, numbers)
        (_update_rows if along_rows else _update_columns)(kernel, batch, group, pick(keys, numbers))
        torch.autograd.graph.increment_version([matrix.weight for matrix in batch])


def value_types(matrix: Matrix) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """The dtypes that a kernel is compiled for. Without a momentum, the weight's takes its place."""
    weight, gradient, momentum = matrix
    return weight.dtype, gradient.dtype, (weight if momentum is None else momentum).dtype


def update_vectors(
    vectors: Sequence[tuple[torch.Tensor, ...]], group: dict[str, Any], keys: Sequence[int] | None = None
) -> None:
    """torch's own Adam, in place. With keys, bf16 weights take the step on fp32 copies.

    Args:
        vectors: weight, gradient, mean and square of one shape, and the number of steps so far, a tensor of shape ();
            all on one device, and weights of one dtype.
    """
    weights, gradients, means, squares, steps = map(list, zip(*vectors, strict=True))
    (beta1, beta2), dtype = group["betas"], weights[0].dtype
    if keys is not None and dtype is torch.bfloat16:
        copies = [(*(tensor.float() for tensor in tensors), step) for *tensors, step in vectors]
        update_vectors(copies, group)
        for (weight, _, *state, _), (new_weight, _, *new_state, _), key in zip(vectors, copies, keys, strict=True):
            store(weight, new_weight, key)
            torch._foreach_copy_(state, new_state)
        return
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
    key: int | None = None,
    *,
    length: int | None = None,
    add_up: Callable[[torch.Tensor], None] | None = None,
) -> None:
    """The weight's step along `direction`.

    Args:
        weight, direction: of one shape; the weight changes.
        key: of stochastic rounding; None rounds to nearest.
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
    wide.addcdiv_(direction, norms(lengths, length or direction.shape[axis], group), value=-group["lr"])
    store(weight, wide, key)


def norms(lengths: torch.Tensor, num_values: int, group: dict[str, Any]) -> torch.Tensor:
    """The divisors for Euclidean lengths of `num_values` values each; any shape, in place."""
    if group["norm"] == "rms":
        lengths /= math.sqrt(num_values)
    return lengths.clamp_(min=SMALLEST_NORM)


def _update_rows(
    kernel: ctypes.CDLL, matrices: Sequence[Matrix], group: dict[str, Any], keys: Sequence[int] | None
) -> None:
    weights, gradients, momenta = map(list, zip(*matrices, strict=True))
    kernel.scale_rows(
        ctypes.c_int64(len(weights)),
        numbers_of_c(ctypes.c_int64, [weight.numel() // weight.shape[-1] for weight in weights]),
        numbers_of_c(ctypes.c_int64, [weight.shape[-1] for weight in weights]),
        addresses(weights),
        addresses(gradients),
        None if momenta[0] is None else addresses(momenta),
        _scalars(group),
        numbers_of_c(ctypes.c_uint32, keys),
        ctypes.c_int(torch.get_num_threads()),
    )


def _update_columns(
    kernel: ctypes.CDLL, matrices: Sequence[Matrix], group: dict[str, Any], keys: Sequence[int] | None
) -> None:
    for number, (weight, gradient, _) in enumerate(matrices):
        rows, columns = weight.shape[-2:]
        # At least 64, so that the sums of the pieces stay small beside the matrix.
        rows_a_piece = max(64, _PIECE_SIZE // columns)
        sums = torch.empty(-(-rows // rows_a_piece), columns, dtype=opmath(weight))
        slabs = zip(weight.view(-1, rows, columns), gradient.view(-1, rows, columns), strict=True)
        for slab, (one, its_gradient) in enumerate(slabs):  # an expert at a time
            kernel.scale_columns(
                ctypes.c_int64(rows),
                ctypes.c_int64(columns),
                *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (one, its_gradient, sums)),
                ctypes.c_int64(rows_a_piece),
                _scalars(group),
                numbers_of_c(ctypes.c_uint32, pick(keys, [number])),
                ctypes.c_int64(slab * rows * columns),
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
    return numbers_of_c(ctypes.c_double, [float(value) for value in values])
