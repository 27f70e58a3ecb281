"""Runs of a recipe with one optimizer after the other under DeepSpeed; test_in_recipes.py starts it.

python recipe_runs.py RECIPE FOLDER     writes by case its rows of metrics, and the optimizer after each step
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from test_names import OPTIONS, WHOLE_MATRICES

from rl_posttrain import load_recipe, train
from rl_posttrain.optim.swap import OptimizerCheck, running_optimizer


@dataclass(frozen=True)
class Case:
    optimizer: str
    stage: int
    dtype: str = "bfloat16"
    num_steps: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.optimizer}-{self.stage}-{self.dtype}"


SCHEDULED = {"weight_decay": 0.1, "schedule": "linear", "lr_by_role": {"embeddings": 1e-4}}
SCALE = {"vector_lr": 1e-4}
EACH = [Case("lion", 2), *(Case(name, 0) for name in WHOLE_MATRICES)]
SHARDED = [Case("scale", 2, num_steps=2, settings=SCALE), Case("scale", 3, "float32", 2, SCALE)]
GROUPED = [Case("adams", stage, num_steps=2, settings=SCHEDULED) for stage in (2, 3)]


def run(case: Case, recipe: str, folder: str) -> dict:
    steps = []

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        inner = running_optimizer(optimizer)
        tensors = {str(tensor.dtype) for tensor in inner.state}
        rates = sorted((group["lr"], group["weight_decay"]) for group in inner.param_groups)
        steps.append({"class": type(inner).__name__, "dtypes": sorted(tensors), "rates": rates})

    OptimizerCheck.on_step_end = on_step_end
    optimizer = {"name": case.optimizer, "lr": 1e-3, **OPTIONS.get(case.optimizer, {}), **case.settings}
    overrides = [
        f"optimizer={json.dumps(optimizer)}", f"run.output_dir={folder}", f"run.name={case.name}",
        "rollout.engine=transformers", f"algorithm.num_steps={case.num_steps}",
        f"distributed.zero_stage={case.stage}", f"model.dtype={case.dtype}",
    ]  # fmt: skip
    rows = train(load_recipe(recipe, overrides)).metrics()
    return {"rows": rows, "steps": steps}


if __name__ == "__main__":
    _, recipe, folder = sys.argv
    found = {case.name: run(case, recipe, folder) for case in (*EACH, *SHARDED, *GROUPED)}
    Path(folder, "found.json").write_text(json.dumps(found))
