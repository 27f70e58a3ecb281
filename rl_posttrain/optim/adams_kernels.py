"""AdamS's arithmetic, once for each way to run it; `rl_posttrain.optim.adams` decides which and keeps the state.

Every way does the same to corresponding elements of weight, gradient and momentum, in fp32 (fp64 for fp64 weights)
whatever dtypes they are kept in:

    nu = old * m^2 + new * g^2
    m  = keep * m + add * g
    w  = shrink * w - step * m / (sqrt(nu + inner_eps) + outer_eps)
"""

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from rl_posttrain.errors import EngineError

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Weight, gradient and momentum, of one shape and on one device."""

_PIECE_SIZE = 2**18
_FOREACH_SIZE = 2**26
_TENSORS_A_CALL = 8
"""A call of a compiled function takes 20 microseconds or more whatever it does; compiling takes longer for more."""


class Scalars(NamedTuple):
    """The numbers of one step; `old`, `shrink` and `step` may be 0-d tensors, so that a CUDA graph can replay them."""

    old: float | torch.Tensor
    new: float
    keep: float
    add: float
    inner_eps: float
    outer_eps: float
    shrink: float | torch.Tensor
    step: float | torch.Tensor


def update_single(triples: Sequence[Triple], scalars: Scalars) -> None:
    """One tensor after the other, in pieces that stay in cache: right everywhere, and what the others are held to."""
    for triple in triples:
        for piece in _in_pieces(*triple):
            _with_opmath([piece], scalars, _update_piece)


def update_foreach(triples: Sequence[Triple], scalars: Scalars) -> None:
    """torch's multi-tensor operations, over as many tensors at a time as keep the temporaries bounded."""
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
    """A compiled kernel that reads and writes each element once, over a few tensors a call.

    Raises:
        EngineError: this machine cannot compile.
    """
    fitting, others = [], []
    for triple in triples:
        # Of 0 and 1 elements the compiler would make kernels of their own.
        fits = triple[0].numel() > 1 and all(tensor.is_contiguous() for tensor in triple)
        (fitting if fits else others).append(triple)
    update_single(others, scalars)
    if not fitting:
        return
    dtypes = tuple(tensor.dtype for tensor in fitting[0])
    kernel, fillers = compiled_kernel(dtypes)
    # Run-time values, so that a schedule, or other settings, are no reason to compile again.
    numbers = torch.tensor([float(value) for value in scalars], dtype=_opmath(fitting[0][0]))
    for start in range(0, len(fitting), _TENSORS_A_CALL):
        batch = fitting[start : start + _TENSORS_A_CALL]
        flat = [tuple(map(_flat, triple)) for triple in batch] + fillers[len(batch) :]
        kernel(*map(list, zip(*flat, strict=True)), numbers)
    # What `.data` hides, so that a backward pass over changed weights is still an error.
    torch.autograd.graph.increment_version(triple[0] for triple in fitting)


