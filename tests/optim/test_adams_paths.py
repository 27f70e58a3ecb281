"""Every way to run a step of AdamS against the same rule in float64, and what each must leave alone."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from adams_reference import DEFAULTS, random_case, reference, train
from conftest import clean_environment

from rl_posttrain.errors import EngineError
from rl_posttrain.optim import AdamS, adams, adams_kernels, native

CASES = [
    {},
    {"weight_decay": 0.3, "lr": 0.05},
    {"betas": (0.5, 0.25), "maximize": True},
    {"bias_correction": True, "weight_decay": 0.1},
    {"bias_correction": True, "maximize": True, "capturable": True},
    {"eps_inside_sqrt": True, "eps": 1e-2},
    {"eps_inside_sqrt": True, "eps": 1e-4, "bias_correction": True, "betas": (0.8, 0.9)},
]
SHAPES = {"scalar": (), "empty": (0, 3), "one": (1,), "odd": (5, 3), "large": (67, 65)}
IMPLEMENTATIONS = ["auto", "compiled", "foreach", "single"]
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("implementation", [*IMPLEMENTATIONS, "triton"])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_every_implementation_follows_the_reference(dtypes, implementation, device):
    needs(device)
    if implementation == {"cpu": "triton", "cuda": "compiled"}[device]:
        pytest.skip("for the other device")
    dtype, state_dtype, weight_part, state_part = dtypes
    for options in CASES:
        for shape in SHAPES.values():
            weight, gradients = random_case(shape, dtype)
            expected = reference(weight, gradients, **DEFAULTS | options)
            parameter = torch.nn.Parameter(weight.to(device))
            more = {"state_dtype": state_dtype, "implementation": implementation}
            optimizer, after = train(parameter, [g.to(device) for g in gradients], **options, **more)
            allowed = torch.zeros_like(expected[0])
            for ours, theirs in zip(after, expected, strict=True):
                # Each step rounds the weight once, and is itself at most 5 lr with a few roundings of the momentum.
                allowed += weight_part * theirs.abs() + 30 * state_part * options.get("lr", 1e-3)
                assert ((ours.double().cpu() - theirs).abs() <= allowed).all(), (options, shape)
            wanted = {None: dtype, "float32": torch.float32, torch.bfloat16: torch.bfloat16}[state_dtype]
            assert optimizer.state[parameter]["exp_avg"].dtype is wanted


def test_the_authors_first_step_is_ten_times_the_papers():
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    options = {"lr": 1.0, "eps": 1e-12, "bias_correction": True}
    _, after = train(parameter, [torch.full((1,), 3.0, dtype=torch.float64)] * 2, **options)
    # Step 1: 1 / sqrt(0.05). Step 2, with 1 - 0.9**2 = 0.19: 1 / sqrt(0.95 * (0.1 / 0.19)**2 + 0.05).
    assert -after[0].item() == pytest.approx(4.4721, abs=1e-4)
    assert (after[0] - after[1]).item() == pytest.approx(1.78697, abs=1e-4)


def test_bias_correction_counts_for_each_parameter():
    """ZeRO-3 calls step() once for each part of the model."""
    parts = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    optimizer = AdamS(parts, lr=1.0, bias_correction=True)
    for part in parts:
        part.grad = torch.ones_like(part)
        optimizer.step()
        part.grad = None
    torch.testing.assert_close(parts[0], parts[1])
    assert [optimizer.state[part]["step"].item() for part in parts] == [1, 1]


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


@pytest.mark.parametrize("as_tensor", [False, True])
def test_sizes_schedules_and_settings_compile_once_a_machine(as_tensor, counted_compiler):
    def fresh(size, **options):
        parameter = torch.nn.Parameter(torch.ones(size))
        parameter.grad = torch.ones(size)
        lr = options.pop("lr", 1e-3)
        return AdamS([parameter], torch.tensor(lr) if as_tensor else lr, implementation="compiled", **options)

    for size in (1, 4097, (80, 90), (3, 40, 50), 2**17 + 1):
        for options in ({}, {"lr": 0.1, "weight_decay": 0.1}, {"betas": (0.5, 0.6), "eps_inside_sqrt": True}):
            optimizer = fresh(size, **options)
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
    with pytest.raises(EngineError, match=r"implementation=compiled: .*compiler fails here \(omp.h: no such file\)"):
        train(parameter, [torch.ones(4)], implementation="compiled")
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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_backward_pass_over_changed_weights_is_still_an_error(implementation):
    parameter = torch.nn.Parameter(torch.ones(5000))
    loss = parameter.square().sum()
    train(parameter, [torch.ones(5000)], implementation=implementation)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_auto_compiles_only_what_is_large_and_where_it_can(monkeypatch):
    def chosen(num_elements):
        group = AdamS([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
        return adams._choose(group, (torch.zeros(2),) * 3, num_elements)

    assert chosen(adams.COMPILED_FROM - 1) is adams_kernels.update_single
    assert chosen(adams.COMPILED_FROM) is adams_kernels.update_compiled
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.can_compile.cache_clear()
    native.load_kernel.cache_clear()
    assert chosen(adams.COMPILED_FROM) is adams_kernels.update_single
    parameter = torch.nn.Parameter(torch.zeros(2**13))
    with pytest.raises(EngineError, match="implementation=compiled: no C\\+\\+ compiler 'no-such-compiler'"):
        train(parameter, [torch.ones(2**13)], implementation="compiled")
    native.can_compile.cache_clear()


def test_triton_on_a_cpu_is_an_error():
    with pytest.raises(EngineError, match="implementation=triton: the parameters are on cpu"):
        train(torch.nn.Parameter(torch.zeros(2)), [torch.ones(2)], implementation="triton")


INTERPRETED = """
import sys
import torch
from adams_reference import DEFAULTS, random_case, reference
from test_adams_paths import CASES
from rl_posttrain.optim.adams import AdamS, _scalars
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
            update_triton([(weight, gradient, momentum)], _scalars(group, step, weight.device))
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
        timeout=300,
    )
    assert done.stdout.endswith("agreed\n"), done.stderr


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_tensors_that_are_not_contiguous(implementation):
    weight, gradients = random_case((80, 90), torch.float64)
    expected = reference(weight, gradients, **DEFAULTS)[-1]
    storage = torch.zeros(80, 180, dtype=torch.float64)
    for parameter in (weight.t().contiguous().t(), storage[:, ::2].copy_(weight)):
        assert not parameter.is_contiguous()
        _, after = train(torch.nn.Parameter(parameter), gradients, implementation=implementation)
        torch.testing.assert_close(after[-1], expected, rtol=1e-12, atol=1e-12)
    assert storage[:, 1::2].eq(0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_step_is_the_same_for_a_whole_and_for_its_shards(implementation):
    """To the bit: what ZeRO and FSDP hand over are parts at any offset."""
    weight, gradients = random_case((20_011,), torch.float32)
    options = {"lr": 0.1, "weight_decay": 0.1, "implementation": implementation}
    _, whole = train(torch.nn.Parameter(weight.clone()), gradients, **options)
    parts = []
    for start, end in ((0, 7777), (7777, 20_011)):
        _, after = train(torch.nn.Parameter(weight[start:end].clone()), [g[start:end] for g in gradients], **options)
        parts.append(after[-1])
    assert torch.equal(whole[-1], torch.cat(parts))


@pytest.mark.parametrize(
    "options", [{}, {"foreach": True}, {"foreach": False}, {"implementation": "compiled"}], ids=str
)
def test_missing_gradients_and_gradients_set_to_none(options):
    used, unused = (torch.nn.Parameter(torch.ones(5000)) for _ in range(2))
    optimizer = AdamS([used, unused], lr=0.1, weight_decay=0.5, **options)
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
    [{"state_dtype": "float32"}, {"state_dtype": torch.bfloat16}, {"bias_correction": True}, {"lr": torch.tensor(0.1)}],
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


def test_a_state_of_the_first_version_loads():
    optimizer, _ = train(torch.nn.Parameter(torch.ones(3)), [torch.ones(3)])
    state = optimizer.state_dict()
    state["param_groups"] = [{name: state["param_groups"][0][name] for name in (*DEFAULTS, "params")}]
    parameter = torch.nn.Parameter(torch.ones(3))
    resumed = AdamS([parameter])
    resumed.load_state_dict(state)
    parameter.grad = torch.ones(3)
    resumed.step()
    assert (parameter < 1).all()


def test_a_gradient_scaler_skips_what_overflowed():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamS([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor, moves in ((float("inf"), False), (1.0, True)):
        before = parameter.detach().clone()
        optimizer.zero_grad()
        scaler.scale((parameter * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert (not torch.equal(before, parameter)) is moves
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 1 - 0.1 * 0.1 / 0.05**0.5))


SHARDED = """
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from rl_posttrain.optim import AdamS

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
mesh = init_device_mesh("cpu", (2,))
for implementation in ("single", "foreach", "compiled"):
    models = []
    for sharded in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(101, 103), torch.nn.Linear(103, 3))
        if sharded:
            fully_shard(model, mesh=mesh)
        optimizer = AdamS(model.parameters(), lr=0.1, weight_decay=0.1, implementation=implementation)
        for step in range(3):
            torch.manual_seed(step)
            model(torch.randn(4, 101)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        models.append((model, optimizer))
    for plain, shards in zip(models[0][0].parameters(), models[1][0].parameters()):
        torch.testing.assert_close(shards.full_tensor(), plain, rtol=1e-5, atol=1e-5)
        buffer = models[1][1].state[shards]["exp_avg"]
        assert buffer.to_local().numel() < plain.numel()
        torch.testing.assert_close(buffer.full_tensor(), models[0][1].state[plain]["exp_avg"], rtol=1e-4, atol=1e-6)
if rank == 0:
    print("agreed")
torch.distributed.destroy_process_group()
"""


def test_shards_of_fsdp2_over_two_processes(tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(start, capture_output=True, text=True, env=clean_environment(), timeout=300)
    assert "agreed" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dtype": "float8"}, "Invalid state_dtype: float8"),
        ({"implementation": "fused"}, "Invalid implementation: fused"),
        ({"foreach": True, "implementation": "single"}, "Invalid foreach: True with implementation=single"),
        ({"lr": torch.zeros(2)}, r"Invalid lr: a tensor of shape \(2,\)"),
        ({"lr": torch.tensor(-1.0)}, "Invalid lr: -1.0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        AdamS([torch.nn.Parameter(torch.zeros(2))], **options)


def test_groups_are_checked_too():
    with pytest.raises(ValueError, match="Invalid eps: 0"):
        AdamS([{"params": [torch.nn.Parameter(torch.zeros(2))], "eps": 0.0}])


def test_a_sparse_gradient_is_refused():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="gradient=sparse: AdamS takes dense"):
        AdamS(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("betas", "seen"),
    [
        ((0.9, 0.95), None),
        ((0.95, 0.99), None),
        ((0.97, 0.98), None),
        ((0.9, 0.999), r"betas=\(0.9, 0.999\): .* may move 3.29 lr"),
        ((0.96, 0.985), "both lag the gradient"),
    ],
)
def test_betas_that_training_suffers_from_are_named_once(betas, seen):
    adams._warn_about.cache_clear()
    parameter = torch.nn.Parameter(torch.zeros(2))
    if seen is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            AdamS([parameter], betas=betas)
        return
    with pytest.warns(UserWarning, match=seen):
        AdamS([parameter], betas=betas)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdamS([parameter], betas=betas)
