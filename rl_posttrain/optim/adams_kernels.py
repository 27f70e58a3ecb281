"""AdamS's arithmetic (arXiv:2505.16363), once for each way to run it; `rl_posttrain.optim.adams` keeps the state.

Every way does the same to each element of a weight, its gradient and its momentum, which have one shape. It computes in
fp32 (fp64 for fp64 weights), whatever dtypes they have:

    nu = old * m^2 + new * g^2
    m  = keep * m + add * g                             before the first line where `new_momentum` is set
    w  = shrink * w - step * m / (sqrt(nu + inner_eps) + outer_eps)
"""

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from rl_posttrain.optim.native import addresses, load_kernel

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Weight, gradient and momentum: one shape (any), one device, each with a dtype of its own."""

_PIECE_SIZE = 2**18
_FOREACH_SIZE = 2**26


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


def update_single(triples: Sequence[Triple], scalars: Scalars) -> None:
    """One tensor after the other, in pieces that stay in cache. It runs on every device."""
    for triple in triples:
        for piece in _in_pieces(*triple):
            _with_opmath([piece], scalars, _update_piece)


def update_foreach(triples: Sequence[Triple], scalars: Scalars) -> None:
    """torch's multi-tensor operations, over at most about 2**26 elements at a time, to bound the temporaries."""
    batch, size = [], 0
    for triple in triples:
        batch.append(triple)
        size += triple[0].numel()
        if size >= _FOREACH_SIZE:
            _with_opmath(batch, scalars, _update_lists)
            batch, size = [], 0
    if batch:
        _with_opmath(batch, scalars, _update_lists)


def update_compiled(triples: Sequence[Triple], scalars: Scalars) -> None:
    """A C++ kernel that reads and writes each element once, over all contiguous tensors in one call.

    Raises:
        EngineError: this machine cannot compile.
    """
    fitting, others = [], []
    for triple in triples:
        (fitting if all(tensor.is_contiguous() for tensor in triple) else others).append(triple)
    update_single(others, scalars)
    if not fitting:
        return
    weights, gradients, momenta = map(list, zip(*fitting, strict=True))
    kernel = load_kernel("adams", weight=weights[0].dtype, gradient=gradients[0].dtype, momentum=momenta[0].dtype)
    kernel.adams_step(
        ctypes.c_int64(len(fitting)),
        (ctypes.c_int64 * len(fitting))(*[weight.numel() for weight in weights]),
        *map(addresses, (weights, gradients, momenta)),
        (ctypes.c_double * len(scalars))(*map(float, scalars)),
        ctypes.c_int(torch.get_num_threads()),
    )
    # autograd does not see what the kernel does. Counted, a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version([*weights, *momenta])


def _opmath(weight: torch.Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def _with_opmath(triples: Sequence[Triple], scalars: Scalars, update: Callable) -> None:
    """Run `update` in the dtype of the arithmetic: on the tensors themselves where they have it, else on copies."""
    wide = [tuple(tensor.to(_opmath(triple[0])) for tensor in triple) for triple in triples]
    update(wide, scalars)
    for triple, copies in zip(triples, wide, strict=True):
        for kept, copy in ((triple[0], copies[0]), (triple[2], copies[2])):
            if copy is not kept:
                kept.copy_(copy)


def _update_piece(triples: Sequence[Triple], scalars: Scalars) -> None:
    ((weight, gradient, momentum),) = triples
    if scalars.new_momentum:
        momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.add)
    normalizer = (momentum * momentum).mul_(scalars.old).addcmul_(gradient, gradient, value=scalars.new)
    if scalars.inner_eps:
        normalizer.add_(scalars.inner_eps)
    normalizer.sqrt_().add_(scalars.outer_eps)
    if not scalars.new_momentum:
        momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.add)
    weight.mul_(scalars.shrink).sub_(torch.div(momentum, normalizer, out=normalizer).mul_(scalars.step))


def _update_lists(triples: Sequence[Triple], scalars: Scalars) -> None:
    weights, gradients, momenta = map(list, zip(*triples, strict=True))
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


def _in_pieces(*tensors: torch.Tensor) -> Iterable[Triple]:
    """Tensors of one shape as 1-D views of at most 2**18 elements, so that a temporary stays in cache.

    DeepSpeed hands over one flat tensor of all parameters; a temporary of that size costs more than the arithmetic.
    Tensors that are not contiguous stay whole.
    """
    if all(tensor.is_contiguous() for tensor in tensors):
        return zip(*(tensor.view(-1).split(_PIECE_SIZE) for tensor in tensors), strict=True)
    return [tensors]