@functools.cache
def compiled_kernel(dtypes: tuple[torch.dtype, torch.dtype, torch.dtype]) -> tuple[Callable, list[Triple]]:
    """The kernel for weights, gradients and momenta of these dtypes, compiled and run once; and what fills a call.

    Raises:
        EngineError: there is no C++ compiler, or it fails.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise EngineError(f"implementation=compiled: no C++ compiler {compiler!r}; install it, or set another in CXX")
    kernel = torch.compile(_kernel_of(dtypes), dynamic=True, fullgraph=True)

    def blank(size: int) -> Triple:
        return tuple(torch.zeros(size, dtype=dtype) for dtype in dtypes)

    # Whether a loop runs on several threads is decided from the first sizes that it is compiled for: large ones. They
    # differ, or the compiler would take it that tensors of one call are always of one size.
    first = [blank(2**17 + number) for number in range(_TENSORS_A_CALL)]
    numbers = torch.tensor([0.5] * len(Scalars._fields), dtype=_opmath(first[0][0]))
    try:
        kernel(*map(list, zip(*first, strict=True)), numbers)
    except Exception as error:  # compilers and their headers are missing or broken in many ways
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"implementation=compiled: torch.compile fails here ({type(error).__name__}: {reason}); see "
            "`rl-posttrain doctor`, or set implementation=single"
        ) from error
    return kernel, [blank(2) for _ in range(_TENSORS_A_CALL)]


def can_compile(dtypes: tuple[torch.dtype, torch.dtype, torch.dtype]) -> bool:
    """Whether this machine compiles the kernel; it does so to find out, once."""
    try:
        compiled_kernel(dtypes)
    except EngineError:
        return False
    return True


def _kernel_of(dtypes: tuple[torch.dtype, ...]) -> Callable:
    """A function of its own for each set of dtypes: torch keeps few compiled forms of one function."""
    weight_dtype, _, momentum_dtype = dtypes
    opmath = torch.float64 if weight_dtype is torch.float64 else torch.float32

    def update(weights, gradients, momenta, scalars):
        old, new, keep, add, inner_eps, outer_eps, shrink, step = scalars.unbind()
        for weight, gradient, momentum in zip(weights, gradients, momenta, strict=True):
            w, g, m = weight.to(opmath), gradient.to(opmath), momentum.to(opmath)
            nu = old * (m * m) + new * (g * g)
            m = keep * m + add * g
            momentum.copy_(m.to(momentum_dtype))
            weight.copy_((shrink * w - step * (m / ((nu + inner_eps).sqrt() + outer_eps))).to(weight_dtype))

    # Compiled forms are kept by code object, which functions of one definition would share.
    update.__code__ = update.__code__.replace(co_name="adams_" + "_".join(str(dtype)[6:] for dtype in dtypes))
    return update


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    # Not a view to autograd: a view brings its base along, and each number of dimensions would be compiled anew.
    return tensor.view(-1).data


def _opmath(weight: torch.Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def _with_opmath(triples: Sequence[Triple], scalars: Scalars, update: Callable) -> None:
    """Run `update` on the triples where they are kept in the dtype of the arithmetic, else on copies in it."""
    wide = [tuple(tensor.to(_opmath(triple[0])) for tensor in triple) for triple in triples]
    update(wide, scalars)
    for triple, copies in zip(triples, wide, strict=True):
        for kept, copy in ((triple[0], copies[0]), (triple[2], copies[2])):
            if copy is not kept:
                kept.copy_(copy)


def _update_piece(triples: Sequence[Triple], scalars: Scalars) -> None:
    ((weight, gradient, momentum),) = triples
    normalizer = (momentum * momentum).mul_(scalars.old).addcmul_(gradient, gradient, value=scalars.new)
    if scalars.inner_eps:
        normalizer.add_(scalars.inner_eps)
    normalizer.sqrt_().add_(scalars.outer_eps)
    momentum.mul_(scalars.keep).add_(gradient, alpha=scalars.add)
    weight.mul_(scalars.shrink).sub_(torch.div(momentum, normalizer, out=normalizer).mul_(scalars.step))


def _update_lists(triples: Sequence[Triple], scalars: Scalars) -> None:
    weights, gradients, momenta = map(list, zip(*triples, strict=True))
    normalizers = torch._foreach_mul(momenta, momenta)
    torch._foreach_mul_(normalizers, scalars.old)
    torch._foreach_addcmul_(normalizers, gradients, gradients, value=scalars.new)
    if scalars.inner_eps:
        torch._foreach_add_(normalizers, scalars.inner_eps)
    torch._foreach_sqrt_(normalizers)
    torch._foreach_add_(normalizers, scalars.outer_eps)
    torch._foreach_mul_(momenta, scalars.keep)
    torch._foreach_add_(momenta, gradients, alpha=scalars.add)
    updates = torch._foreach_div(momenta, normalizers)
    torch._foreach_mul_(updates, scalars.step)
    torch._foreach_mul_(weights, scalars.shrink)
    torch._foreach_sub_(weights, updates)


def _in_pieces(*tensors: torch.Tensor) -> Iterable[Triple]:
    """Views of element-wise corresponding tensors, small enough that a temporary stays in cache.

    DeepSpeed hands over one flat tensor of all parameters, and a temporary of that size costs more than the arithmetic.
    """
    if all(tensor.is_contiguous() for tensor in tensors):
        return zip(*(tensor.view(-1).split(_PIECE_SIZE) for tensor in tensors), strict=True)
    return [tensors]
