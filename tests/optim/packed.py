"""What the Triton kernels that handle many tensors in one launch must do, on a GPU or in Triton's interpreter.

`python packed.py cuda`, or `cpu` with TRITON_INTERPRET=1, runs all of it; it needs torch, Triton and this project's
`optim`. Each function fails with an AssertionError.
"""

import itertools
import sys

import torch

from rl_posttrain.optim.adams import AdamS
from rl_posttrain.optim.adams_kernels import update_single as adams_single
from rl_posttrain.optim.adams_step import scalars_of
from rl_posttrain.optim.adams_triton import update_triton as adams_step
from rl_posttrain.optim.rounding import tensor_key
from rl_posttrain.optim.scale_kernels import Matrix, update_single
from rl_posttrain.optim.scale_triton import update_triton as scale_step

# A chunk is 2048 values: less than one, exactly one or several, several and a rest.
ADAMS_SHAPES = [(), (0, 3), (1,), (5, 3), (67, 65), (2048,), (2, 4096), (2049,), (3, 4099)]
ADAMS_OPTIONS = [
    {},
    {"weight_decay": 0.3, "lr": 0.05},
    {"betas": (0.5, 0.25), "maximize": True},
    {"bias_correction": True, "eps_inside_sqrt": True, "eps": 1e-4, "betas": (0.8, 0.9)},
]
# Weight, gradient, momentum.
ADAMS_DTYPES = [
    (torch.float32, torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32, torch.float16),
    (torch.float64, torch.float64, torch.float64),
]
# What rounding may be off by, as a part of the value. Triton's interpreter cuts digits of bf16 off.
ROUNDING = {torch.float64: 2**-50, torch.float32: 2**-22, torch.float16: 2**-11, torch.bfloat16: 2**-8}
CUTTING = ROUNDING | {torch.float16: 2**-10, torch.bfloat16: 2**-7}
# Rows that fill a tile and not; some that are too long for one; columns of several slabs, parts and blocks.
SCALE_SHAPES = {
    1: [(7, 5), (1, 1), (33, 96), (300, 3), (64, 1024), (5, 2560), (3, 9000), (2, 16384), (3, 90, 33), (2, 70, 48)],
    -1: [(3, 4, 5), (2, 7, 48)],
    0: [(70, 5), (300, 48), (5, 17), (150, 300), (4500, 20)],
}
SCALE_DTYPES = [(torch.float32, 3e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3), (torch.float64, 1e-13)]


def adams_follows_the_rule(device: str) -> None:
    """All shapes in one call; among them a tensor that is not contiguous, and one at an address of 2, 4 or 8 mod 16."""
    for number, dtypes in enumerate(ADAMS_DTYPES):
        # The interpreter takes a hundred times as long.
        for options in ADAMS_OPTIONS if device == "cuda" else ADAMS_OPTIONS[number % 4 :: 4]:
            _adams_follows_the_rule(device, dtypes, options)


def _adams_follows_the_rule(device, dtypes, options):
    """Each step is compared with the rule in float64 from where the step began."""
    group = AdamS([torch.zeros(1)], **options).param_groups[0]
    torch.manual_seed(0)
    weights, momenta = (
        [torch.randn(shape, device=device).to(dtype) for shape in [*ADAMS_SHAPES, (40, 30), (4001,)]]
        for dtype in (dtypes[0], dtypes[2])
    )
    weights[-2] = weights[-2].t().contiguous().t()
    weights[-1] = torch.cat([weights[-1], weights[-1][:1]])[1:]
    rounding = CUTTING if device == "cpu" else ROUNDING
    for count in (1, 2, 3):
        gradients = [(torch.randn_like(weight) * 10.0 ** (2 * count - 4)).to(dtypes[1]) for weight in weights]
        triples = list(zip(weights, gradients, momenta, strict=True))
        expected = [_adams_step(*(tensor.double() for tensor in triple), count, group) for triple in triples]
        step = count if options.get("bias_correction") else None
        adams_step(triples, scalars_of(group, step, torch.device(device)))
        # The arithmetic itself; where two parts of the momentum cancel, it counts beside what is left of them.
        part = 2**-45 if dtypes[0] is torch.float64 else 2**-18
        for (weight, gradient, momentum), (right_weight, right_momentum) in zip(triples, expected, strict=True):
            what = (dtypes, options, tuple(weight.shape), count)
            summands = right_momentum.abs() + gradient.double().abs()
            for ours, right, allowed in ((weight, right_weight, group["lr"]), (momentum, right_momentum, summands)):
                off, limits = (ours.double() - right).abs(), torch.finfo(ours.dtype)
                bound = rounding[ours.dtype] * right.abs() + part * allowed + limits.tiny * limits.eps
                assert (off <= bound).all(), (what, off.max())


