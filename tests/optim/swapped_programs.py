"""Programs with trainers of transformers under the swap by environment, for the tests of it."""

from conftest import run_python
from linear_model import SOURCE

from rl_posttrain.optim.swapped import NAME

BEGIN = (
    f"""
import os, sys
import rl_posttrain.optim.autoswap
{SOURCE}"""
    + """
from transformers import Trainer, TrainingArguments

def make(kind=Trainer, optimizers=(None, None), optimizer_cls_and_kwargs=None, **fields):
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    fields = {"max_steps": 2, "use_cpu": True} | quiet | fields
    rows = [ROW] * 4
    given = {"optimizers": optimizers, "optimizer_cls_and_kwargs": optimizer_cls_and_kwargs}
    return kind(Model(), TrainingArguments("out", **fields), train_dataset=rows, **given)

def refused():
    model = Model()
    make(optimizers=(torch.optim.SGD(model.parameters()), None))


class Own(Trainer):
    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        return self.optimizer

class Super(Trainer):
    def create_optimizer(self, model=None):
        return super().create_optimizer()

class OwnLoop(Trainer):
    def train(self):
        self.create_optimizer_and_scheduler(num_training_steps=3)
        step(self.optimizer, self.model, times=3)

class OwnOptimizer(Trainer):
    def train(self):
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        step(self.optimizer, self.model)

def step(optimizer, model, times=1):
    for _ in range(times):
        model(torch.ones(1, 2), torch.zeros(1, 1))["loss"].backward()
        optimizer.step()

"""
)
ADAMS = "rl_posttrain.optim.adams.AdamS"


def run_swapped(body: str, **variables: str) -> tuple[int, list[str], str]:
    """Run a program in a process of its own; its status, the lines that are ours, and all of stderr."""
    done = run_python("-c", BEGIN + body, **{NAME: "adams", **variables})
    lines = [line for line in done.stderr.splitlines() if line.startswith(("rl-posttrain: ", "rl_posttrain: "))]
    return done.returncode, lines, done.stderr
