"""Weights of the engine, compared with the policy's after each sync: stale ones are found at any learning rate."""

import json

import pytest
import torch
from conftest import run_processes, run_python
from transformers import AutoModelForCausalLM

from rl_posttrain.errors import WeightSyncError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.rollout import vllm_weights
from rl_posttrain.rollout.engine import Held
from rl_posttrain.rollout.vllm import VLLMEngine
from rl_posttrain.training.weight_check import WeightCheck, transposed_weights

STALE = """
from rl_posttrain.rollout.vllm import VLLMEngine
whole, calls = VLLMEngine.load_weights, []
def only_the_first_time(self, weights):
    calls.append(1)
    if len(calls) == 1:
        whole(self, weights)
VLLMEngine.load_weights = only_the_first_time
from rl_posttrain.cli.main import main
main()
"""


class Copy:
    """A small engine, which multiplies by a plain copy of the weights; `change` makes it another one."""

    shares_weights = False

    def __init__(self, dtype=torch.bfloat16, change=lambda name, weight: weight):
        self.held, self.dtype, self.change = {}, dtype, change

    def load_weights(self, weights):
        for name, weight in weights:
            self.held[name] = self.change(name, weight.clone()).to(self.dtype)

    def fingerprint(self, columns):
        for name, wanted in columns.items():
            if (weight := self.held[name]) is not None:
                yield Held(name, name.removesuffix(".weight"), weight if wanted is None else weight[:, list(wanted)])


@pytest.fixture
def check():
    return checks()[0]


def checks(number=1, transposed=()):
    notes = []
    found = [
        WeightCheck(load_recipe("quickstart"), lambda values: values, notes.append, transposed) for _ in range(number)
    ]
    for one in found:
        one.notes = notes
    return found


def policy(num_layers=4):
    torch.manual_seed(0)
    weights = {
        "embed.weight": torch.randn(300, 64),
        "norm.weight": torch.ones(64),
        "lm_head.weight": torch.randn(300, 64),
    }
    for layer in range(num_layers):
        weights |= {f"layers.{layer}.proj.weight": torch.randn(1024, 64), f"layers.{layer}.norm.bias": torch.randn(64)}
    return weights


def test_a_sync_that_arrives_is_silent_in_any_dtype(check):
    weights = policy()
    for dtype in (torch.bfloat16, torch.float32):
        engine = Copy(dtype)
        for step in range(1, 6):
            check.sync(engine, iter(weights.items()), step)
            weights["layers.0.proj.weight"] += 0.01
    assert check.share == 1.0
    assert check.notes == []


@pytest.mark.parametrize("name", policy())
def test_one_weight_that_stays_behind_is_named_within_as_many_steps_as_there_are_layers(check, name):
    weights, old = policy(), policy()[name]
    engine = Copy(change=lambda one, weight: old if one == name else weight)
    check.sync(engine, iter(weights.items()), 1)
    weights[name] = weights[name] * 1.01 + 0.01
    seen = []
    for step in range(2, 6):
        try:
            check.sync(engine, iter(weights.items()), step)
        except WeightSyncError as error:
            seen.append(str(error))
            at = step
    assert len(seen) == (1 if "layers" in name else 4)
    assert f"at step {at} the engine samples from stale or wrong weights: {name} differs" in seen[-1]
    assert "and 0 of " in seen[-1]


def test_the_number_of_values_is_that_of_the_columns_looked_at(check):
    weights = policy()
    engine = Copy(change=lambda name, weight: weight + (name == "norm.weight") * torch.eye(64)[3])
    with pytest.raises(
        WeightSyncError, match=r"norm\.weight differs from the policy's in 1 of the 64 values looked at"
    ):
        check.sync(engine, iter(weights.items()), 1)


