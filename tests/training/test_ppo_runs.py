"""Whole runs of PPO on the tiny model: with and without DeepSpeed, on one process and two, stopped and resumed."""

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from conftest import fork_command, run_command, run_processes, wait_until
from hits import without_costs
from safetensors.torch import load_file

from rl_posttrain.runs.directory import RunDirectory

RUNS = Path(__file__).with_name("ppo_runs.py")
# Two steps of two updates, in fp32, with completions that end at different lengths. The optimizer's eps is above most
# gradients: it divides none of the noise of rounding by itself.
EPS = "{name: adams, lr: 1.0e-2, eps: 1.0e-3}"
BASE = (
    "algorithm.name=ppo", "algorithm.num_steps=2", "algorithm.num_epochs=2", "model.dtype=float32",
    "rollout.engine=transformers", "rollout.max_new_tokens=16", f"optimizer={EPS}", f"critic.optimizer={EPS}",
    "checkpoint.every_steps=1", "checkpoint.keep=2",
)  # fmt: skip
PLAIN, SHARED = "distributed.engine=none", "critic.shared_backbone=true"
ONE_PROCESS = {
    "one": (PLAIN,),
    "one-shared": (PLAIN, SHARED),
    **{f"one-zero{stage}": (f"distributed.zero_stage={stage}",) for stage in range(4)},
    "mini-batches": (PLAIN, "algorithm.num_mini_batches=2"),
    "warm-up": ("distributed.zero_stage=2", "critic.warmup_steps=1"),
    "warm-up-shared": (PLAIN, SHARED, "critic.warmup_steps=1"),
    "kl-in-reward": (PLAIN, "algorithm.kl_coef=0.5"),
    "kl-in-loss": (PLAIN, "algorithm.kl_coef=0.5", "algorithm.kl_in=loss"),
    "no-groups": (PLAIN, "algorithm.group_size=1", "algorithm.prompts_per_step=16"),
}
TWO_PROCESSES = {
    "two": (PLAIN,),
    "two-zero2": ("distributed.zero_stage=2",),
    "two-zero3": ("distributed.zero_stage=3",),
    "two-shared-zero3": ("distributed.zero_stage=3", SHARED),
}


def run_all(recipe, cases, processes) -> dict[str, RunDirectory]:
    run_processes(RUNS, recipe, json.dumps({name: [*BASE, *case] for name, case in cases.items()}), processes=processes)
    return {name: RunDirectory.open(recipe.parent / "runs" / name) for name in cases}


@pytest.fixture(scope="module")
def one(tiny_recipe):
    return run_all(tiny_recipe, ONE_PROCESS, 1)


@pytest.fixture(scope="module")
def two(tiny_recipe):
    return run_all(tiny_recipe, TWO_PROCESSES, 2)


def weights(run: RunDirectory, step: int) -> dict[str, torch.Tensor]:
    """Of policy and critic after `step`, the critic's with a prefix."""
    folder = run.checkpoints_path / f"checkpoint-{step}"
    policy, critic = (load_file(folder / f"{name}.safetensors") for name in ("model", "critic"))
    head = policy.pop("lm_head.weight", None)  # tied: transformers writes it a second time under some stages
    assert head is None or torch.equal(head, policy["model.embed_tokens.weight"])
    return policy | {f"critic.{name}": tensor for name, tensor in critic.items()}


def furthest(run: RunDirectory, other: RunDirectory, step: int = 2, part: str = "") -> float:
    """The largest difference of a weight; of those whose name starts with `part`."""
    ours, theirs = weights(run, step), weights(other, step)
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours if name.startswith(part))


def is_healthy(run: RunDirectory, steps: int = 2) -> None:
    rows = run.metrics()
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    for row in rows:
        for name in ("loss", "value_loss", "explained_variance", "clip_share/value", "advantage_std", "return_mean"):
            assert math.isfinite(row[name]), name
        assert row["value_loss"] > 0


@pytest.mark.parametrize("name", ["one-zero0", "one-zero1", "one-zero2", "one-zero3"])
def test_every_stage_trains_policy_and_critic_as_plain_pytorch(one, name):
    is_healthy(one[name])
    assert furthest(one[name], one["one"]) < 1e-5


