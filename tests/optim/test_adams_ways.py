"""Every way to run a step of AdamS (`foreach`, `fused`), device, dtype and shape against the same rule in float64."""

import copy
import functools
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch
from adams_reference import DEFAULTS, random_case, reference, train
from conftest import clean_environment

from rl_posttrain.errors import EngineError
from rl_posttrain.optim import AdamS, adams_kernels, adams_step, elementwise, native

CASES = [
    {},
    {"weight_decay": 0.3, "lr": 0.05},
    {"weight_decay": 0.3, "lr": 0.0},
    {"betas": (0.9, 0.999), "lr": 0.1},
    {"betas": (0.0, 0.5)},
    {"betas": (0.5, 0.0), "eps": 0.1},
    {"betas": (0.5, 0.25), "maximize": True},
    {"bias_correction": True, "weight_decay": 0.1},
    {"bias_correction": True, "maximize": True, "capturable": True},
    {"eps_inside_sqrt": True, "eps": 1e-2},
    {"eps_inside_sqrt": True, "eps": 1e-4, "bias_correction": True, "betas": (0.8, 0.9)},
]
SHAPES = {"scalar": (), "empty": (0, 3), "one": (1,), "odd": (5, 3), "3-D": (2, 3, 4), "large": (67, 65)}
WAYS = {"auto": {}, "fused": {"fused": True}, "foreach": {"foreach": True}, "single": {"foreach": False}}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# Weight dtype, state dtype, and the parts that a rounding of the weight and of the momentum may be off by.
DTYPES = {
    "float64": (torch.float64, None, 1e-14, 1e-14),
    "float32": (torch.float32, None, 2**-22, 2**-20),
    "bf16 with fp32 state": (torch.bfloat16, "float32", 2**-8, 2**-20),
    "bf16": (torch.bfloat16, None, 2**-8, 2**-8),
    "fp32 with bf16 state": (torch.float32, torch.bfloat16, 2**-22, 2**-8),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def needs(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@functools.cache
def expected_weights(dtype, place, shape):
    weight, gradients = random_case(shape, dtype)
    return reference(weight, gradients, **DEFAULTS | CASES[place])


@pytest.mark.parametrize("device", DEVICES)
@EVERY_WAY
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_every_way_follows_the_reference(dtypes, way, device):
    needs(device)
    dtype, state_dtype, weight_part, state_part = dtypes
    for place, options in enumerate(CASES):
        for shape in SHAPES.values():
            weight, gradients = random_case(shape, dtype)
            expected = expected_weights(dtype, place, shape)
            parameter = torch.nn.Parameter(weight.to(device))
            given = [gradient.to(device) for gradient in gradients]
            optimizer, after = train(parameter, given, **options, **way, state_dtype=state_dtype)
            allowed = torch.zeros_like(expected[0])
            for ours, theirs in zip(after, expected, strict=True):
                # Each step rounds the weight once, and is itself at most 5 lr with a few roundings of the momentum.
                allowed += weight_part * theirs.abs() + 30 * state_part * options.get("lr", 1e-3)
                assert ((ours.double().cpu() - theirs).abs() <= allowed).all(), (options, shape)
            wanted = {None: dtype, "float32": torch.float32, torch.bfloat16: torch.bfloat16}[state_dtype]
            assert optimizer.state[parameter]["exp_avg"].dtype is wanted


@pytest.fixture
def counted_compiler(tmp_path, monkeypatch):
    """An empty cache, and a compiler that writes a line each time it is started: the file of these lines."""
    compiler, calls = tmp_path / "compiler", tmp_path / "calls"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("RL_POSTTRAIN_CACHE", str(tmp_path / "cache"))
    native.load_kernel.cache_clear()
    yield calls
    native.load_kernel.cache_clear()


def test_sizes_schedules_and_settings_compile_once_a_machine(counted_compiler):
    settings = [
        {},
        {"lr": torch.tensor(1e-3)},
        {"lr": 0.1, "weight_decay": 0.1},
        {"betas": (0.5, 0.6), "eps_inside_sqrt": True},
    ]
    for size in (1, 4097, (80, 90), (3, 40, 50), 2**17 + 1):
        for options in settings:
            parameter = torch.nn.Parameter(torch.ones(size))
            parameter.grad = torch.ones(size)
            optimizer = AdamS([parameter], fused=True, **copy.deepcopy(options))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
            before = optimizer.param_groups[0]["params"][0].detach().clone()
            for _ in range(3):
                optimizer.step()
                schedule.step()
            assert not before.eq(optimizer.param_groups[0]["params"][0]).any()
        native.load_kernel.cache_clear()  # as in another process
    assert len(counted_compiler.read_text().splitlines()) == 1


def test_a_compiler_that_fails_leaves_no_library(counted_compiler, tmp_path):
    (tmp_path / "compiler").write_text("#!/bin/sh\necho 'omp.h: no such file' >&2\nexit 1\n")
    parameter = torch.nn.Parameter(torch.zeros(4))
    with pytest.raises(EngineError, match=r"fused=True: .*compiler fails here \(omp.h: no such file\)"):
        train(parameter, [torch.ones(4)], fused=True)
    assert not list((tmp_path / "cache" / "kernels").iterdir())


@pytest.mark.parametrize("bits", [0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 0xFF800000, 0x7FC00001, 0x7FFFFFFF])
def test_the_compiled_kernel_rounds_to_bf16_as_torch_does(bits):
    """Ties to either side, just below a tie, overflow to infinity, infinity, and NaNs that rounding would overflow."""
    value = torch.tensor([bits], dtype=torch.int64).to(torch.int32).view(torch.float32)
    momentum = torch.zeros(1, dtype=torch.bfloat16)
    weight, gradient = torch.ones(1), value.clone()
    keeps = adams_kernels.Scalars(old=0, new=0, keep=0, add=1, inner_eps=1, outer_eps=0, shrink=1, step=0)
    adams_kernels.update_compiled([(weight, gradient, momentum)], keeps)
    torch.testing.assert_close(momentum, value.to(torch.bfloat16), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@EVERY_WAY
def test_a_backward_pass_over_changed_weights_is_still_an_error(way, device):
    needs(device)
    parameter = torch.nn.Parameter(torch.ones(5000, device=device))
    loss = parameter.square().sum()
    train(parameter, [torch.ones(5000, device=device)], **way)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def chosen(num_elements, **options):
    group = AdamS([torch.nn.Parameter(torch.zeros(2))], **options).param_groups[0]
    return adams_step.choose_way(group, (torch.zeros(2),) * 3, num_elements)


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"fused": True}, adams_kernels.update_compiled),
        ({"fused": True, "foreach": False}, adams_kernels.update_compiled),
        ({"foreach": True}, adams_kernels.update_foreach),
        ({"foreach": True, "fused": False}, adams_kernels.update_foreach),
        ({"foreach": False}, adams_kernels.update_single),
        ({"fused": False}, adams_kernels.update_single),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_foreach_and_fused_mean_what_they_mean_in_torch(options, function):
    assert chosen(2, **options) is function
    assert chosen(2**30, **options) is function


def test_by_default_only_what_is_large_is_compiled_and_where_it_can_be(monkeypatch):
    assert chosen(adams_step.COMPILED_FROM - 1) is adams_kernels.update_single
    assert chosen(adams_step.COMPILED_FROM) is adams_kernels.update_compiled
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.can_compile.cache_clear()
    native.load_kernel.cache_clear()
    assert chosen(adams_step.COMPILED_FROM) is adams_kernels.update_single
    parameter = torch.nn.Parameter(torch.zeros(2**13))
    with pytest.raises(EngineError, match="fused=True: no C\\+\\+ compiler 'no-such-compiler'"):
        train(parameter, [torch.ones(2**13)], fused=True)
    native.can_compile.cache_clear()


INTERPRETED = """
import sys
import torch
from adams_reference import DEFAULTS, random_case, reference
from test_adams_ways import CASES
from rl_posttrain.optim.adams import AdamS
from rl_posttrain.optim.adams_step import scalars_of
from rl_posttrain.optim.adams_triton import update_triton

for options in CASES:
    for shape in ((), (0, 3), (5, 3), (67, 65)):
        weight, gradients = random_case(shape, torch.float32)
        group = AdamS([torch.zeros(1)], **options).param_groups[0]
        momentum = torch.zeros_like(weight)
        expected = reference(weight, gradients, **DEFAULTS | options)
        for count, (gradient, theirs) in enumerate(zip(gradients, expected), start=1):
            step = torch.tensor(float(count)) if options.get("capturable") else count
            step = step if options.get("bias_correction") else None
            update_triton([(weight, gradient, momentum)], scalars_of(group, step, weight.device))
            torch.testing.assert_close(weight.double(), theirs, rtol=3e-6, atol=3e-6)
print("agreed")
"""


def test_the_triton_kernel_in_tritons_interpreter():
    """Where there is no GPU: the same kernel, its instructions carried out one by one on the CPU."""
    pytest.importorskip("triton")
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        capture_output=True,
        text=True,
        env=clean_environment(TRITON_INTERPRET="1", PYTHONPATH=path),
    )
    assert done.stdout.endswith("agreed\n"), done.stderr