def _adams_step(weight, gradient, momentum, count, group):
    """arXiv:2505.16363 in float64: weight and momentum afterwards."""
    (beta1, beta2), lr = group["betas"], group["lr"]
    if group["maximize"]:
        gradient = -gradient
    correction = 1 - beta1**count if group["bias_correction"] else 1.0
    nu = beta2 * (momentum / correction) ** 2 + (1 - beta2) * gradient**2
    momentum = beta1 * momentum + (1 - beta1) * gradient
    divisor = (nu + group["eps"]).sqrt() if group["eps_inside_sqrt"] else nu.sqrt() + group["eps"]
    return (1 - lr * group["weight_decay"]) * weight - lr * momentum / correction / divisor, momentum


def adams_does_not_depend_on_the_parts(device: str) -> None:
    """To the bit: one tensor, views of it at any address in one call, and views in calls of their own."""
    size = 50_001
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        given = [torch.randn(size, device=device).to(dtype) for _ in range(3)]
        group = AdamS([torch.zeros(1)], lr=0.1, weight_decay=0.1).param_groups[0]
        scalars = scalars_of(group, None, torch.device(device))
        edges = [0, 3, 8, 8200, 16_392, 20_001, 50_001]
        results = []
        for how in ("whole", "views in one call", "a call for each view"):
            copies = [tensor.clone() for tensor in given]
            parts = [tuple(tensor[a:b] for tensor in copies) for a, b in itertools.pairwise(edges)]
            calls = {"whole": [[tuple(copies)]], "views in one call": [parts]}.get(how, [[part] for part in parts])
            for call in calls:
                adams_step(call, scalars)
            weight, _, momentum = copies
            assert not torch.equal(weight, given[0])
            results.append((weight, momentum))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)), dtype


def adams_rounds_by_chance_as_torchs_operations(device: str) -> None:
    """Weights that only decay are the same numbers in every way, so that the bits of rounding show."""
    group = AdamS([torch.zeros(1)], lr=0.1, weight_decay=0.03).param_groups[0]
    torch.manual_seed(0)
    weights = [torch.randn(shape, device=device).to(torch.bfloat16) for shape in [*ADAMS_SHAPES, (40, 30), (4001,)]]
    weights[-2] = weights[-2].t().contiguous().t()
    weights[-1] = torch.cat([weights[-1], weights[-1][:1]])[1:]
    scalars, keys = scalars_of(group, None, torch.device(device)), [tensor_key(7, n) for n in range(len(weights))]
    results = []
    for step in (adams_step, adams_single):
        copies = [weight.clone() for weight in weights]
        step([(copy, torch.zeros_like(copy), torch.zeros_like(copy)) for copy in copies], scalars, keys)
        results.append(copies)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    nearest = [weight.clone() for weight in weights]
    adams_step([(copy, torch.zeros_like(copy), torch.zeros_like(copy)) for copy in nearest], scalars)
    assert not torch.equal(results[0][-1], nearest[-1])


def scale_follows_torchs_operations(device: str) -> None:
    """In float64 on copies; with and without momentum, both norms; and the same again, to the bit."""
    for dtype, close in SCALE_DTYPES if device == "cuda" else SCALE_DTYPES[:2]:
        for axis, shapes in SCALE_SHAPES.items():
            for has_momentum in (False, True):
                for norm in ("rms", "l2") if device == "cuda" else ("l2" if has_momentum else "rms",):
                    _scale_follows_torchs_operations(device, dtype, close, axis, shapes, has_momentum, norm)


def _scale_follows_torchs_operations(device, dtype, close, axis, shapes, has_momentum, norm):
    torch.manual_seed(0)
    group = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9, "norm": norm, "axis": axis}
    matrices = []
    for shape in [*shapes, shapes[-1]]:
        weight, gradient, momentum = torch.randn(3, *shape, device=device).to(dtype)
        matrices.append(Matrix(weight, gradient, momentum if has_momentum else None))
    turned = matrices[-1].weight.transpose(-1, -2).contiguous().transpose(-1, -2)
    matrices[-1] = matrices[-1]._replace(weight=turned)
    twins = [Matrix(*(t if t is None else t.clone() for t in matrix)) for matrix in matrices]
    wide = [Matrix(*(t if t is None else t.to(torch.float64, copy=True) for t in matrix)) for matrix in matrices]
    scale_step(matrices, group)
    scale_step(twins, group)
    update_single(wide, group)
    for ours, twin, theirs in zip(matrices, twins, wide, strict=True):
        for place in ("weight", "momentum") if has_momentum else ("weight",):
            mine, expected = getattr(ours, place), getattr(theirs, place)
            what = (dtype, axis, norm, place, tuple(mine.shape))
            torch.testing.assert_close(mine.double(), expected, rtol=close, atol=close, msg=str(what))
            assert torch.equal(mine, getattr(twin, place)), what


