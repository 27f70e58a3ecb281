"""Swapping the optimizer of real trainers, each for a step on a tiny model."""

import datasets
import peft
import pytest
import torch
import transformers
import trl
from conftest import run_python
from linear_model import SOURCE

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim import SCALE, AdamS, use_optimizer
from rl_posttrain.optim.swap import check_optimizer

COMMON = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "bf16": False,
}


KINDS = ("Trainer", "SFT", "DPO", "GRPO", "RLOO", "Reward")


def make_trainer(kind, model_path, folder):
    common = {**COMMON, "output_dir": str(folder)}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    chosen = {"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}
    rows = datasets.Dataset.from_list([chosen] * 4)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    if kind == "Trainer":
        ids = tokenizer(["1 + 1 = 2"] * 4)["input_ids"]
        rows = datasets.Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])
        return transformers.Trainer(model, transformers.TrainingArguments(**common), train_dataset=rows)
    if kind == "SFT":
        rows = datasets.Dataset.from_list([{"text": "1 + 1 = 2"}] * 4)
        return trl.SFTTrainer(model, args=trl.SFTConfig(**common), train_dataset=rows, processing_class=tokenizer)
    if kind == "DPO":
        return trl.DPOTrainer(model, args=trl.DPOConfig(**common), train_dataset=rows, processing_class=tokenizer)
    if kind == "Reward":
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            model_path, num_labels=1, dtype=torch.float32
        )
        rows = datasets.Dataset.from_list([{"chosen": "1 + 1 = 2", "rejected": "1 + 1 = 3"}] * 4)
        return trl.RewardTrainer(model, args=trl.RewardConfig(**common), train_dataset=rows, processing_class=tokenizer)
    trainer, config = {"GRPO": (trl.GRPOTrainer, trl.GRPOConfig), "RLOO": (trl.RLOOTrainer, trl.RLOOConfig)}[kind]

    def lengths(completions, **kwargs):
        # Never all the same, so that there is always something to learn.
        return [float(len(text) + place) for place, text in enumerate(completions)]

    return trainer(
        model,
        reward_funcs=[lengths],
        args=config(**common, num_generations=2, max_completion_length=4),
        train_dataset=rows.select_columns(["prompt"]),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, "adams") for kind in KINDS), *((kind, "scale") for kind in ("Trainer", "GRPO"))]
)
def test_every_trainer_runs_what_was_asked_for(kind, name, tiny_model, tmp_path):
    cls, options = {"adams": (AdamS, {"betas": (0.8, 0.9)}), "scale": (SCALE, {})}[name]
    trainer = make_trainer(kind, tiny_model, tmp_path)
    use_optimizer(trainer, name, **options)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    running = trainer.optimizer.optimizer
    assert type(running) is cls
    assert running.param_groups[0]["initial_lr"] == 1e-3
    assert all(running.param_groups[0][key] == value for key, value in options.items())
    assert any(not torch.equal(before[name], parameter) for name, parameter in trainer.model.named_parameters())
    with pytest.raises(RecipeError, match=rf"{type(trainer).__name__} has (AdamS|SCALE) already; call use_opt"):
        use_optimizer(trainer, "adams")


@pytest.mark.parametrize(("name", "cls"), [("adams", AdamS), ("scale", SCALE)])
def test_adapters_of_a_model_in_8_bit(name, cls, tiny_model, tmp_path):
    """`pip install bitsandbytes` runs it; the set-up leaves it out, as it speaks up in every command that loads TRL."""
    pytest.importorskip("bitsandbytes")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_model, quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
    )
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM"))
    args = transformers.TrainingArguments(**COMMON, output_dir=str(tmp_path), optim="adamw_8bit")
    trainer = transformers.Trainer(
        model, args, train_dataset=make_trainer("Trainer", tiny_model, tmp_path).train_dataset
    )
    use_optimizer(trainer, name)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    assert type(trainer.optimizer.optimizer) is cls
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved
    assert all("lora" in name for name in moved)


def test_what_was_put_in_is_logged_once_when_training_begins(tiny_model, tmp_path, caplog):
    trainer = make_trainer("SFT", tiny_model, tmp_path)
    use_optimizer(trainer, "adams", betas=(0.8, 0.9), weight_decay=0.1, lr_by_role={"embeddings": 1e-4})
    assert caplog.messages == []
    trainer.train()
    # Two layers: 4 projections of 64 x 64 or 32 x 64, and 3 of 64 x 128; 5 norms of 64; a tied embedding of 128 x 64.
    matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    logged = [(record.name, record.message) for record in caplog.records if record.name.startswith("rl_posttrain")]
    assert logged == [
        (
            "rl_posttrain",
            "optimizer adams (rl_posttrain.optim.adams.AdamS, betas=(0.8, 0.9)); "
            f"matrices: {matrices:,} parameters, lr 0.001, weight decay 0.1; "
            "embeddings: 8,192 parameters, lr 0.0001, weight decay 0.1; "
            "norms: 320 parameters, lr 0.001, weight decay 0",
        )
    ]


SCRIPT = (
    SOURCE
    + """
import sys
from transformers import Trainer, TrainingArguments
from rl_posttrain.optim import use_optimizer
rows = [ROW] * 4
args = TrainingArguments(sys.argv[1], max_steps=2, use_cpu=True, report_to="none", save_strategy="no")
trainer = Trainer(Model(), args, train_dataset=rows)
use_optimizer(trainer, "adams", weight_decay=0.1)
trainer.train()
"""
)


def test_a_script_that_sets_up_no_logging_shows_the_line(tmp_path):
    done = run_python("-c", SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "optimizer adams" in line)
    assert line == (
        "rl_posttrain: optimizer adams (rl_posttrain.optim.adams.AdamS); matrices: 6 parameters, lr 5e-05, "
        "weight decay 0.1; biases: 3 parameters, lr 5e-05, weight decay 0"
    )


def test_an_optimizer_that_a_framework_put_in_its_place_is_an_error(tiny_model, tmp_path):
    trainer = make_trainer("Trainer", tiny_model, tmp_path)
    use_optimizer(trainer, "adams")
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters())
    with pytest.raises(EngineError, match=r"AdamS was asked for, but torch.optim.sgd.SGD runs"):
        trainer.train()


def test_options_are_checked_before_training(tiny_model, tmp_path):
    trainer = make_trainer("Trainer", tiny_model, tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'betas'"):
        use_optimizer(trainer, "adams", bets=(0.9, 0.9))
    with pytest.raises(RecipeError, match="did you mean 'adams'"):
        use_optimizer(trainer, "adms")


def test_a_class_is_not_its_child():
    class Child(AdamS):
        pass

    with pytest.raises(EngineError):
        check_optimizer(Child([torch.nn.Parameter(torch.zeros(1))]), AdamS)
