"""AdamS's arithmetic (arXiv:2505.16363), once for each way to run it; `rl_posttrain.optim.adams` keeps the state.

Every way does the same to each element of a weight, its gradient and its momentum, which have one shape. It computes in
fp32 (fp64 for fp64 weights), whatever dtypes they have:

    nu = old * m^2 + new * g^2
    m  = keep * m + add * g                             before the first line where `new_momentum` is set
    w  = shrink * w - step * m / (sqrt(nu + inner_eps) + outer_eps)

With `keys`, bf16 weights are rounded stochastically (`rl_posttrain.optim.rounding`), every way with the same bits.
"""

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from rl_posttrain.optim.native import addresses, load_kernel
from rl_posttrain.optim.rounding import store

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
    keys: Sequence[int] | None = None
    """For stochastic rounding, one of each triple; None rounds to nearest."""


def update_single(triples: Sequence[Triple], scalars: Scalars) -> None:
    """One tensor after the other, in pieces that stay in cache. It runs on every device."""
    for number, triple in enumerate(triples):
        start = 0
        for piece in _in_pieces(*triple):
            _with_opmath([piece], scalars, _update_piece, keys_of(scalars, [number]), start)
            start += piece[0].numel()


def update_foreach(triples: Sequence[Triple], scalars: Scalars) -> None:
    """torch's multi-tensor operations, over at most about 2**26 elements at a time, to bound the temporaries."""
    batch, size = [], 0
    for number, triple in enumerate(triples):
        batch.append(number)
        size += triple[0].numel()
        if size >= _FOREACH_SIZE or number == len(triples) - 1:
            chosen = [triples[place] for place in batch]
            _with_opmath(chosen, scalars, _update_lists, keys_of(scalars, batch))
            batch, size = [], 0


def update_compiled(triples: Sequence[Triple], scalars: Scalars) -> None:
    """A C++ kernel that reads and writes each element once, over all contiguous tensors in one call.

    Raises:
        EngineError: this machine cannot compile.
    """
    fitting, others = [], []
    for number, triple in enumerate(triples):
        (fitting if all(tensor.is_contiguous() for tensor in triple) else others).append(number)
    update_single([triples[number] for number in others], scalars._replace(keys=keys_of(scalars, others)))
    if not fitting:
        return
    weights, gradients, momenta = map(list, zip(*(triples[number] for number in fitting), strict=True))
    keys = keys_of(scalars, fitting)
    numbers = scalars[:-1]
    kernel = load_kernel("adams", weight=weights[0].dtype, gradient=gradients[0].dtype, momentum=momenta[0].dtype)
    kernel.adams_step(
        ctypes.c_int64(len(fitting)),
        (ctypes.c_int64 * len(fitting))(*[weight.numel() for weight in weights]),
        *map(addresses, (weights, gradients, momenta)),
        (ctypes.c_double * len(numbers))(*map(float, numbers)),
        None if keys is None else (ctypes.c_uint32 * len(keys))(*keys),
        ctypes.c_int(torch.get_num_threads()),
    )
    # autograd does not see what the kernel does. Counted, a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version([*weights, *momenta])


def keys_of(scalars: Scalars, numbers: Iterable[int]) -> list[int] | None:
    """The keys of the triples with these numbers."""
    return None if scalars.keys is None else [scalars.keys[number] for number in numbers]


def _opmath(weight: torch.Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def _with_opmath(
    triples: Sequence[Triple], scalars: Scalars, update: Callable, keys: list[int] | None, start: int = 0
) -> None:
    """Run `update` in the dtype of the arithmetic: on the tensors themselves where they have it, else on copies.

    Args:
        keys: one of each triple, or None.
        start: where the one triple begins in its tensor, as a number of elements.
    """
    wide = [tuple(tensor.to(_opmath(triple[0])) for tensor in triple) for triple in triples]
    update(wide, scalars)
    for number, ((weight, _, momentum), (new_weight, _, new_momentum)) in enumerate(zip(triples, wide, strict=True)):
        if new_weight is not weight:
            store(weight, new_weight, None if keys is None else keys[number], start)
        if new_momentum is not momentum:
            momentum.copy_(new_momentum)


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
