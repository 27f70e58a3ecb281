"""Trains with LoRA under every engine in turn, by a launcher of processes; then goes on from the middle of each run.

    python lora_runs.py RECIPE FOLDER NAME,...

Each run's facts.json and last.pt have what only the living trainer knows.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from rl_posttrain import load_recipe, train
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.training.guards.rollback import roll_back
from rl_posttrain.training.loop import PolicyTrainer
from rl_posttrain.training.sharded_loop import ShardedTrainer

PLAIN, FP32, NF4 = "distributed.engine=none", "model.dtype=float32", "model.lora.quantize=nf4"
FSDP2, PPO = "distributed={engine: fsdp2, zero_stage: null}", ("algorithm.name=ppo", "critic.optimizer.lr=0.03")
ENGINES = {
    "plain": [PLAIN],
    "plain-fp32": [PLAIN, FP32],
    **{f"zero{stage}": [f"distributed.zero_stage={stage}"] for stage in range(4)},
    "fsdp2": [FSDP2],
    "plain-nf4": [PLAIN, NF4],
    "plain-nf4-fp32": [PLAIN, FP32, NF4, "model.lora.double_quant=true"],
    **{f"zero{stage}-nf4": [f"distributed.zero_stage={stage}", NF4] for stage in range(4)},
    "plain-nf4-ppo-fp32": [PLAIN, FP32, NF4, *PPO],
    "plain-ppo-shared": [PLAIN, *PPO, "critic.shared_backbone=true"],
    "zero2-ppo": ["distributed.zero_stage=2", *PPO],
    "zero3-ppo": ["distributed.zero_stage=3", *PPO],
    "fsdp2-ppo": [FSDP2, *PPO],
}
COMMON = [
    "model.lora.rank=4", "model.lora.alpha=8", "optimizer.lr=0.03", "algorithm.num_steps=4", "checkpoint.every_steps=2",
    "checkpoint.keep=2", "checkpoint.final_model=true", "rollout.engine=transformers", "run.deterministic=true",
    "algorithm.kl_coef=0.05",
]  # fmt: skip
TOKENS = [[7, 20, 33, 46, 59, 72, 85, 98], [3, 14, 15, 92, 65, 35, 89, 79]]

whole_saves = {kind: kind.save_model for kind in (PolicyTrainer, ShardedTrainer)}


def save_model(self, output_dir=None, _internal_call=False):
    whole_saves[type(self)](self, output_dir, _internal_call)
    if not output_dir.endswith(".final"):
        return
    weights = {name: tensor.clone() for name, tensor in self.policy.weights()}
    again = {name: tensor.clone() for name, tensor in self.policy.weights()}
    self.model_wrapped.eval()
    with torch.no_grad(), self.accelerator.autocast():
        logits = self.model_wrapped(input_ids=torch.tensor(TOKENS)).logits
    running = running_optimizer(self.optimizer)
    adapters = {str(parameter.dtype) for parameter in self.model.parameters() if parameter.requires_grad}
    frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
    facts = {
        "adapters": sorted(adapters),
        "frozen": sorted({str(parameter.dtype) for parameter in frozen}),
        "with_gradients": sum(parameter.grad is not None for parameter in frozen),
        "stepped": sorted({str(one.dtype) for group in running.param_groups for one in group["params"]}),
        "state": sorted({str(tensor.dtype) for state in running.state.values() for tensor in state.values()}),
        "reference_model": self.ref_model is not None,
        "same_again": all(torch.equal(weights[name], again[name]) for name in weights),
    }
    run = Path(self.args.output_dir).parent
    roll_back(self, run / "checkpoints" / "checkpoint-2")
    back = {name: tensor.clone() for name, tensor in self.policy.weights()}
    if self.accelerator.is_main_process:
        (run / "facts.json").write_text(json.dumps(facts))
        torch.save({"weights": weights, "logits": logits, "rolled_back": back}, run / "last.pt")


def cut(run: Path, to: Path) -> None:
    """A copy of a run as it was when its second step had its checkpoint."""
    shutil.copytree(run, to)
    for path in ("summary.json", "facts.json", "last.pt", "checkpoints/checkpoint-4", "checkpoints/final"):
        shutil.rmtree(to / path) if (to / path).is_dir() else (to / path).unlink()


if __name__ == "__main__":
    for kind in whole_saves:
        kind.save_model = save_model
    recipe, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")
    for name in names:
        overrides = [f"run.output_dir={folder}", *ENGINES[name], *COMMON]
        train(load_recipe(recipe, [f"run.name={name}", *overrides]))
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            cut(folder / name, folder / f"{name}-resumed")
        torch.distributed.barrier()
        train(load_recipe(recipe, [f"run.name={name}-resumed", *overrides]), resume=True)