def test_an_engine_that_does_not_walk_the_weights_is_stale_and_lets_nobody_wait(check):
    weights, walked = policy(), []
    engine = Copy()
    check.sync(engine, iter(weights.items()), 1)
    engine.load_weights = lambda given: next(given)

    def walk():
        for name, weight in weights.items():
            walked.append(name)
            yield name, weight + 0.1

    with pytest.raises(WeightSyncError, match="stale"):
        check.sync(engine, walk(), 2)
    assert walked == list(weights)


def test_every_process_raises_what_one_of_them_found():
    whole, broken = checks(2)
    said = []
    broken._gather = lambda values: said.extend(values) or values
    with pytest.raises(WeightSyncError):
        broken.sync(Copy(change=lambda name, weight: weight + 1), iter(policy().items()), 1)
    whole._gather = lambda values: [*values, *said]
    with pytest.raises(WeightSyncError, match=r"embed\.weight differs"):
        whole.sync(Copy(), iter(policy().items()), 1)


def test_what_cannot_be_read_back_is_said_once_and_not_counted(check):
    weights = policy() | {"layers.0.experts": torch.randn(4, 8, 8), "layers.1.odd.weight": torch.randn(64, 64)}
    # Rows in an order of the engine's own, as loaders make it that sort heads, and a whole kind that it cannot read.
    engine = Copy(change=lambda name, weight: weight.flip(0) if name == "layers.1.odd.weight" else weight)
    for step in range(1, 4):
        check.sync(engine, iter(weights.items()), step)
    total = sum(weight.numel() for weight in weights.values())
    assert check.share == pytest.approx(1 - (4 * 8 * 8 + 64 * 64) / total)
    assert len(check.notes) == 1
    assert "layers.0.experts and 1 others" in check.notes[0]


def test_numbers_of_the_engine_that_are_nan_differ_from_the_policys(check):
    spoil = torch.zeros(300, 64)
    spoil[7] = torch.nan  # of its 64 columns 54 are looked at
    engine = Copy(change=lambda name, weight: weight + spoil if name == "embed.weight" else weight)
    with pytest.raises(WeightSyncError, match=r"embed\.weight differs from the policy's in 54 of the 16200 values"):
        check.sync(engine, iter(policy().items()), 1)


def test_a_weight_that_can_no_longer_be_read_back_ends_the_run(check):
    weights, engine = policy(), Copy()
    check.sync(engine, iter(weights.items()), 1)
    engine.change = lambda name, weight: weight.flip(0) if name == "embed.weight" else weight
    with pytest.raises(WeightSyncError, match=r"at step 2 the engine's embed\.weight .*cannot be read back any more"):
        check.sync(engine, iter(weights.items()), 2)


def test_a_single_wrong_column_of_a_wide_matrix_is_met_by_other_columns_in_other_steps(check):
    weights = {"norm.weight": torch.ones(64), "lm_head.weight": torch.randn(2048, 64)}  # 8 of its 64 columns a step
    wrong = torch.zeros(64)
    wrong[13] = 1.0
    engine = Copy(change=lambda name, weight: weight + wrong if weight.dim() == 2 else weight)
    seen = 0
    for step in range(1, 101):
        try:
            check.sync(engine, iter(weights.items()), step)
        except WeightSyncError:
            seen += 1
    assert 4 <= seen <= 24  # 12.5 on average, 3.3 standard deviations from 0.125 of 100


def test_matrices_of_gpt2_are_compared_along_their_inputs():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50, n_positions=16))
    names = transposed_weights(model)
    assert "transformer.h.0.attn.c_attn.weight" in names
    assert "transformer.wte.weight" not in names
    (check,) = checks(transposed=names)
    check.sync(
        Copy(torch.float32, lambda name, weight: weight.t() if name in names else weight), model.named_parameters(), 1
    )
    assert check.share == 1.0


