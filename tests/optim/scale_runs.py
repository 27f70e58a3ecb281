"""SCALE on layers of every kind, spread over two processes; test_scale_shards.py starts it.

torchrun --nproc_per_node=2 scale_runs.py FILE     largest difference from one process, by how it was spread
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rl_posttrain.optim import SCALE
from rl_posttrain.training.backends.deepspeed import start_deepspeed

NUM_STEPS = 20


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


def model_and_optimizer(wrap=lambda model: model):
    torch.manual_seed(0)
    model = wrap(Net())
    return model, SCALE.from_model(model, lr=1e-2, vector_lr=1e-3, weight_decay=0.1)


def run_plain(wrap=lambda model: model, place=slice(None)):
    model, optimizer = model_and_optimizer(wrap)
    for batch in batches():
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
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": 4,
            "gradient_clipping": 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
        },
    )
    optimizer.find_shards(engine)
    for batch in batches():
        engine.backward(engine(*batch[:, place]))
        engine.step()
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=stage == 3):
        return {name: parameter.detach().clone() for name, parameter in engine.module.named_parameters()}


def main() -> None:
    start_deepspeed(on_cpu=True)
    rank = torch.distributed.get_rank()
    half = slice(4 * rank, 4 * rank + 4)
    mesh = init_device_mesh("cpu", (2,))
    expected = run_plain()
    found = {f"ZeRO-{stage}": run_zero(stage, half) for stage in (1, 2, 3)}
    sharded = run_plain(lambda model: fully_shard(model, mesh=mesh), half)
    found["FSDP2"] = {name: parameter.full_tensor() for name, parameter in sharded.items()}
    worst = {
        how: max((value - expected[name]).abs().max().item() for name, value in weights.items())
        for how, weights in found.items()
    }
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(worst))


if __name__ == "__main__":
    main()