@EVERY_WAY
def test_tensors_that_are_not_contiguous(way):
    weight, gradients = random_case((80, 90), torch.float64)
    expected = reference(weight, gradients, **DEFAULTS)[-1]
    storage = torch.zeros(80, 180, dtype=torch.float64)
    for parameter in (weight.t().contiguous().t(), storage[:, ::2].copy_(weight)):
        assert not parameter.is_contiguous()
        _, after = train(torch.nn.Parameter(parameter), gradients, **way)
        torch.testing.assert_close(after[-1], expected, rtol=1e-12, atol=1e-12)
    assert storage[:, 1::2].eq(0).all()


@pytest.mark.parametrize("size", [*(elementwise._PIECE_SIZE + more for more in (-1, 0, 1)), 2**19 + 3])
def test_pieces_do_not_show(size):
    """The same as in small parts of their own, at any size of the flat tensor that DeepSpeed hands over."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, generator=generator)
    gradients = [torch.randn(size, generator=generator) for _ in range(2)]
    options = {"lr": 0.01, "weight_decay": 0.1, "foreach": False}
    _, whole = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parts = []
    for place in torch.arange(size).tensor_split(7):
        _, after = train(torch.nn.Parameter(weight[place]), [gradient[place] for gradient in gradients], **options)
        parts.append(after[-1])
    torch.testing.assert_close(whole[-1], torch.cat(parts), rtol=0, atol=1e-7)
    assert not torch.equal(whole[-1], weight)


@EVERY_WAY
def test_a_step_is_the_same_for_a_whole_and_for_its_shards(way):
    """To the bit: what ZeRO and FSDP hand over are parts at any offset."""
    weight, gradients = random_case((20_011,), torch.float32)
    options = {"lr": 0.1, "weight_decay": 0.1, **way}
    _, whole = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parts = []
    for start, end in ((0, 7777), (7777, 20_011)):
        _, after = train(torch.nn.Parameter(weight[start:end].clone()), [g[start:end] for g in gradients], **options)
        parts.append(after[-1])
    assert torch.equal(whole[-1], torch.cat(parts))


@EVERY_WAY
def test_missing_gradients_and_gradients_set_to_none(way):
    used, unused = (torch.nn.Parameter(torch.ones(5000)) for _ in range(2))
    optimizer = AdamS([used, unused], lr=0.1, weight_decay=0.5, **way)
    used.grad = torch.ones(5000)
    optimizer.step()
    moved = used.detach().clone()
    assert not moved.eq(1).any()
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert torch.equal(used, moved)
    assert unused.eq(1).all()
    assert unused not in optimizer.state


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize(
    "options",
    [
        {"state_dtype": "float32"},
        {"state_dtype": torch.bfloat16},
        {"bias_correction": True},
        {"bias_correction": True, "fused": True},
        {"lr": torch.tensor(0.1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_goes_on_exactly_from_any_copy(dtype, options, how):
    weight, gradients = random_case((33,), dtype)
    _, straight = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer, _ = train(parameter, gradients[:3], **options)
    if how == "torch.save":
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        resumed = AdamS([parameter], lr=1.0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
    else:
        resumed = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        parameter = resumed.param_groups[0]["params"][0]
    before = optimizer.state_dict()["state"][0]["exp_avg"]
    after = resumed.state_dict()["state"][0]["exp_avg"]
    assert after.dtype is before.dtype
    assert torch.equal(after, before)
    assert after is not before
    for gradient in gradients[3:]:
        parameter.grad = gradient.clone()
        resumed.step()
    assert torch.equal(parameter.detach(), straight[-1])


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({}, {"foreach": None, "fused": None}),
        ({"foreach": None, "implementation": "auto"}, {"foreach": None, "fused": None}),
        ({"foreach": False, "implementation": "auto"}, {"foreach": False, "fused": None}),
        ({"foreach": None, "implementation": "compiled"}, {"foreach": None, "fused": True}),
        ({"foreach": None, "implementation": "triton"}, {"foreach": None, "fused": True}),
        ({"foreach": None, "implementation": "foreach"}, {"foreach": True, "fused": None}),
        ({"foreach": None, "implementation": "single"}, {"foreach": None, "fused": False}),
    ],
    ids=str,
)
def test_states_of_earlier_versions_load(old, now):
    weight, gradients = random_case((33,), torch.float32)
    options = {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "foreach": False}
    _, straight = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer, _ = train(parameter, gradients[:3], **options)
    state = optimizer.state_dict()
    state["param_groups"] = [{name: state["param_groups"][0][name] for name in (*DEFAULTS, "params")} | old]
    resumed = AdamS([parameter])
    resumed.load_state_dict(state)
    assert resumed.param_groups[0].items() >= now.items()
    assert "implementation" not in resumed.param_groups[0]
    for gradient in gradients[3:]:
        parameter.grad = gradient.clone()
        resumed.step()
    torch.testing.assert_close(parameter.detach(), straight[-1])