@pytest.mark.parametrize("name", TWO_PROCESSES)
def test_two_processes_train_policy_and_critic_as_one(one, two, name):
    alone = one["one-shared" if "shared" in name else "one"]
    for step in (1, 2):
        ours, theirs = (
            sorted((row["prompt"], row["completion"], row["advantage"]) for row in run.rollouts(step))
            for run in (two[name], alone)
        )
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]
        assert [row[2] for row in ours] == pytest.approx([row[2] for row in theirs], abs=1e-4)
    assert furthest(two[name], alone) < 1e-5
    for ours, theirs in zip(two[name].metrics(), alone.metrics(), strict=True):
        for key in ("value_loss", "explained_variance", "clip_share/value", "advantage_mean", "return_mean"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-4), key


def test_both_move_far_more_than_they_differ(one, tiny_model):
    before, after = load_file(tiny_model / "model.safetensors"), weights(one["one"], 2)
    assert max((after[name] - before[name].float()).abs().max() for name in before) > 1e-3
    first, second = weights(one["one"], 1), weights(one["one"], 2)
    for name in ("critic.head.weight", "critic.backbone.embed_tokens.weight", "model.embed_tokens.weight"):
        assert (second[name] - first[name]).abs().max() > 1e-3, name


def test_mini_batches_make_several_updates_and_one_row_a_step(one):
    run = one["mini-batches"]
    is_healthy(run)
    assert sorted(path.name for path in run.checkpoints_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    states = [json.loads((run.checkpoints_path / f"checkpoint-{n}/trainer_state.json").read_text()) for n in (1, 2)]
    assert [state["global_step"] for state in states] == [4, 8]  # 2 mini batches x 2 epochs
    assert all(len(run.rollouts(step)) == 16 for step in (1, 2))
    for row in run.metrics():
        assert 0 < row["clip_share/policy"] <= 1, "after the first update ratios differ from 1"
        assert 0 <= row["clip_share/value"] <= 1
    assert furthest(run, one["one"]) > 1e-3


@pytest.mark.parametrize("name", ["warm-up", "warm-up-shared"])
def test_the_critic_warms_up_while_the_policy_stays_bitwise(one, name, tiny_model):
    run, before = one[name], load_file(tiny_model / "model.safetensors")
    is_healthy(run)
    first, second = weights(run, 1), weights(run, 2)
    for key in before:
        assert torch.equal(first[key], before[key].float()), key
    assert max((second[key] - first[key]).abs().max() for key in before) > 1e-3
    assert (second["critic.head.weight"] - first["critic.head.weight"]).abs().max() > 1e-3
    # The critic of the first step is another than an untrained one: the second step's values differ.
    rows, plain = run.metrics(), one["one-shared" if "shared" in name else "one"].metrics()
    assert rows[0]["value_mean"] == pytest.approx(plain[0]["value_mean"], abs=1e-5)
    assert rows[1]["value_mean"] != pytest.approx(rows[0]["value_mean"], abs=1e-3)
    assert [row["lr"] for row in rows] == [0.0, 1e-2]
    assert [row["lr/critic"] for row in rows] == [1e-2, 1e-2]


def test_a_kl_penalty_holds_the_policy_from_reward_and_from_loss(one):
    plain = one["one"].metrics()
    for name in ("kl-in-reward", "kl-in-loss"):
        is_healthy(one[name])
        rows = one[name].metrics()
        # The mean over both updates of the step; k1, which the reward has, can be negative.
        assert all(abs(row["kl"]) > 1e-3 for row in rows)
        assert name == "kl-in-reward" or all(row["kl"] > 0 for row in rows)
        assert furthest(one[name], one["one"], part="model.") > 1e-4
    # In the reward it moves what the critic learns; before the first update there is no divergence to pay for.
    rewarded, lost = (one[name].metrics() for name in ("kl-in-reward", "kl-in-loss"))
    assert rewarded[0]["return_mean"] == pytest.approx(plain[0]["return_mean"], abs=1e-5)
    assert rewarded[1]["return_mean"] < rewarded[1]["reward"] - 1e-4
    assert lost[0]["return_mean"] == plain[0]["return_mean"]


def test_a_group_can_be_one_completion(one):
    is_healthy(one["no-groups"])
    for step in (1, 2):
        rollouts = one["no-groups"].rollouts(step)
        assert len({rollout["prompt"] for rollout in rollouts}) > 8
        assert any(abs(rollout["advantage"]) > 0.1 for rollout in rollouts)


def test_a_shared_backbone_has_one_set_of_weights(one):
    is_healthy(one["one-shared"])
    assert [name for name in weights(one["one-shared"], 2) if name.startswith("critic.")] == ["critic.head.weight"]


@pytest.mark.long
@pytest.mark.parametrize("stage", [2, 3])
def test_vllm_has_the_policys_weights_and_none_of_the_critics(tiny_recipe, stage):
    """After two steps on two processes, in bf16: each engine holds every weight of the policy, bit for bit."""
    name = f"vllm-zero{stage}"
    options = (f"distributed.zero_stage={stage}", "rollout.engine=vllm", "model.dtype=bfloat16")
    run = run_all(tiny_recipe, {name: options}, 2)[name]
    is_healthy(run)
    for rank in (0, 1):
        found = json.loads((run.path / f"engine-{rank}.json").read_text())
        assert found["equal"]
        assert found["names"] == 21  # the embedding and the head, the last norm, and nine of each of two layers
    assert all(0 <= row["sampling_logprob_difference"] < 0.05 for row in run.metrics())


@pytest.mark.parametrize(
    "engine",
    [PLAIN, pytest.param("distributed.zero_stage=2", marks=pytest.mark.long)],
    ids=["plain", "zero2"],
)
def test_a_killed_run_resumes_to_the_same_metrics_and_weights(tiny_recipe, engine):
    """Killed between checkpoints, with several updates a step; the critic and its optimizer's state come back."""
    options = [
        "algorithm.name=ppo", "algorithm.num_steps=5", "algorithm.num_mini_batches=2", "algorithm.num_epochs=2",
        "rollout.engine=transformers", "checkpoint.every_steps=2", "critic.warmup_steps=1", "rollout.max_new_tokens=16",
        "algorithm.kl_coef=0.1", "optimizer.schedule=linear", "critic.optimizer.lr=1.0e-3", engine,
    ]  # fmt: skip
    mark = engine.rpartition("=")[2]

    def arguments(name):
        return ["train", tiny_recipe, f"run.name={name}-{mark}", *options]

    whole = run_command(*arguments("ppo-whole"))
    assert whole.returncode == 0, whole.stderr
    folder = tiny_recipe.parent / "runs" / f"ppo-killed-{mark}"
    process, metrics = fork_command(*arguments("ppo-killed")), folder / "metrics.jsonl"
    wait_until(lambda: process.poll() is not None or (metrics.exists() and len(metrics.read_text().splitlines()) >= 3))
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = run_command(*arguments("ppo-killed"), "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr

    killed, whole = (RunDirectory.open(folder.with_name(f"ppo-{name}-{mark}")) for name in ("killed", "whole"))
    assert without_costs(killed.metrics()) == without_costs(whole.metrics())
    for step in range(1, 6):
        assert killed.rollouts(step) == whole.rollouts(step)
    for file in ("model.safetensors", "critic.safetensors"):
        ours, theirs = (run.last_checkpoint() / file for run in (killed, whole))
        assert ours.parent.name == theirs.parent.name
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.long
def test_adapters_of_policy_and_critic_are_the_same_under_every_engine(tiny_recipe):
    lora = ("model.lora.rank=4",)
    fsdp2 = "distributed={engine: fsdp2, zero_stage: null}"
    runs = run_all(tiny_recipe, {"lora-one": (PLAIN, *lora), "lora-one-fsdp2": (fsdp2, *lora)}, 1)
    two = {"lora-two-fsdp2": (fsdp2, *lora), "lora-two-zero2": ("distributed.zero_stage=2", *lora)}
    runs |= run_all(tiny_recipe, two, 2)

    def adapters(name: str, step: int) -> dict[str, torch.Tensor]:
        folder = runs[name].checkpoints_path / f"checkpoint-{step}"
        policy, critic = (load_file(folder / f"{file}.safetensors") for file in ("adapter_model", "critic"))
        return policy | {f"critic.{key}": tensor for key, tensor in critic.items()}

    first, alone = adapters("lora-one", 1), adapters("lora-one", 2)
    assert len(alone) == 2 * 28 + 1  # A and B of 14 layers in both, and a head
    assert max((alone[key] - first[key]).abs().max() for key in alone) > 1e-3
    for name in runs:
        is_healthy(runs[name])
        ours = adapters(name, 2)
        assert ours.keys() == alone.keys()
        assert max((ours[key] - alone[key]).abs().max() for key in ours) < 1e-5, name
