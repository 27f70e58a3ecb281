"""Every name of the table in real training: it learns, goes on from a checkpoint, and runs from a recipe."""

import importlib
import json

import datasets
import pytest
import torch
import transformers
from conftest import run_command, run_python

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import OPTIMIZERS, build_optimizer, use_optimizer
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.optim.table import ABOUT

# What suits ten steps of the tiny model; its hidden matrices are 64 x 64, 32 x 64 and 64 x 128.
OPTIONS = {
    "sgd": {"lr": 0.1},
    "galore": {"rank": 16, "update_proj_gap": 3},
    "fira": {"rank": 16, "update_proj_gap": 3},
    "apollo": {"rank": 16, "update_proj_gap": 3},
}
LOW_RANK = ("galore", "fira", "apollo")
WHOLE_MATRICES = ("muon", "adam_mini", *LOW_RANK)


def make_trainer(model_path, folder, name, num_steps=10):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    ids = tokenizer(["1 + 1 = 2", "2 + 2 = 4"])["input_ids"]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        per_device_train_batch_size=2,
        learning_rate=3e-3,
        weight_decay=0.01,
        warmup_steps=2,
        lr_scheduler_type="constant_with_warmup",
        logging_steps=1,
        save_steps=5,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    trainer = transformers.Trainer(
        transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32),
        arguments,
        train_dataset=datasets.Dataset.from_list([{"input_ids": row, "labels": row} for row in ids]),
    )
    use_optimizer(trainer, name, **OPTIONS.get(name, {}))
    return trainer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_a_batch_and_goes_on_from_a_checkpoint_exactly(name, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, name)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 10
    assert losses[-1] < 0.9 * losses[0], losses
    module, _, cls = OPTIMIZERS[name].rpartition(":")
    assert type(running_optimizer(trainer.optimizer)) is getattr(importlib.import_module(module), cls)
    resumed = make_trainer(tiny_model, tmp_path, name)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    for ours, theirs in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def stepped(name, tiny_model, **options):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    options = {key: value for key, value in OPTIONS.get(name, {}).items() if key != "lr"} | options
    optimizer = build_optimizer(model, name, lr=1e-3, **options)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return dict(model.named_parameters()), optimizer


@pytest.mark.parametrize("name", LOW_RANK)
def test_hidden_matrices_have_a_low_rank_state_and_the_others_a_whole_one(name, tiny_model):
    parameters, optimizer = stepped(name, tiny_model)
    for path, parameter in parameters.items():
        shapes = {tuple(optimizer.state[parameter][key].shape) for key in ("exp_avg", "exp_avg_sq")}
        if "proj" not in path:
            assert shapes == {tuple(parameter.shape)}
        else:  # along the longer side, as the papers have it
            tall = parameter.shape[0] >= parameter.shape[1]
            assert shapes == {(parameter.shape[0], 16) if tall else (16, parameter.shape[1])}
    parameters, optimizer = stepped(name, tiny_model, rank=32)  # k and v are 32 x 64: nothing to gain
    key, query = (parameters[f"model.layers.0.self_attn.{which}_proj.weight"] for which in "kq")
    assert optimizer.state[key]["exp_avg"].shape == key.shape
    assert optimizer.state[query]["exp_avg"].shape == (64, 32)
    with pytest.raises(RecipeError, match=r"refuses the model \(ValueError: Invalid rank: 64; .* is 64 or less\)"):
        stepped(name, tiny_model, rank=64)


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_step_without_any_gradient_changes_nothing_and_spoils_no_later_one(name, tiny_model):
    """GRPO makes one where all completions are as good as each other, and DeepSpeed before it trains."""
    parameters, optimizer = stepped(name, tiny_model)
    query = parameters["model.layers.0.self_attn.q_proj.weight"]
    gradient = query.grad.clone()
    after = {path: parameter.detach().clone() for path, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(parameter, after[path]) for path, parameter in parameters.items())
    query.grad = gradient
    optimizer.step()
    assert (query - after["model.layers.0.self_attn.q_proj.weight"]).abs().mean() > 1e-5


def test_adam_mini_has_a_second_moment_for_each_head_and_row(tiny_model):
    parameters, optimizer = stepped("adam_mini", tiny_model)
    held = {path: optimizer.state[parameter]["vmean"].numel() for path, parameter in parameters.items()}
    layer = "model.layers.1."
    assert held[f"{layer}self_attn.q_proj.weight"] == 2
    assert held[f"{layer}self_attn.k_proj.weight"] == 1
    assert held[f"{layer}mlp.up_proj.weight"] == 128
    assert held["model.embed_tokens.weight"] == 128
    assert held["model.norm.weight"] == 1


def test_adam_mini_takes_heads_of_any_width_and_refuses_what_has_none():
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen3Config(**sizes, **heads, head_dim=16)
    model = transformers.Qwen3ForCausalLM(config)
    optimizer = build_optimizer(model, "adam_mini", lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    attention = model.model.layers[0].self_attn
    assert optimizer.state[attention.q_proj.weight]["vmean"].numel() == 2
    assert optimizer.state[attention.k_proj.weight]["vmean"].numel() == 1
    mixture = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes, **heads, num_local_experts=2, num_experts_per_tok=1)
    )
    with pytest.raises(RecipeError, match=r"experts.*Adam-mini has no rule for it"):
        build_optimizer(mixture, "adam_mini", lr=1e-3)


def test_each_runs_from_a_recipe_under_deepspeed(tiny_recipe):
    """In one process, one run after another; in bf16 DeepSpeed's ZeRO-0 steps on fp32 masters."""
    runs = [("lion", "zero_stage=2"), *((name, "zero_stage=0") for name in WHOLE_MATRICES)]
    options = {name: OPTIONS.get(name, {}) for name, _ in runs}
    script = f"""
import json
from rl_posttrain import load_recipe, train
from rl_posttrain.training.loop import PolicyTrainer
from rl_posttrain.optim.swap import running_optimizer
whole = PolicyTrainer.log
def log(self, logs, start_time=None):
    if "loss" in logs:
        inner = running_optimizer(self.optimizer)
        dtypes = {{str(p.dtype) for group in inner.param_groups for p in group["params"]}}
        print("FOUND", type(inner).__name__, *dtypes, logs["grad_norm"] > 0, flush=True)
    whole(self, logs, start_time)
PolicyTrainer.log = log
for name, engine in {runs!r}:
    section = json.dumps({{"name": name, "lr": 1e-3, **{options!r}[name]}})
    train(load_recipe({str(tiny_recipe)!r}, [f"run.name={{name}}-{{engine[-1]}}", "algorithm.num_steps=1",
          f"distributed.{{engine}}", "rollout.engine=transformers", f"optimizer={{section}}"]))
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("FOUND")]
    classes = {name: OPTIMIZERS[name].rpartition(":")[2] for name, _ in runs}
    assert found == [[classes[name], "torch.float32", "True"] for name, _ in runs]


def test_the_list_names_class_package_and_what_each_is():
    rows = json.loads(run_command("optim", "list", "--json").stdout)
    assert {name: row["class"] for name, row in rows.items()} == OPTIMIZERS
    extra = {name for name, row in rows.items() if row["package"] not in ("torch", "rl_posttrain")}
    assert extra == {"lion", "adam_mini", "galore", "fira"}
    assert all(row["installed"] and row["about"] == ABOUT[name] for name, row in rows.items())
    shown = run_command("optim", "list").stdout
    assert "pytorch_optimizer:Lion" in shown
    assert "not under ZeRO-1 to 3" in shown
