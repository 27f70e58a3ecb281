"""Trainers with a swapped optimizer under each wrapper in turn; test_swap_wrapped.py starts it.

torchrun --nproc_per_node=2 trainer_runs.py MODEL FOLDER [long]
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import datasets
import peft
import torch
import transformers
import trl
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import use_optimizer
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.training.backends.deepspeed import start_deepspeed


@dataclass(frozen=True)
class Case:
    """A trainer, and what is wrapped around its model: "ddp", "zero0" to "zero3" or "fsdp2"."""

    trainer: str
    wrapper: str
    optimizer: str = "adams"
    lora: bool = False
    offload: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    deepspeed: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        marks = [mark for mark in ("lora", "offload") if getattr(self, mark)]
        return "-".join([self.trainer, self.wrapper, self.optimizer, *marks, *self.arguments, *self.deepspeed])


OURS = {"zero_force_ds_cpu_optimizer": False}
SCHEDULED = {"gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine"}
RUNNING = [
    *(Case("Trainer", wrapper) for wrapper in ("ddp", "zero2", "zero3", "fsdp2")),
    Case("Trainer", "zero2", offload=True, deepspeed=OURS),
    *(Case("Trainer", wrapper, arguments=SCHEDULED) for wrapper in ("ddp", "zero3")),
    *(Case("Trainer", wrapper, "scale") for wrapper in ("ddp", "zero2")),
    Case("SFT", "zero3", lora=True),
    Case("GRPO", "fsdp2"),
]
# Only in `make test-all`: what joins a trainer, a wrapper and an optimizer that stand above with others.
LONG = [
    *(Case("Trainer", wrapper) for wrapper in ("zero0", "zero1")),
    *(Case("Trainer", wrapper, offload=True, deepspeed=OURS) for wrapper in ("zero1", "zero3")),
    *(Case("Trainer", wrapper, arguments=SCHEDULED) for wrapper in ("zero2", "fsdp2")),
    *(Case("Trainer", wrapper, "scale") for wrapper in ("zero0", "zero3", "fsdp2")),
    Case("Trainer", "ddp", arguments={"optim": "adamw_8bit"}),
    Case("Trainer", "ddp", "scale", lora=True),
    *(Case("SFT", wrapper, lora=True) for wrapper in ("zero2", "fsdp2")),
    Case("SFT", "zero2", "scale", lora=True),
    Case("GRPO", "zero2"),
    Case("GRPO", "zero3", lora=True),
]
REFUSED = {
    "accelerate replaces an offloaded optimizer by DeepSpeedCPUAdam; set": Case("Trainer", "zero2", offload=True),
    "has an optimizer section (AdamW)": Case("Trainer", "zero2", deepspeed={"optimizer": {"type": "AdamW"}}),
}


def make_trainer(case: Case, model_path: str, folder: Path) -> transformers.Trainer:
    forget_wrappers()
    arguments = {
        "output_dir": str(folder), "max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-3,
        "max_grad_norm": 0.5, "weight_decay": 0.1, "logging_steps": 1, "use_cpu": True, "bf16": False,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "deepspeed": deepspeed_config(case),
        **case.arguments,
    }  # fmt: skip
    if case.trainer == "GRPO":
        arguments |= {"num_generations": 2, "max_completion_length": 4}
    configs = {"Trainer": transformers.TrainingArguments, "SFT": trl.SFTConfig, "GRPO": trl.GRPOConfig}
    args = configs[case.trainer](**arguments)
    if case.wrapper == "fsdp2":
        allow_fsdp_on_cpu()
    model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if case.lora else None
    texts = [f"{number} + {number} = {2 * number}" for number in range(1, 25)]
    if case.trainer == "Trainer":
        torch.manual_seed(0)
        model = peft.get_peft_model(model, lora) if lora else model
        ids = [tokenizer(text.ljust(14))["input_ids"] for text in texts]
        rows = datasets.Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])
        return transformers.Trainer(model, args, train_dataset=rows)
    if case.trainer == "SFT":
        rows = datasets.Dataset.from_list([{"text": text} for text in texts])
        return trl.SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=lora)

    def lengths(completions, **kwargs):
        return [float(len(text) + place) for place, text in enumerate(completions)]

    rows = datasets.Dataset.from_list([{"prompt": text} for text in texts])
    return trl.GRPOTrainer(
        model, reward_funcs=[lengths], args=args, train_dataset=rows, processing_class=tokenizer, peft_config=lora
    )


def deepspeed_config(case: Case) -> dict | None:
    if not case.wrapper.startswith("zero"):
        return None
    zero = {"stage": int(case.wrapper[-1]), "stage3_param_persistence_threshold": 0}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": zero | ({"offload_optimizer": {"device": "cpu"}} if case.offload else {}),
        **case.deepspeed,
    }


def forget_wrappers() -> None:
    """What the case before told accelerate and transformers, which keep it for the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        os.environ.pop(name, None)


def allow_fsdp_on_cpu() -> None:
    """On a CPU accelerate leaves FSDP's settings out; told that FSDP it is, the rest is accelerate's own."""
    accelerate.Accelerator(cpu=True)
    fsdp = {"distributed_type": accelerate.DistributedType.FSDP}
    PartialState._shared_state.update(fsdp)
    plugin = accelerate.FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
    )
    AcceleratorState._shared_state.update(fsdp, fsdp_plugin=plugin)


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter as one tensor, from the shards of ZeRO-3 or FSDP2."""
    import deepspeed

    if isinstance(parameter, DTensor):
        return parameter.detach().full_tensor()
    with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
        return parameter.detach().clone()


@contextlib.contextmanager
def logged() -> Iterator[list[int]]:
    """How many lines each process logs, as `use_optimizer` does when training begins."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("rl_posttrain").addHandler(handler)
    counts: list[int] = []
    yield counts
    logging.getLogger("rl_posttrain").removeHandler(handler)
    everyone: list[int | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, len(records))
    counts += everyone


def run(case: Case, model_path: str, folder: Path) -> dict:
    trainer = make_trainer(case, model_path, folder)
    try:
        use_optimizer(trainer, case.optimizer)
    except RecipeError as error:
        return {"error": str(error)}
    with logged() as lines:
        trainer.train()
    running = running_optimizer(trainer.optimizer)
    trained = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    return {
        "class": type(running).__name__,
        "lines": lines,
        "wrapper": type(trainer.model_wrapped).__name__,
        "state": sorted({name for state in running.state.values() for name in state}),
        "tensors": sorted({type(parameter).__name__ for parameter in running.state}),
        "rates": [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row],
        "weights": {name: whole(parameter) for name, parameter in trained.items()},
    }


if __name__ == "__main__":
    _, model_path, folder, *long = sys.argv
    start_deepspeed(on_cpu=True)
    cases = [*RUNNING, *LONG * len(long), *REFUSED.values()]
    found = {case.name: run(case, model_path, Path(folder)) for case in cases}
    if torch.distributed.get_rank() == 0:
        torch.save(found, Path(folder, "found.pt"))
    torch.distributed.destroy_process_group()
