"""Ways to run an element-wise step on many tensors with torch's operations. The arithmetic of a step is its caller's.

A step is of tuples of a weight, its gradient and its momentum, which have one shape (any) and one device, and each a
dtype of its own; the momentum may be None. It computes in fp32 (fp64 for fp64 weights), whatever dtypes they have.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.batches import Batches
from rl_posttrain.optim.checks import check_gradient, local_parts
from rl_posttrain.optim.rounding import pick, store

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Weight, gradient and momentum."""
Keys = Sequence[int] | None
"""For stochastic rounding (`rl_posttrain.optim.rounding`); None rounds to nearest."""

_PIECE_SIZE = 2**18
_FOREACH_SIZE = 2**26


def step_groups(
    optimizer: Optimizer,
    scalars: Callable[[dict[str, Any], float | torch.Tensor], Any],
    single: Callable[..., None],
    many: Callable[..., None],
    momentum: Callable[[dict[str, Any], torch.Tensor], torch.Tensor | None] = lambda group, parameter: None,
) -> None:
    """One step of every parameter that has a gradient, in the way that each group's `foreach` says.

    None for `foreach` is many tensors at once on an accelerator, and one after the other on a CPU.

    Args:
        scalars: of a group and its rate: the numbers of its step.
        single: the `update` of `run_single`.
        many: the `update` of `run_many`.
        momentum: of a group and a parameter: its buffer, of the parameter's shape, or None.
    """

    def begin(group: dict[str, Any], triple: Triple) -> tuple[Callable, Any]:
        device = triple[0].device
        at_once = device.type != "cpu" if group["foreach"] is None else group["foreach"]
        run, update = (run_many, many) if at_once else (run_single, single)
        return functools.partial(run, update=update), scalars(group, rate(group, device))

    for group in optimizer.param_groups:
        batches = Batches(lambda triple, _, group=group: begin(group, triple))
        for parameter in group["params"]:
            if parameter.grad is not None:
                check_gradient(parameter.grad, type(optimizer).__name__)
                batches.add(local_parts(parameter, parameter.grad, momentum(group, parameter)))
        batches.finish()


def rate(group: dict[str, Any], device: torch.device) -> float | torch.Tensor:
    """The group's `lr` as a number, or as a tensor on `device`.

    Reading a number of the CPU costs nothing; one of a device stays there.
    """
    lr = group["lr"]
    if isinstance(lr, torch.Tensor):
        return lr.item() if lr.device.type == "cpu" else lr.to(device)
    return lr


def run_single(triples: Sequence[Triple], scalars: Any, update: Callable[..., None], keys: Keys = None) -> None:
    """One tensor after the other, in pieces that stay in cache. It runs on every device.

    Args:
        scalars: the numbers of the step.
        update: ``update(weight, gradient, momentum, scalars)`` changes weight and momentum in place.
        keys: for stochastic rounding of bf16 weights, one of each triple.
    """
    for number, triple in enumerate(triples):
        start = 0
        for piece in _in_pieces(*triple):
            _with_opmath([piece], lambda wide: update(*wide[0], scalars), pick(keys, [number]), start)
            start += piece[0].numel()


def run_many(triples: Sequence[Triple], scalars: Any, update: Callable[..., None], keys: Keys = None) -> None:
    """Many tensors at once, over at most about 2**26 elements at a time, to bound the temporaries.

    Args:
        scalars: the numbers of the step.
        update: ``update(weights, gradients, momenta, scalars)`` changes the lists of weights and momenta in place, by
            torch's multi-tensor operations. Without momenta it gets None for them.
        keys: for stochastic rounding of bf16 weights, one of each triple.
    """

    def updated(wide: list[Triple]) -> None:
        weights, gradients, momenta = map(list, zip(*wide, strict=True))
        update(weights, gradients, None if momenta[0] is None else momenta, scalars)

    batch, size = [], 0
    for number, triple in enumerate(triples):
        batch.append(number)
        size += triple[0].numel()
        if size >= _FOREACH_SIZE or number == len(triples) - 1:
            _with_opmath(pick(triples, batch), updated, pick(keys, batch))
            batch, size = [], 0


def _with_opmath(triples: Sequence[Triple], update: Callable[[list[Triple]], None], keys: Keys, start: int = 0) -> None:
    """Run `update` in the dtype of the arithmetic: on the tensors themselves where they have it, else on copies.

    Args:
        keys: one of each triple, or None.
        start: where the one triple begins in its tensor, as a number of elements.
    """
    wide = [tuple(None if tensor is None else tensor.to(_opmath(triple[0])) for tensor in triple) for triple in triples]
    update(wide)
    for number, ((weight, _, momentum), (new_weight, _, new_momentum)) in enumerate(zip(triples, wide, strict=True)):
        if new_weight is not weight:
            store(weight, new_weight, None if keys is None else keys[number], start)
        if new_momentum is not momentum:
            momentum.copy_(new_momentum)


def _opmath(weight: torch.Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def _in_pieces(*tensors: torch.Tensor | None) -> Iterable[Triple]:
    """Tensors of one shape as 1-D views of at most 2**18 elements, so that a temporary stays in cache.

    DeepSpeed hands over one flat tensor of all parameters; a temporary of that size costs more than the arithmetic.
    Tensors that are not contiguous stay whole.
    """
    if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    num_pieces = -(-tensors[0].numel() // _PIECE_SIZE)
    parts = ([None] * num_pieces if tensor is None else tensor.view(-1).split(_PIECE_SIZE) for tensor in tensors)
    return zip(*parts, strict=True)
