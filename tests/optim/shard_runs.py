"""AdamS, PowerStep and SCALE on layers of every kind, spread over two processes; test_shards.py starts it.

torchrun --nproc_per_node=2 shard_runs.py FILE     what both hold, and how far they are from one process
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rl_posttrain.optim import SCALE, AdamS
from rl_posttrain.optim.powerstep import PowerStep
from rl_posttrain.optim.rounding import store, tensor_key
from rl_posttrain.optim.scale_kernels import Matrix
from rl_posttrain.optim.scale_shards import Piece, Shard, update_shard
from rl_posttrain.training.backends.deepspeed import start_deepspeed, wrap

NUM_STEPS = 20
ADAMS_WAYS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


class Conv1D(nn.Module):
    """As transformers' module of this name keeps its weight: [in, out]."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(13, 11) * 0.1)

    def forward(self, x):
        return x @ self.weight


class Experts(nn.Module):
    def __init__(self, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        self.weight = nn.Parameter(torch.randn(3, 11, 11) * 0.1)

    def forward(self, x):
        return sum(x @ (weight if self.is_transposed else weight.t()) for weight in self.weight)


class Net(nn.Module):
    """2,000 parameters in sizes that no part ends with."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear, self.conv = nn.Embedding(23, 11), nn.Linear(11, 13), Conv1D()
        self.experts, self.transposed_experts = Experts(False), Experts(True)
        self.norm, self.lm_head = nn.LayerNorm(11), nn.Linear(11, 23, bias=False)

    def forward(self, tokens, next_tokens):
        hidden = self.conv(self.linear(self.embedding(tokens)).tanh())
        hidden = hidden + self.experts(hidden) + self.transposed_experts(hidden)
        return nn.functional.cross_entropy(self.lm_head(self.norm(hidden)), next_tokens)


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(23, (2, 8), generator=generator) for _ in range(NUM_STEPS)]


def model_and_optimizer(shard=lambda model: model):
    torch.manual_seed(0)
    model = shard(Net())
    return model, SCALE.from_model(model, lr=1e-2, vector_lr=1e-3, weight_decay=0.1)


def run_plain(shard=lambda model: model, place=slice(None), *, folder=None, **form):
    """The weights after all steps; with a folder, half of them by another model and optimizer that continue from it.

    Args:
        **form: of the optimizer's state in torch's distributed checkpoint, options of `StateDictOptions`.
    """
    model, optimizer = model_and_optimizer(shard)
    for step, batch in enumerate(batches()):
        if folder is not None and step == NUM_STEPS // 2:
            options = StateDictOptions(**form)
            dcp.save(
                dict(zip("mo", get_state_dict(model, optimizer, options=options), strict=True)), checkpoint_id=folder
            )
            model, optimizer = model_and_optimizer(shard)
            saved = dict(zip("mo", get_state_dict(model, optimizer, options=options), strict=True))
            dcp.load(saved, checkpoint_id=folder)
            set_state_dict(model, optimizer, model_state_dict=saved["m"], optim_state_dict=saved["o"], options=options)
        model(*batch[:, place]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.named_parameters())


def run_zero(stage, place):
    import deepspeed

    model, optimizer = model_and_optimizer()
    zero = {
        "stage": stage, "sub_group_size": 300, "round_robin_gradients": True, "stage3_param_persistence_threshold": 0,
    }  # fmt: skip
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_clipping": 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }
    engine, _ = wrap(model, optimizer, config)
    optimizer.find_shards(engine)
    for batch in batches():
        engine.backward(engine(*batch[:, place]))
        engine.step()
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=stage == 3):
        return {name: parameter.detach().clone() for name, parameter in engine.module.named_parameters()}


def spread_scale(mesh, rank: int, folder: Path) -> dict[str, float]:
    """The largest difference of any weight from one process, under each ZeRO stage and FSDP2."""
    half = slice(4 * rank, 4 * rank + 4)
    expected = run_plain()
    found = {f"ZeRO-{stage}": run_zero(stage, half) for stage in (1, 2, 3)}
    resumed = {f"FSDP2, resumed{', flat' * flat}": {"folder": folder / f"flat={flat}"} for flat in (False, True)}
    resumed["FSDP2, resumed, flat"]["flatten_optimizer_state_dict"] = True
    for how, options in ({"FSDP2": {}} | resumed).items():
        sharded = run_plain(lambda model: fully_shard(model, mesh=mesh), half, **options)
        found[how] = {name: parameter.full_tensor() for name, parameter in sharded.items()}
    return {how: difference(weights, expected) for how, weights in found.items()}


def spread_rounding(mesh, rank: int) -> dict[str, bool]:
    """Whether parts of bf16 weights that only decay are what `store` makes of them, with places in the part."""
    settings = {"lr": 0.1, "weight_decay": 0.03}
    torch.manual_seed(0)
    model = fully_shard(Net().bfloat16(), mesh=mesh)
    optimizer = SCALE.from_model(model, stochastic_rounding=True, **settings)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {parameter: number for number, parameter in enumerate(parameters) if parameter.ndim > 1}
    found = {"FSDP2": True}
    for step in (1, 2):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        before = {parameter: parameter.to_local().clone() for parameter in numbers}
        optimizer.step()
        for parameter, number in numbers.items():
            right = decayed(before[parameter], tensor_key(step, number))
            found["FSDP2"] &= torch.equal(parameter.to_local(), right)
    # DeepSpeed's shards are of fp32 masters; one of bf16 weights holds the end of a matrix and the begin of another.
    flat, group = torch.randn(60).bfloat16(), settings | {"momentum": 0.9, "norm": "rms", "axis": 1}
    right, world = decayed(flat, tensor_key(1, 0)), torch.distributed.group.WORLD
    pieces = [Piece(0, 25, 5 + rank, (6, 7)), Piece(25, 35, 7 * rank, (9, 7))]
    update_shard(Matrix(flat, torch.zeros(60), None), Shard(pieces, world, flat.device), group, tensor_key(1, 0))
    found["shard"] = torch.equal(flat, right)
    everywhere = [None] * 2
    torch.distributed.all_gather_object(everywhere, found)
    return {how: all(one[how] for one in everywhere) for how in found}


def decayed(weight: torch.Tensor, key: int) -> torch.Tensor:
    kept = torch.empty_like(weight)
    store(kept, weight.float() * (1 - 0.1 * 0.03), key)
    assert not torch.equal(kept, weight)
    return kept


def train_layers(optimizer_of, shard=lambda model: model):
    """Two linear layers after three steps, and their optimizer; every process takes the same batch."""
    torch.manual_seed(0)
    model = shard(nn.Sequential(nn.Linear(101, 103), nn.Linear(103, 3)))
    optimizer = optimizer_of(model.parameters())
    for step in range(3):
        torch.manual_seed(step)
        model(torch.randn(4, 101)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.named_parameters()), optimizer


def spread_adams(mesh) -> dict[str, dict[str, float]]:
    """Of each way to run a step under FSDP2: how far weights and buffers are from one process, and bytes of state."""
    found = {}
    for name, way in ADAMS_WAYS.items():

        def make(parameters, way=way):
            return AdamS(parameters, lr=0.1, weight_decay=0.1, **way)

        plain, theirs = train_layers(make)
        shards, ours = train_layers(make, lambda model: fully_shard(model, mesh=mesh))
        buffers = {name: ours.state[shard]["exp_avg"] for name, shard in shards.items()}
        found[name] = {
            "weights": difference({name: shard.full_tensor() for name, shard in shards.items()}, plain),
            "buffers": difference(
                {name: buffer.full_tensor() for name, buffer in buffers.items()},
                {name: theirs.state[parameter]["exp_avg"] for name, parameter in plain.items()},
            ),
            "bytes": bytes_of_state(ours),
        }
    _, adamw = train_layers(torch.optim.AdamW, lambda model: fully_shard(model, mesh=mesh))
    found["adamw"] = {"bytes": bytes_of_state(adamw)}
    found["whole"] = {"bytes": sum(parameter.nbytes for parameter in plain.values())}
    return found


def spread_powerstep(mesh) -> dict[str, float]:
    """Of each way to run a step under FSDP2: how far the weights are from one process."""
    found = {}
    for foreach in (False, True):

        def make(parameters, foreach=foreach):
            return PowerStep(parameters, lr=0.1, weight_decay=0.1, foreach=foreach)

        plain, _ = train_layers(make)
        shards, _ = train_layers(make, lambda model: fully_shard(model, mesh=mesh))
        found[f"foreach={foreach}"] = difference({name: part.full_tensor() for name, part in shards.items()}, plain)
    return found


def bytes_of_state(optimizer) -> int:
    """Of this process's parts, step counters left out."""
    values = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    return sum(value.to_local().nbytes for value in values)


def difference(found, expected) -> float:
    return max((value - expected[name]).abs().max().item() for name, value in found.items())


def main() -> None:
    start_deepspeed(on_cpu=True)
    rank, mesh = torch.distributed.get_rank(), init_device_mesh("cpu", (2,))
    found = {
        "scale": spread_scale(mesh, rank, Path(sys.argv[1]).parent),
        "rounding": spread_rounding(mesh, rank),
        "adams": spread_adams(mesh),
        "powerstep": spread_powerstep(mesh),
    }
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
