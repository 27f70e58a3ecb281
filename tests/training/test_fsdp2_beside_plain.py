"""The same recipes under FSDP2 and under plain PyTorch, on two processes each: same completions, weights to rounding.

In fp32, where rounding changes no token of these small models.
"""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_command
from hits import without_costs
from safetensors.torch import load_file
from test_training import train

from rl_posttrain.runs.directory import RunDirectory

pytestmark = pytest.mark.long

FSDP2 = "distributed={engine: fsdp2, zero_stage: null}"
PLAIN = "distributed.engine=none"
OPTIONS = (
    "rollout.engine=transformers", "model.dtype=float32", "checkpoint.final_model=true", "algorithm.kl_coef=0.05",
    "optimizer.lr=1.0e-3", "checkpoint.every_steps=1", "checkpoint.keep=9",
)  # fmt: skip
CASES = {
    "accumulation": ("algorithm.micro_batch_size=2", "model.gradient_checkpointing=true"),
    "updates": ("algorithm.num_mini_batches=2", "algorithm.num_epochs=2", "optimizer.schedule=linear"),
    "ppo": ("algorithm.name=ppo", "algorithm.num_mini_batches=2", "critic.optimizer.lr=1.0e-3"),
    "adamw": ("optimizer.name=adamw",),
    # Norms of whole columns, which no process has.
    "scale": ("optimizer={name: scale, lr: 1.0e-3, vector_lr: 1.0e-4}",),
    "skip": ("algorithm.zero_variance_groups=skip",),
}


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    found = load_file(run.final_model_path / "model.safetensors")
    critic = run.last_checkpoint() / "critic.safetensors"
    return found | (load_file(critic) if critic.exists() else {})


def check_near(ours: RunDirectory, theirs: RunDirectory) -> None:
    for own, other in zip(ours.metrics(), theirs.metrics(), strict=True):
        assert own["reward"] == other["reward"]
        assert own["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert own["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert own["update_norm"] == pytest.approx(other["update_norm"], rel=1e-3)
    for step in (1, 2, 3):
        assert [each["completion"] for each in ours.rollouts(step)] == [
            each["completion"] for each in theirs.rollouts(step)
        ]
    found, expected = weights(ours), weights(theirs)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        off = (found[name] - weight).abs()
        if name.endswith("c_attn.bias"):  # attention does not change with the keys' bias: its gradient is rounding
            query, _, value = off.chunk(3)
            off = torch.cat([query, value])
        assert off.max() <= 2e-5, name


@pytest.mark.parametrize("case", CASES)
def test_the_same_run_as_under_plain_pytorch(tiny_recipe, case):
    options = (*OPTIONS, *CASES[case])
    runs = [train(tiny_recipe, f"{name}-{case}", *options, engine, processes=2)
            for name, engine in (("fsdp2", FSDP2), ("plain", PLAIN))]  # fmt: skip
    check_near(*runs)


def test_a_gpt2_with_tied_embeddings_and_transposed_matrices(tiny_recipe, tiny_model, tmp_path):
    """With vLLM, which must have each weight to the bit."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = shutil.copytree(tiny_model, tmp_path / "tiny-gpt2")
    for file in (*folder.glob("*.safetensors"), folder / "config.json", folder / "generation_config.json"):
        file.unlink()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=128, n_embd=64, n_layer=2, n_head=2, n_positions=512, initializer_range=0.2, resid_pdrop=0,
        embd_pdrop=0, attn_pdrop=0, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    options = (*OPTIONS, f"model.name={folder}", "rollout.engine=vllm", "run.deterministic=true")
    runs = [train(tiny_recipe, f"{name}-gpt2", *options, engine, processes=2)
            for name, engine in (("fsdp2", FSDP2), ("plain", PLAIN))]  # fmt: skip
    check_near(*runs)
    assert all(row["checked_weights_share"] > 0 for row in runs[0].metrics())


def test_two_deterministic_runs_are_bitwise_equal(tiny_recipe):
    options = (*OPTIONS, FSDP2, "run.deterministic=true")
    one, two = (train(tiny_recipe, f"fsdp2-same-{number}", *options, processes=2) for number in "ab")
    assert without_costs(one.metrics()) == without_costs(two.metrics())
    model = Path("model.safetensors")
    assert (one.final_model_path / model).read_bytes() == (two.final_model_path / model).read_bytes()


def test_a_run_goes_from_one_process_to_two_and_back(tiny_recipe):
    whole = train(tiny_recipe, "fsdp2-one", *OPTIONS, FSDP2, "algorithm.num_steps=6")
    for processes, steps in ((1, 2), (2, 4), (1, 6)):
        options = (*OPTIONS, FSDP2, f"algorithm.num_steps={steps}", "run.name=fsdp2-moved")
        done = run_command("train", tiny_recipe, *options, "--auto-resume", processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
    moved = RunDirectory.open(whole.path.with_name("fsdp2-moved"))
    for step in range(1, 7):
        ours, theirs = ([each["completion"] for each in run.rollouts(step)] for run in (moved, whole))
        assert ours == theirs
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(moved)[name], weight, atol=2e-5, rtol=0, msg=name)
    assert without_costs(moved.metrics()[:2]) == without_costs(whole.metrics()[:2])
