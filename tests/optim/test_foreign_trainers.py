"""Trainers that go on from AdamW's state with AdamS or SCALE."""

import pytest
import torch
import transformers
from conformance import Model
from torch import nn

from rl_posttrain.optim import use_optimizer


def trainer(folder, num_steps, name=None, weight_decay=0.0):
    rows = [{"ids": torch.tensor([number % 11] * 2), "labels": torch.tensor([number % 7] * 2)} for number in range(64)]
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=num_steps,
        learning_rate=1e-2,
        weight_decay=weight_decay,
        lr_scheduler_type="cosine",
        save_steps=2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    made = transformers.Trainer(Wrapped(), arguments, train_dataset=rows)
    if name:
        use_optimizer(made, name, lr=4e-3)
    return made


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Model()

    def forward(self, ids, labels):
        inner = self.inner
        hidden = inner.second_mlp(inner.mlp(inner.embed(ids)).relu())
        logits = inner.lm_head(inner.norm(hidden))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}


@pytest.mark.parametrize("name", ["adams", "scale"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_trainer_resumes_a_run_of_adamw_at_its_step_and_with_the_new_rates(name, weight_decay, tmp_path):
    """transformers always has two groups; by role there are one to four, and the schedule's file has two rates."""
    first = trainer(tmp_path, 2, weight_decay=weight_decay)
    first.args.max_steps = 2
    first.train()
    second = trainer(tmp_path, 4, name, weight_decay=weight_decay)
    with pytest.warns(UserWarning, match="takes over the state of another optimizer"):
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    logged = {row["step"]: row["learning_rate"] for row in second.state.log_history if "learning_rate" in row}
    # The file ends a cosine over two steps, at 0; from then on the cosine over four: (1 + cos(3/4 pi)) / 2 of the rate.
    assert logged[4] == pytest.approx(4e-3 * 0.1464, rel=1e-3)
    assert (tmp_path / "checkpoint-4" / "scheduler.pt").exists()
    third = trainer(tmp_path, 6, name, weight_decay=weight_decay)
    third.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert third.state.global_step == 6


def test_a_trainers_optimizer_takes_over_a_state_before_there_is_a_schedule(tmp_path):
    made = trainer(tmp_path, 1, "adams")
    other = torch.optim.AdamW(made.model.parameters())
    for parameter in made.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    other.step()
    made.create_optimizer()
    with pytest.warns(UserWarning, match="takes over"):
        made.optimizer.load_state_dict(other.state_dict())
    made.train()
    assert made.state.global_step == 1
