"""Runs of a tiny Llama on fixed batches under DeepSpeed's ZeRO stages; test_zero.py starts them.

torchrun --nproc_per_node=2 zero_runs.py walk FOLDER [long]       every case in turn, and checkpoints of the saved ones
torchrun --nproc_per_node=1 zero_runs.py universal FOLDER          converts those checkpoints and continues from them
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from rl_posttrain.models.universal import convert_to_universal
from rl_posttrain.optim import SCALE, AdamS
from rl_posttrain.optim.powerstep import PowerStep
from rl_posttrain.optim.swap import check_and_find_shards, running_optimizer
from rl_posttrain.training.backends.deepspeed import start_deepspeed, wrap

NUM_STEPS, SAVED_AT = 20, 10
SETTINGS = {"lr": 1e-3, "weight_decay": 0.1}
CLIP = 2.2  # the norms are 1.9 to 2.9


@dataclass(frozen=True)
class Case:
    """A run. Stage None is plain PyTorch in one process; `whole` gives it each batch in one backward pass, not two."""

    stage: int | None
    optimizer: type = AdamS
    clipped: bool = False
    offload: bool = False
    whole: bool = False
    options: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        marks = [mark for mark in ("clipped", "offload", "whole") if getattr(self, mark)]
        stage = "plain" if self.stage is None else f"zero{self.stage}"
        return "-".join([self.optimizer.__name__.lower(), *self.options, stage, *marks])

    @property
    def max_grad_norm(self) -> float:
        return CLIP if self.clipped else 0.0


ODD = {"bias_correction": True, "state_dtype": "bfloat16"}
PLAIN = [
    Case(None, optimizer, clipped=clipped, whole=whole)
    for optimizer in (AdamS, SCALE)
    for clipped in (False, True)
    for whole in (False, True)
]
POWERSTEP = [Case(stage, PowerStep) for stage in (2, 3)]
PLAIN.append(Case(None, PowerStep))
CASES = [
    *(Case(stage) for stage in (0, 1, 2, 3)),
    Case(2, clipped=True),
    Case(2, offload=True),
    Case(3, options=ODD),
    *(Case(stage, SCALE) for stage in (2, 3)),
    *POWERSTEP,
]
# Only in `make test-all`: what differs from a case above in DeepSpeed alone.
LONG = [
    *(Case(stage, clipped=True) for stage in (0, 1, 3)),
    *(Case(stage, offload=True) for stage in (1, 3)),
    Case(2, clipped=True, offload=True),
    *(Case(stage, SCALE) for stage in (0, 1)),
    *(Case(stage, SCALE, clipped=True) for stage in (2, 3)),
    Case(2, SCALE, offload=True),
]
CONVERTED = [Case(1), Case(2), Case(3), Case(3, options=ODD)]
REPLAYED = [case for case in CASES + LONG if case.stage == 3 and case.optimizer is not SCALE and not case.clipped]
SAVED = [*CONVERTED, Case(2, SCALE), Case(3, SCALE), *POWERSTEP]


def tiny_llama() -> torch.nn.Module:
    """15,270 parameters of fp32, in sizes that no shard, bucket or sub-group ends with."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=30, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=10, tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batches() -> list[torch.Tensor]:
    """Token ids of each step: four sequences, of which each of two processes takes two."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 61, (4, 33), generator=generator) for _ in range(NUM_STEPS)]


def make_optimizer(case: Case, model: torch.nn.Module) -> torch.optim.Optimizer:
    if hasattr(case.optimizer, "from_model"):
        return case.optimizer.from_model(model, **SETTINGS, **case.options)
    return case.optimizer(model.parameters(), **SETTINGS, **case.options)


def run_plain(case: Case) -> dict:
    """All steps without DeepSpeed, in this process alone."""
    model = tiny_llama()
    optimizer = make_optimizer(case, model)
    num_parts = 1 if case.whole else 2
    for ids in batches():
        for part in ids.chunk(num_parts):
            (model(input_ids=part, labels=part).loss / num_parts).backward()
        if case.clipped:
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
    return {"weights": weights(model)}


def replay(case: Case, gradients: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The weights after the optimizer, in one process, was handed the gradients of each step."""
    model = tiny_llama()
    optimizer = make_optimizer(case, model)
    for step in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = step[name].clone()
        optimizer.step()
    return weights(model)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def start_engine(case: Case, *, universal: bool = False):
    model = tiny_llama()
    optimizer = make_optimizer(case, model)
    engine, wrapper = wrap(
        model,
        optimizer,
        {
            "train_micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": 2 // torch.distributed.get_world_size(),
            "gradient_clipping": case.max_grad_norm,
            "zero_optimization": {
                "stage": case.stage,
                # Several buckets and sub-groups, and nothing that ZeRO-3 keeps whole.
                "reduce_bucket_size": 3000,
                "sub_group_size": 3000,
                "stage3_param_persistence_threshold": 0,
                **({"offload_optimizer": {"device": "cpu"}} if case.offload else {}),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "checkpoint": {"load_universal": universal},
        },
    )
    check_and_find_shards(wrapper, case.optimizer)
    return engine


def train(engine, steps: list[torch.Tensor], *, recorded: bool = False) -> list[dict[str, torch.Tensor]]:
    """One optimizer step for each of `steps`; if recorded, returns the whole gradients of each, not clipped yet."""
    from deepspeed.utils import safe_get_full_grad

    world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    gradients = []
    for ids in steps:
        for part in ids.chunk(2)[rank::world_size]:
            engine.backward(engine(input_ids=part, labels=part).loss)
            if recorded:
                named = engine.module.named_parameters()
                gradients.append({name: safe_get_full_grad(parameter).clone() for name, parameter in named})
            engine.step()
    return gradients


def outcome(engine, **others) -> dict:
    """The weights, and what really ran: the class, its state's names and dtype, and this process's part of it."""
    import deepspeed

    running = running_optimizer(engine.optimizer)
    states = [state for state in running.state.values() if state]
    buffers = [value for state in states for name, value in state.items() if name in ("exp_avg", "momentum_buffer")]
    sharded = engine.zero_optimization_stage() == 3
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=sharded):
        whole = weights(engine.module)
    found = {
        "weights": whole,
        "class": type(running),
        "state": sorted({name for state in states for name in state}),
        "dtypes": {buffer.dtype for buffer in buffers},
        "num_elements": sum(buffer.numel() for buffer in buffers),
        **others,
    }
    engine.destroy()
    return found


