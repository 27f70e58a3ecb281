"""AdamS's arithmetic (arXiv:2505.16363), once for each way to run it; `rl_posttrain.optim.adams` keeps the state.

Every way does the same to each element of a weight, its gradient and its momentum, which have one shape. It computes in
fp32 (fp64 for fp64 weights), whatever dtypes they have:

    nu = old * m^2 + new * g^2
    m  = keep * m + add * g                             before the first line where `new_momentum` is set
    w  = shrink * w - step * m / (sqrt(nu + inner_eps) + outer_eps)

With `keys`, one for each weight, bf16 weights are rounded stochastically (`rl_posttrain.optim.rounding`), every way
with the same bits.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch

from rl_posttrain.optim.elementwise import Keys, Triple, run_many, run_single
from rl_posttrain.optim.native import addresses, load_kernel, numbers_of_c
from rl_posttrain.optim.rounding import pick


class Scalars(NamedTuple):
    """The numbers of one step. `old`, `shrink` and `step` may be tensors of shape (), which a CUDA graph can replay."""

    old: float | torch.Tensor
    new: float
    keep: float
    add: float
    inner_eps: float
    outer_eps: float
    shrink: float | torch.Tensor
    step: float | torch.Tensor
    new_momentum: bool = False
    """Whether nu is of the new m; C++ and Triton do not know it."""


def update_single(triples: Sequence[Triple], scalars: Scalars, keys: Keys = None) -> None:
    """One tensor after the other, in pieces that stay in cache. It runs on every device."""
    run_single(triples, scalars, _update_piece, keys)


def update_foreach(triples: Sequence[Triple], scalars: Scalars, keys: Keys = None) -> None:
    """torch's multi-tensor operations over many tensors."""
    run_many(triples, scalars, _update_lists, keys)


def update_compiled(triples: Sequence[Triple], scalars: Scalars, keys: Keys = None) -> None:
    """A C++ kernel that reads and writes each element once, over all contiguous tensors in one call.

    Raises:
        EngineError: this machine cannot compile.
    """
    fitting, others = [], []
    for number, triple in enumerate(triples):
        (fitting if all(tensor.is_contiguous() for tensor in triple) else others).append(number)
    update_single(pick(triples, others), scalars, pick(keys, others))
    if not fitting:
        return
    weights, gradients, momenta = map(list, zip(*pick(triples, fitting), strict=True))
    kernel = load_kernel("adams", weight=weights[0].dtype, gradient=gradients[0].dtype, momentum=momenta[0].dtype)
    kernel.adams_step(
        ctypes.c_int64(len(fitting)),
        numbers_of_c(ctypes.c_int64, [weight.numel() for weight in weights]),
        *map(addresses, (weights, gradients, momenta)),
        numbers_of_c(ctypes.c_double, [float(value) for value in scalars]),
        numbers_of_c(ctypes.c_uint32, pick(keys, fitting)),
        ctypes.c_int(torch.get_num_threads()),
    )
    # autograd does not see what the kernel does. Counted, a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version([*weights, *momenta])


def _update_piece(weight: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor, scalars: Scalars) -> None:
    if scalars.new_momentum:
        momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.add)
    normalizer = (momentum * momentum).mul_(scalars.old).addcmul_(gradient, gradient, value=scalars.new)
    if scalars.inner_eps:
        normalizer.add_(scalars.inner_eps)
    normalizer.sqrt_().add_(scalars.outer_eps)
    if not scalars.new_momentum:
        momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.add)
    weight.mul_(scalars.shrink).sub_(torch.div(momentum, normalizer, out=normalizer).mul_(scalars.step))


def _update_lists(
    weights: list[torch.Tensor], gradients: list[torch.Tensor], momenta: list[torch.Tensor], scalars: Scalars
) -> None:
    if scalars.new_momentum:
        _average(momenta, gradients, scalars)
    normalizers = torch._foreach_mul(momenta, momenta)
    torch._foreach_mul_(normalizers, scalars.old)
    torch._foreach_addcmul_(normalizers, gradients, gradients, value=scalars.new)
    if scalars.inner_eps:
        torch._foreach_add_(normalizers, scalars.inner_eps)
    torch._foreach_sqrt_(normalizers)
    torch._foreach_add_(normalizers, scalars.outer_eps)
    if not scalars.new_momentum:
        _average(momenta, gradients, scalars)
    updates = torch._foreach_div(momenta, normalizers)
    torch._foreach_mul_(updates, scalars.step)
    torch._foreach_mul_(weights, scalars.shrink)
    torch._foreach_sub_(weights, updates)


def _average(momenta: list[torch.Tensor], gradients: list[torch.Tensor], scalars: Scalars) -> None:
    torch._foreach_mul_(momenta, scalars.keep)
    torch._foreach_add_(momenta, gradients, alpha=scalars.add)