def scale_rounds_by_chance_as_torchs_operations(device: str) -> None:
    """Weights that only decay, as above: short and long rows, columns of several slabs, parts and blocks."""
    for axis, shapes in SCALE_SHAPES.items():
        for has_momentum in (False, True):
            torch.manual_seed(0)
            group = {"lr": 0.1, "weight_decay": 0.03, "momentum": 0.9, "norm": "rms", "axis": axis}
            weights = [torch.randn(shape, device=device).to(torch.bfloat16) for shape in [*shapes, shapes[-1]]]
            weights[-1] = weights[-1].transpose(-1, -2).contiguous().transpose(-1, -2)
            keys, results = [tensor_key(7, number) for number in range(len(weights))], []
            for step in (scale_step, update_single):
                copies = [weight.clone() for weight in weights]
                zeros = [torch.zeros_like(weight) for weight in weights]
                momenta = [torch.zeros_like(weight) if has_momentum else None for weight in weights]
                step([Matrix(*given) for given in zip(copies, zeros, momenta, strict=True)], group, keys)
                results.append(copies)
            for ours, theirs, weight in zip(*results, weights, strict=True):
                what = (axis, has_momentum, tuple(weight.shape))
                nearest = (weight.float() * (1 - 0.1 * 0.03)).to(torch.bfloat16)
                assert torch.equal(ours, theirs), what
                assert not torch.equal(ours, nearest) or weight.numel() < 100, what


def a_nan_stays_in_its_row(device: str) -> None:
    """As with torch's operations, all of the row is NaN then, and no other."""
    for shape in ((4, 96), (3, 9000)):
        gradient = torch.ones(shape, device=device)
        gradient[1, 2] = torch.nan
        weight = torch.ones_like(gradient)
        group = {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.9, "norm": "rms", "axis": 1}
        scale_step([Matrix(weight, gradient, None)], group)
        assert weight.isnan().sum(1).tolist() == [0, shape[1], *[0] * (shape[0] - 2)]


CHECKS = (
    adams_follows_the_rule,
    adams_does_not_depend_on_the_parts,
    adams_rounds_by_chance_as_torchs_operations,
    scale_follows_torchs_operations,
    scale_rounds_by_chance_as_torchs_operations,
    a_nan_stays_in_its_row,
)


def steps_follow_one_another(device: str = "cuda") -> None:
    """Gradients at new addresses in each step, more than tables are kept, while the device is behind."""
    torch.manual_seed(0)
    start = [torch.randn(size, device=device) for size in (3, 70_000, 1_000_000)]
    gradients = [[torch.randn_like(weight) for weight in start] for _ in range(100)]
    results = []
    for options in ({"fused": True}, {"foreach": True}):
        parameters = [torch.nn.Parameter(weight.clone()) for weight in start]
        optimizer = AdamS(parameters, lr=1e-3, **options)
        for given in gradients:
            for parameter, gradient in zip(parameters, given, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        results.append([parameter.detach() for parameter in parameters])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def a_graph_holds_a_step(device: str = "cuda") -> None:
    """A CUDA graph of a step with a learning rate on the device, replayed, is as good as steps."""
    torch.manual_seed(0)
    start = [torch.randn(shape, device=device) for shape in ((), (5, 3), (20_011,))]
    results = []
    for captured in (False, True):
        parameters = [torch.nn.Parameter(weight.clone()) for weight in start]
        for parameter in parameters:
            parameter.grad = torch.linspace(-1, 1, parameter.numel(), device=device).view_as(parameter)
        rate = torch.tensor(0.1, device=device)
        optimizer = AdamS(parameters, lr=rate, capturable=True, fused=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            optimizer.step()
        torch.cuda.current_stream().wait_stream(side)
        step = optimizer.step
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
            step = graph.replay
        for count in range(5):
            rate.fill_(0.1 * 0.5**count)
            step()
        results.append([parameter.detach() for parameter in parameters])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(results[0][2], start[2])


GPU_CHECKS = (steps_follow_one_another, a_graph_holds_a_step)


if __name__ == "__main__":
    place = sys.argv[1]
    for check in (*CHECKS, *(GPU_CHECKS if place == "cuda" else ())):
        check(place)
        print(f"agreed: {check.__name__}", flush=True)
