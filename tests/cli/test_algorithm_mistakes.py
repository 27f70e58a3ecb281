"""Mistakes in algorithm and critic: the same line from `train`, `check` and `compare`, before there is a directory."""

import json
import os
import shutil

import pytest

OWN = """
from rl_posttrain.training.algorithms.algorithm import Advantages
class WithCritic:
    needs_critic = True
    def __init__(self, recipe): pass
    def advantages(self, scored): raise AssertionError
class NoHook:
    def __init__(self, recipe): pass
class Twice:
    def __init__(self, recipe): pass
    def advantages(self, scored): return Advantages(scored.totals().repeat(2))
class NoReturns:
    needs_critic = True
    def __init__(self, recipe): pass
    def advantages(self, scored): return Advantages(scored.values[:, :-1] * scored.mask)
"""


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """Code and models that a recipe can name."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "own.py").write_text(OWN)
    for name in ("wider", "reordered"):
        shutil.copytree(tiny_model, folder / name)
    config = json.loads((folder / "wider/config.json").read_text())
    (folder / "wider/config.json").write_text(json.dumps(config | {"vocab_size": 160}))
    tokenizer = json.loads((folder / "reordered/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "reordered/tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


PPO = "algorithm.name=ppo"
CASES = [
    ((PPO, "algorithm.zero_variance_groups=skip"), "algorithm.zero_variance_groups=skip: ppo trains its critic"),
    (("critic.gamma=0.9",), "critic.gamma=0.9: algorithm.name=grpo has no critic; remove the section"),
    (("critic={}",), "critic: algorithm.name=grpo has no critic; remove the section"),
    (("algorithm.name=rloo", "critic.warmup_steps=1"), "critic.warmup_steps=1: algorithm.name=rloo has no critic"),
    ((PPO, "algorithm.kl_in=loss", "algorithm.kl_estimator=k1"), "algorithm.kl_estimator=k1: in the loss its expected"),
    (("algorithm.num_mini_batches=3",), "algorithm.num_mini_batches=3: 16 completions a step do not divide into 3"),
    (
        (PPO, "algorithm.num_mini_batches=8"),
        "algorithm.micro_batch_size=4: 4 prompts x 4 completions = 16 a step, in 8 mini batches, do not divide",
    ),
    ((PPO, "algorithm.num_mini_batches=0"), "algorithm.num_mini_batches=0: it should be greater than 0"),
    ((PPO, "algorithm.num_epochs=0"), "algorithm.num_epochs=0: it should be greater than 0"),
    ((PPO, "critic.model=FOLDER/wider"), "critic.model=FOLDER/wider: its vocabulary has 160 tokens, and that of"),
    ((PPO, "critic.model=FOLDER/reordered"), "critic.model=FOLDER/reordered: its tokenizer has other tokens than"),
    ((PPO, "critic.model=FOLDER/gone"), "critic.model=FOLDER/gone: no such folder"),
    (
        (PPO, "critic.model=FOLDER/wider", "critic.shared_backbone=true"),
        "critic.model=FOLDER/wider: with critic.shared_backbone=true the critic has no model of its own",
    ),
    ((PPO, "critic.warmup_steps=3"), "critic.warmup_steps=3: the run has 3 steps, so the policy would never be"),
    (("algorithm.group_size=1",), "algorithm.group_size=1: grpo compares the completions of one prompt, so set 2"),
    (
        ("algorithm.name=rloo", "algorithm.group_size=1"),
        "algorithm.group_size=1: rloo compares the completions of one prompt, so set 2",
    ),
    (
        ("algorithm.name=reinforce_pp_baseline", "algorithm.group_size=1"),
        "algorithm.group_size=1: reinforce_pp_baseline compares the completions of one prompt, so set 2",
    ),
    ((PPO, "algorithm.scale_rewards=group"), "algorithm.scale_rewards=group: only grpo divides rewards"),
    (("algorithm.name=FOLDER/own.py:WithCritic",), "critic: missing; algorithm.name=FOLDER/own.py:WithCritic needs"),
    (("algorithm.name=FOLDER/own.py:NoHook",), "algorithm.name=FOLDER/own.py:NoHook: it has no method advantages"),
    (("algorithm.name=pp",), "algorithm.name=pp: no built-in of that name; did you mean 'ppo'?"),
    ((PPO, "critic.value_clip=0"), "critic.value_clip=0: it should be greater than 0"),
    ((PPO, "critic.gae_lambda=1.1"), "critic.gae_lambda=1.1: it should be less than or equal to 1"),
    ((PPO, "critic.gama=1"), "critic.gama=1: unknown key; did you mean 'gamma'?"),
    ((PPO, "critic.optimizer.name=adms"), "critic.optimizer.name=adms: no built-in of that name; did you mean 'adams'"),
    ((PPO, "critic.optimizer.nam=adams"), "critic.optimizer.nam=adams: AdamS takes no such argument; known: "),
    ((PPO, "critic.optimizer.lr=0"), "critic.optimizer.lr=0: it should be greater than 0"),
    ((PPO, "critic.optimizer.max_grad_norm=1"), "critic.optimizer.max_grad_norm=1: "),
    ((PPO, "critic.optimizer.name=muon"), "critic.optimizer.name=muon needs whole matrices, but distributed.zero_stag"),
    ((PPO, "trl.num_iterations=2"), "trl.num_iterations=2: the recipe decides this field itself; set algorithm.num_ep"),
    (
        (PPO, "trl.steps_per_generation=2"),
        "trl.steps_per_generation=2: the recipe decides this field itself; set algor",
    ),
    ((PPO, "trl.sync_ref_model=true"), "trl.sync_ref_model=True: TRL copies all weights of the policy's module"),
    ((PPO, "trl.lr_scheduler_kwargs={num_cycles: 2}"), "trl.lr_scheduler_kwargs={'num_cycles': 2}: the schedules of"),
    ((PPO, "trl.use_liger_kernel=true"), "trl.use_liger_kernel=True: the recipe decides this field itself"),
    (("trl.importance_sampling_level=word",), "trl.importance_sampling_level=word: TRL knows no such value; set one"),
    (
        ("algorithm.name=rloo", "trl.multi_objective_aggregation=normalize_then_sum"),
        "trl.multi_objective_aggregation=normalize_then_sum: only grpo reads it, and algorithm.name=rloo",
    ),
    ((PPO, "trl.beta=0.1"), "trl.beta=0.1: the recipe decides this field itself; set algorithm.kl_coef"),
]


@pytest.mark.parametrize("command", ["train", "check", "compare"])
@pytest.mark.parametrize(("overrides", "message"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_mistake_is_the_same_line_everywhere(run_main, tiny_recipe, folder, tmp_path, command, overrides, message):
    overrides, message = (
        [text.replace("FOLDER", str(folder)) for text in overrides],
        message.replace("FOLDER", str(folder)),
    )
    # Without DeepSpeed where the mistake allows it: loading that prints lines of its own.
    plain = () if "muon" in message else ("distributed.engine=none",)
    arguments = ["run.name=mistake", f"run.output_dir={tmp_path}/runs", *plain, *overrides]
    if command == "compare":
        arguments += ["--optimizers", "adams", "--seeds", "0", "--out", f"{tmp_path}/runs/compared"]
    status, _, stderr = run_main(command, tiny_recipe, *arguments)
    assert (status, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith(f"rl-posttrain: {message}")
    assert "; " in stderr, "a fix is missing"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("Twice",), "its advantages have the shape (32,); return those of this process's completions, (16,) or (16, "),
        (("NoReturns", "critic={}"), "its returns have the shape None, and the critic learns from (16, "),
    ],
)
def test_what_an_own_algorithm_returns_is_checked(run_main, tiny_recipe, folder, tmp_path, overrides, message):
    name, *others = overrides
    status, _, stderr = run_main(
        "train", tiny_recipe, "distributed.engine=none", "rollout.engine=transformers",
        f"run.output_dir={tmp_path}/runs", f"algorithm.name={folder}/own.py:{name}", *others,
    )  # fmt: skip
    assert status == 2
    assert stderr.splitlines()[-1].startswith(f"rl-posttrain: algorithm.name={folder}/own.py:{name}: {message}")
    assert list((tmp_path / "runs").iterdir()) == []


def test_mini_batches_that_do_not_divide_over_processes_say_which_do(run_main, tiny_recipe):
    """16 completions make 8 mini batches on one process, but not on 4 processes of micro batches of 1."""
    options = ("algorithm.name=ppo", "algorithm.num_mini_batches=8", "algorithm.micro_batch_size=1")
    assert run_main("check", tiny_recipe, *options, "--num-processes", "2", "--json")[0] == 0
    status, _, stderr = run_main("check", tiny_recipe, *options, "--num-processes", "4")
    assert status == 2
    assert stderr == (
        "rl-posttrain: algorithm.num_mini_batches=8: 16 completions a step do not divide into 8 mini batches on 4 "
        "processes; set num_mini_batches to one of [1, 2, 4]\n"
    )