def test_a_weight_that_is_no_number_does_not_blame_the_sync(tiny_model, engine, check):
    """0 * nan is nan, so that a kernel gives it for the whole row."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.model.layers[0].mlp.up_proj.weight.data[3, 5] = float("nan")
    for step in range(1, 4):
        check.sync(engine, model.named_parameters(), step)


@pytest.fixture(scope="module")
def engine(tiny_model):
    options = {"max_tokens_per_sequence": 64, "max_sequences": 4, "kv_cache_bytes": 1, "gpu_memory_share": 0.2}
    return VLLMEngine(str(tiny_model), dtype="bfloat16", seed=0, **options)


@pytest.mark.parametrize("stays", ["whole", "head"])
def test_vllms_weights_and_the_packed_head_are_compared(tiny_model, engine, check, monkeypatch, stays):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    names = [name for name, _ in model.named_parameters()]
    for step in range(1, 4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.02)
        check.sync(engine, model.named_parameters(), step)
    assert check.share == 1.0
    held = {name: weight for name, weight in model.named_parameters()}
    read = {(found.name, found.place): found.values for found in engine.fingerprint(dict.fromkeys(names, None))}
    assert torch.equal(read["model.norm.weight", "model.norm"].cpu(), held["model.norm.weight"].data)
    for parameter in model.parameters():
        parameter.data.mul_(1.02)
    if stays == "whole":
        monkeypatch.setattr(VLLMEngine, "load_weights", lambda self, weights: None)
        said = "differs"
    elif torch.cuda.is_available():
        return
    else:
        monkeypatch.setattr(vllm_weights, "_repack_tied_head", lambda model: None)
        said = (
            r"model\.embed_tokens\.weight, in its lm_head, differs from the policy's in \d+ of the \d+ values .* 0 of"
        )
    with pytest.raises(WeightSyncError, match=said):
        check.sync(engine, model.named_parameters(), 4)


@pytest.mark.parametrize(
    ("recipe", "step"),
    [("tiny", 2), pytest.param("quickstart", 2, marks=pytest.mark.long)],
)
def test_a_stale_engine_fails_at_its_first_step_at_a_rate_of_1e_6(tiny_recipe, tmp_path, recipe, step):
    file = tiny_recipe if recipe == "tiny" else "quickstart"
    overrides = ["optimizer.lr=1e-6", f"run.output_dir={tmp_path}", "run.name=stale", "algorithm.num_steps=4"]
    done = run_python("-c", STALE, "train", file, *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert f"at step {step} the engine samples from stale or wrong weights" in line
    rows = [json.loads(row) for row in (tmp_path / "stale/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]
    assert rows[0]["checked_weights_share"] == 1.0


def test_under_zero3_one_stale_process_of_two_ends_both(tiny_recipe, tmp_path):
    script = tmp_path / "stale.py"
    script.write_text(
        "import os, sys\n"
        f"sys.argv[1:] = ['train', {str(tiny_recipe)!r}, 'optimizer.lr=1e-6', 'run.output_dir={tmp_path}',\n"
        "    'run.name=stale', 'distributed.zero_stage=3']\n"
        "from rl_posttrain.machine import process\nprocess.prepare_process(verbose=False)\n"
        "from rl_posttrain.errors import WeightSyncError\n"
        "from rl_posttrain.recipe.load import load_recipe\nfrom rl_posttrain.training.train import train\n"
        "from rl_posttrain.rollout.vllm import VLLMEngine\n"
        "whole, calls = VLLMEngine.load_weights, []\n"
        "def load(self, weights):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1 or os.environ['RANK'] == '0':\n        whole(self, weights)\n"
        "VLLMEngine.load_weights = load\n"
        "try:\n    train(load_recipe(sys.argv[2], sys.argv[3:]))\n"
        "except WeightSyncError as error:\n    print(f\"rank {os.environ['RANK']}: {error}\", flush=True)\n"
    )
    said = run_processes(script, processes=2)
    for rank in range(2):
        assert f"rank {rank}: rollout.engine=vllm: at step 2 the engine samples from stale or wrong weights" in said
