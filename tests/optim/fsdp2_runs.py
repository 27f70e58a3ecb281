"""Runs of a tiny Llama on fixed batches under FSDP2, ZeRO-2, ZeRO-3 and plain PyTorch; test_fsdp2.py starts them.

torchrun --nproc_per_node=2 fsdp2_runs.py walk FOLDER [long]   every case, and checkpoints of the saved ones
torchrun --nproc_per_node=1 fsdp2_runs.py fewer FOLDER     goes on from those of FSDP2 in one process
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from zero_runs import CLIP, SAVED_AT, SETTINGS, batches, tiny_llama, weights

from rl_posttrain.optim import resolve_optimizer
from rl_posttrain.optim.swap import check_and_find_shards
from rl_posttrain.training.backends.deepspeed import start_deepspeed, wrap
from rl_posttrain.training.backends.fsdp2 import read_optimizer, read_weights, shard, write

# Optimizers that step on DTensors, and what they take beside the settings of all.
OPTIONS = {"scale": {"vector_lr": 1e-3}, "sgd": {}, "sign_sgd": {}}


@dataclass(frozen=True)
class Case:
    """A run. Engine `plain` is one process, which gets each batch in two halves, as two processes do.

    `sums` is the dtype in which DeepSpeed adds up the gradients of processes; by itself that of the weights.
    """

    engine: str
    optimizer: str = "adams"
    dtype: str = "float32"
    offload: str = "none"
    clipped: bool = False
    sums: str = ""

    @property
    def name(self) -> str:
        marks = (
            [f"sums-in-{self.sums}"] * bool(self.sums)
            + [self.offload] * (self.offload != "none")
            + ["clipped"] * self.clipped
        )
        return "-".join([self.optimizer, self.dtype, self.engine, *marks])

    @property
    def plain(self) -> "Case":
        """What it is compared with."""
        return Case("plain", self.optimizer, self.dtype, clipped=self.clipped)


CASES = [Case("fsdp2"), Case("fsdp2", dtype="bfloat16"), Case("zero2"), Case("fsdp2", "scale")]
CASES += [Case("fsdp2", offload="parameters")]
# Only in `make test-all`.
LONG = [Case("zero3"), *(Case(engine, dtype="bfloat16") for engine in ("zero2", "zero3"))]
LONG += [Case(engine, "scale") for engine in ("zero2", "zero3")]
LONG += [Case(engine, "scale", "bfloat16") for engine in ("fsdp2", "zero2", "zero3")]
LONG += [Case(engine, dtype="bfloat16", sums="fp32") for engine in ("zero2", "zero3")]
LONG += [Case(engine, clipped=True) for engine in ("fsdp2", "zero2")]
LONG += [Case("zero3", dtype="bfloat16", offload="parameters")]
SAVED = [Case("fsdp2"), Case("fsdp2", "scale"), Case("fsdp2", dtype="bfloat16")]


def build(case: Case, model: torch.nn.Module) -> torch.optim.Optimizer:
    options = OPTIONS.get(case.optimizer, {})
    return resolve_optimizer(case.optimizer, **SETTINGS, options=options).build(model)


def run_plain(case: Case) -> dict[str, torch.Tensor]:
    """fp32 masters; in bf16 the passes run on a copy of them, and its gradients are averaged in fp32."""
    masters = tiny_llama()
    if case.dtype == "bfloat16":
        masters = masters.bfloat16().float()
    model = masters if case.dtype == "float32" else tiny_llama().bfloat16()
    optimizer = build(case, masters)
    for ids in batches():
        for copy, master in zip(model.parameters(), masters.parameters(), strict=True):
            copy.data.copy_(master.data)
            master.grad = None
        sums = [torch.zeros_like(master) for master in masters.parameters()]
        for part in ids.chunk(2):
            model.zero_grad()
            model(input_ids=part, labels=part).loss.backward()
            for total, parameter in zip(sums, model.parameters(), strict=True):
                total += parameter.grad.float()
        for total, master in zip(sums, masters.parameters(), strict=True):
            master.grad = total / 2
        if case.clipped:
            torch.nn.utils.clip_grad_norm_(masters.parameters(), CLIP)
        optimizer.step()
    return weights(masters)


class Sharded:
    """A model under FSDP2, and its optimizer."""

    def __init__(self, case: Case):
        self.case = case
        self.model = tiny_llama().to(getattr(torch, case.dtype))
        shard(self.model, dtype=case.dtype, device="cpu", offload=case.offload == "parameters")
        self.optimizer = build(case, self.model)

    def train(self, steps: list[torch.Tensor]) -> None:
        rank, number = torch.distributed.get_rank(), torch.distributed.get_world_size()
        for ids in steps:
            parts = ids.chunk(2)[rank::number]
            for part in parts:
                (self.model(input_ids=part, labels=part).loss / len(parts)).backward()
            if self.case.clipped:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def masters(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().full_tensor() for name, parameter in self.model.named_parameters()}


def gone_on(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """The masters after the later steps, from the checkpoint in the middle."""
    run = Sharded(case)
    read_weights(run.model, folder / case.name)
    read_optimizer(run.model, run.optimizer, folder / case.name)
    run.train(batches()[SAVED_AT:])
    return run.masters()


def run_fsdp2(case: Case, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    run = Sharded(case)
    run.train(batches()[:SAVED_AT])
    if case in SAVED:
        write(run.model, run.optimizer, folder / case.name)
        torch.distributed.barrier()
    run.train(batches()[SAVED_AT:])
    found = {case.name: run.masters()}
    if case in SAVED:
        found[f"{case.name}-resumed"] = gone_on(case, folder)
    return found


def run_deepspeed(case: Case) -> dict[str, torch.Tensor]:
    from deepspeed.utils import safe_get_full_fp32_param

    model = tiny_llama().to(getattr(torch, case.dtype))
    optimizer = build(case, model)
    half = case.dtype == "bfloat16"
    engine, wrapper = wrap(
        model,
        optimizer,
        {
            **({"data_types": {"grad_accum_dtype": "fp32"}} if half else {}),
            "train_micro_batch_size_per_gpu": 2,
            **({"communication_data_type": case.sums} if case.sums else {}),
            "gradient_clipping": CLIP if case.clipped else 0.0,
            "bf16": {"enabled": half},
            "zero_optimization": {
                "stage": int(case.engine[-1]),
                "stage3_param_persistence_threshold": 0,
                **({"offload_optimizer": {"device": "cpu"}} if case.offload != "none" else {}),
                **({"offload_param": {"device": "cpu"}} if case.offload == "parameters" else {}),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    check_and_find_shards(wrapper, type(optimizer))
    for ids in batches():
        part = ids.chunk(2)[torch.distributed.get_rank()]
        engine.backward(engine(input_ids=part, labels=part).loss)
        engine.step()
    found = {name: safe_get_full_fp32_param(parameter).clone() for name, parameter in engine.module.named_parameters()}
    engine.destroy()
    return found


def walk(folder: Path, cases: list[Case]) -> dict[str, dict[str, torch.Tensor]]:
    found = {case.name: run_plain(case) for case in dict.fromkeys(case.plain for case in cases)}
    for case in cases:
        found |= run_fsdp2(case, folder) if case.engine == "fsdp2" else {case.name: run_deepspeed(case)}
    return found


def fewer(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """In one process: the checkpoints that two wrote, and the later steps."""
    return {f"{case.name}-fewer": gone_on(case, folder) for case in SAVED}


if __name__ == "__main__":
    start_deepspeed(on_cpu=True)
    _, what, folder, *long = sys.argv
    results = walk(Path(folder), CASES + LONG * len(long)) if what == "walk" else fewer(Path(folder))
    if torch.distributed.get_rank() == 0:
        torch.save(results, Path(folder, f"{what}.pt"))
    torch.distributed.destroy_process_group()