def move_states(engine) -> str | None:
    """The optimizer's states to the host and back; what DeepSpeed says where it will not."""
    try:
        engine.offload_states()
        engine.reload_states()
    except AssertionError as error:
        return str(error)


def walk(folder: Path, cases: list[Case]) -> dict[str, dict]:
    """Every case; what the saved ones wrote is loaded into another engine, which makes the later steps again."""
    found = {case.name: run_plain(case) for case in PLAIN}
    for case in cases:
        engine, refusal = start_engine(case), None
        recorded = case in REPLAYED
        gradients = train(engine, batches()[:SAVED_AT], recorded=recorded)
        if case in SAVED:
            engine.save_checkpoint(folder / case.name, tag="saved")
            refusal = move_states(engine)
        gradients += train(engine, batches()[SAVED_AT:], recorded=recorded)
        found[case.name] = outcome(engine, gradients=gradients, refusal=refusal)
        if case in SAVED:
            engine = start_engine(case)
            engine.load_checkpoint(folder / case.name, tag="saved")
            train(engine, batches()[SAVED_AT:])
            found[f"{case.name}-resumed"] = outcome(engine)
    return found


def universal(folder: Path) -> dict[str, dict]:
    """In one process: the checkpoints that two wrote are converted and loaded, and the later steps made again."""
    found = {}
    for case in CONVERTED:
        convert_to_universal(folder / case.name / "saved", folder / case.name / "saved_universal")
        engine = start_engine(case, universal=True)
        engine.load_checkpoint(folder / case.name, tag="saved_universal")
        train(engine, batches()[SAVED_AT:])
        found[f"{case.name}-universal"] = outcome(engine)
    return found


if __name__ == "__main__":
    start_deepspeed(on_cpu=True)
    _, what, folder, *long = sys.argv
    results = walk(Path(folder), CASES + LONG * len(long)) if what == "walk" else universal(Path(folder))
    if torch.distributed.get_rank() == 0:
        torch.save(results, Path(folder, f"{what}.pt"))
    torch.distributed.destroy_process_group()
