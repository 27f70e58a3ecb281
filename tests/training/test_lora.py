"""LoRA on real runs: under every engine, into vLLM, resumed, exported, evaluated."""

import importlib.util
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import run_command, run_processes, run_python
from hits import HIT, runs_folder, without_costs
from lora_runs import ENGINES, TOKENS
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from rl_posttrain.cost.check import check_recipe
from rl_posttrain.errors import RunError
from rl_posttrain.models.export import export_model
from rl_posttrain.models.quantized import FourBits, rounded_to_4_bits
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.adapters import four_bits, with_adapters
from rl_posttrain.training.backends.backend import make_backend
from rl_posttrain.training.before_update import known_before_update
from rl_posttrain.training.lora import save_adapter, whole_weights

RUNS = Path(__file__).with_name("lora_runs.py")
QUICK = ("plain-fp32", "zero3", "fsdp2", "plain-nf4-ppo-fp32")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in ENGINES]


@pytest.fixture(scope="module")
def made(tiny_recipe, tmp_path_factory):
    """Runs of lora_runs.py by name: the quick ones together, others when they are asked for."""
    folder = tmp_path_factory.mktemp("lora-runs")

    def made(name: str) -> RunDirectory:
        if "nf4" in name:
            pytest.importorskip("bitsandbytes")
        if not (folder / name).exists():
            quick = [one for one in QUICK if "nf4" not in one or importlib.util.find_spec("bitsandbytes")]
            run_processes(RUNS, tiny_recipe, folder, ",".join(quick) if name in QUICK else name, processes=2)
        return RunDirectory.open(folder / name)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_adapters_alone_are_trained_and_no_update_of_them_is_rounded_away(made, name):
    facts = json.loads((made(name).path / "facts.json").read_text())
    base = "torch.float32" if "fp32" in name else "torch.bfloat16"
    assert facts["frozen"] == [base, *(["torch.uint8"] if "nf4" in name else [])]
    assert facts["adapters"] == ["torch.float32" if "plain" in name or "fsdp2" in name else base]
    assert facts["with_gradients"] == 0
    assert facts["stepped"] in (["torch.float32"], [])  # ZeRO-3 empties the groups after its step
    assert facts["state"] == ["torch.float32"]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_engine_gets_is_the_final_model_bit_for_bit_and_the_same_each_time(made, name, tiny_model):
    run = made(name)
    sent, final = torch.load(run.path / "last.pt")["weights"], load_file(run.final_model_path / "model.safetensors")
    base = load_file(tiny_model / "model.safetensors")
    assert json.loads((run.path / "facts.json").read_text())["same_again"]
    assert sent.keys() == final.keys() == base.keys()
    for key in sent:
        assert torch.equal(sent[key], final[key]), key
        changed = (final[key] != base[key].to(final[key].dtype)).float().mean()
        assert changed > 0.2 if "proj" in key else changed == 0, key


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_export_gives_the_trainers_logits(made, name, tmp_path):
    run = made(name)
    of_trainer = torch.load(run.path / "last.pt")["logits"].float()
    model = AutoModelForCausalLM.from_pretrained(export_model(run, tmp_path / "model", step=4).folder)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled="plain" in name and "fp32" not in name):
        logits = model(torch.tensor(TOKENS)).logits.float()
        base = AutoModelForCausalLM.from_pretrained(run.recipe()["model"]["name"])(torch.tensor(TOKENS)).logits.float()
    # In bf16 the sum is rounded once when it is merged, and the trainer rounds between the two products.
    limit = 1e-4 if "fp32" in name else 0.3
    assert (logits - of_trainer).abs().max() < limit
    assert (base - of_trainer).abs().max() > 10 * limit


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_same_run(made, name):
    run = made(name)
    resumed = RunDirectory.open(run.path.with_name(f"{name}-resumed"))
    assert without_costs(resumed.metrics()) == without_costs(run.metrics())
    for step in (3, 4):
        assert resumed.rollouts(step) == run.rollouts(step)
    critic = ["checkpoint-4/critic.safetensors"] if "ppo" in name else []
    for path in ("final/model.safetensors", "checkpoint-4/adapter_model.safetensors", *critic):
        assert (resumed.checkpoints_path / path).read_bytes() == (run.checkpoints_path / path).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_guard_goes_back_to_the_adapters_of_a_checkpoint(made, name, tmp_path):
    run = made(name)
    last, there = torch.load(run.path / "last.pt"), export_model(run, tmp_path / "model", step=2).folder
    for key, tensor in load_file(there / "model.safetensors").items():
        assert torch.equal(last["rolled_back"][key], tensor), key
        assert torch.equal(last["rolled_back"][key], last["weights"][key]) == ("proj" not in key)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_of_a_kl_penalty_is_the_policy_without_its_adapters(made, name):
    run = made(name)
    assert not json.loads((run.path / "facts.json").read_text())["reference_model"]
    penalties = [row["kl"] for row in run.metrics()]
    assert penalties[0] == pytest.approx(0, abs=1e-6)  # B begins as zero
    assert penalties[-1] > 0.01


IN_4_BITS = [param for param in NAMES if "nf4" in param.values[0]]
PPO = [param for param in NAMES if "ppo" in param.values[0]]


@pytest.mark.parametrize("name", IN_4_BITS)
def test_the_engine_gets_the_weights_in_4_bits_as_numbers_and_the_adapters_on_top(made, name, tiny_model):
    run = made(name)
    lora = run.recipe()["model"]["lora"]
    sent = torch.load(run.path / "last.pt")["weights"]
    adapters = load_file(run.checkpoints_path / "checkpoint-4" / "adapter_model.safetensors")
    dtype = getattr(torch, run.recipe()["model"]["dtype"])
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    rounded_to_4_bits(base, {key.removesuffix(".weight") for key in sent if "proj" in key}, FourBits.of_recipe(lora))
    for key in (key for key in sent if "proj" in key):
        a, b = (adapters[f"base_model.model.{key.removesuffix('weight')}lora_{part}.weight"].float() for part in "AB")
        wanted = (base.get_parameter(key).float() + 2.0 * (b @ a)).to(dtype)
        torch.testing.assert_close(sent[key], wanted, rtol=0, atol=0 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("name", PPO)
def test_a_critic_has_adapters_of_its_own_that_are_trained_and_saved_alone(made, name, tiny_model):
    run = made(name)
    saved = [load_file(run.checkpoints_path / f"checkpoint-{step}" / "critic.safetensors") for step in (2, 4)]
    if "shared" in name:  # it is a head on the policy's adapted layers
        assert set(saved[0]) == {"head.weight"}
    else:
        assert {key.rpartition(".lora_")[1] for key in saved[0]} == {".lora_", ""}
        assert sum("lora_" not in key for key in saved[0]) == 1  # the head
    assert all(not torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
    assert not [
        key for key in load_file(run.checkpoints_path / "checkpoint-4" / "adapter_model.safetensors") if "critic" in key
    ]


def test_weights_that_4_bits_round_otherwise_here_are_not_exported(made, tmp_path):
    run = RunDirectory.open(shutil.copytree(made("plain-nf4-ppo-fp32").path, tmp_path / "changed"))
    run.write_environment(run.environment() | {"initial_weights_sha256": "0" * 64})
    with pytest.raises(RunError, match="in 4 bits its base model has other weights here than in the run"):
        export_model(run, tmp_path / "model", step=2)
    assert not (tmp_path / "model").exists()


def test_checkpoints_hold_adapters_and_nothing_of_the_base_model(made, tiny_model):
    checkpoint = made("zero3").checkpoints_path / "checkpoint-2"
    whole = (tiny_model / "model.safetensors").stat().st_size
    assert not list(checkpoint.rglob("model*.safetensors"))
    assert sum(file.stat().st_size for file in checkpoint.rglob("*.safetensors")) < whole / 5
    (states,) = checkpoint.rglob("*rank_0_mp_rank_00_model_states.pt")
    saved = torch.load(states, weights_only=False)["module"]
    # DeepSpeed takes the second name of a tied weight for one that is trained; under ZeRO-3 it has no values.
    others = {name: tensor for name, tensor in saved.items() if "lora_" not in name}
    assert len(saved) > len(others)
    assert [(name.rpartition(".model.")[2], tensor.numel()) for name, tensor in others.items()] == [
        ("lm_head.weight", 0)
    ]


def test_an_exported_adapter_on_its_base_model_is_the_merged_model(made, tmp_path):
    run = made("plain-fp32")
    folder = export_model(run, tmp_path / "adapter", adapter=True).folder
    assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    base = AutoModelForCausalLM.from_pretrained(run.recipe()["model"]["name"], dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(run.final_model_path)
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base, folder)(torch.tensor(TOKENS)).logits
        torch.testing.assert_close(logits, merged(torch.tensor(TOKENS)).logits, rtol=1e-4, atol=1e-4)
    card = (folder / "README.md").read_text()
    assert "| LoRA | rank `4`, alpha `8.0`" in card
    assert "PeftModel.from_pretrained" in card


ADAPTERS = ("model.lora.rank=4", "optimizer.lr=0.03")


def test_vllm_gets_the_merged_weights_and_checkpoints_are_evaluated(tiny_recipe, tmp_path):
    options = ("checkpoint.every_steps=2", "checkpoint.keep=2", "checkpoint.final_model=true", "eval.every_steps=3")
    done = run_command("train", tiny_recipe, "run.name=lora-vllm", *ADAPTERS, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDirectory.open(runs_folder(tiny_recipe) / "lora-vllm")
    rows = run.metrics()
    assert all(row["checked_weights_share"] == 1 and row["sampling_logprob_difference"] < 0.08 for row in rows)
    assert "eval/accuracy" in rows[-1]
    checkpoint = run.checkpoints_path / "checkpoint-2"
    done = run_command(
        "eval", checkpoint, run.path, "--task", "arithmetic", "--num-questions", "4", "--max-new-tokens", "4",
        "--engine", "transformers", "--out", tmp_path / "results",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def gpt2(tiny_model, tmp_path_factory) -> Path:
    """A tiny GPT-2, whose layers have weights (inputs, outputs) and dropout."""
    config = GPT2Config(
        vocab_size=128, n_embd=64, n_layer=2, n_head=2, n_positions=512, bos_token_id=2, eos_token_id=2, pad_token_id=1,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model / name, folder / name)
    return folder


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_gpt2s_layers_are_merged_in_the_form_of_its_checkpoint(tiny_recipe, gpt2, quantize):
    if quantize:
        pytest.importorskip("bitsandbytes")
    lora = LoraSection(rank=4, quantize=quantize)
    config = four_bits(lora).config("float32") if quantize else None
    policy = AutoModelForCausalLM.from_pretrained(gpt2, dtype=torch.float32, quantization_config=config)
    policy = with_adapters(policy, lora, fp32=True).eval()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    recipe = load_recipe(tiny_recipe, ["distributed.engine=none"])
    merged = dict(whole_weights(policy, make_backend(recipe, derive_sizes(recipe, 1))))
    plain = GPT2LMHeadModel.from_pretrained(gpt2, dtype=torch.float32)
    assert merged.keys() == dict(plain.named_parameters()).keys()
    with torch.no_grad():
        before = plain.eval()(torch.tensor(TOKENS)).logits
        for name, parameter in plain.named_parameters():
            parameter.copy_(merged[name])
        logits = plain(torch.tensor(TOKENS)).logits
        torch.testing.assert_close(logits, policy(torch.tensor(TOKENS)).logits, rtol=1e-3, atol=1e-3)
    assert (logits - before).abs().max() > 0.1


@pytest.mark.long
def test_a_killed_run_with_dropout_checkpointing_and_keep_best_goes_on_as_the_same_run(tiny_recipe):
    options = (
        *ADAPTERS, "distributed.engine=none", "rollout.engine=transformers", "algorithm.num_steps=4",
        "checkpoint.every_steps=1", "checkpoint.keep=4", "checkpoint.keep_best.metric=reward",
        "checkpoint.final_model=true", "algorithm.kl_coef=0.05", "model.lora.dropout=0.1",
        "model.gradient_checkpointing=true", "algorithm.num_epochs=2",
    )  # fmt: skip
    names = ["lora-whole", "lora-killed"]
    whole = run_command("train", tiny_recipe, f"run.name={names[0]}", *options)
    assert whole.returncode == 0, whole.stderr
    score = ("rl_posttrain.training.rollouts", "score", "3", str(int(signal.SIGKILL)))
    killed = run_python("-c", HIT, *score, "train", tiny_recipe, f"run.name={names[1]}", *options)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_command("train", tiny_recipe, f"run.name={names[1]}", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    one, other = (RunDirectory.open(runs_folder(tiny_recipe) / name) for name in names)
    assert without_costs(one.metrics()) == without_costs(other.metrics())
    assert one.best() == other.best()
    final = "checkpoints/final/model.safetensors"
    assert (one.path / final).read_bytes() == (other.path / final).read_bytes()


IN_VLLM = """
import sys, json
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

base, adapter, merged, to = sys.argv[1:]
prompts = ["Q: What is 7 + 3?\\nA:", "Q: What is 12 + 5?\\nA:"]
sampling = SamplingParams(temperature=0, max_tokens=8, logprobs=0)
options = {"dtype": "float32", "enforce_eager": True, "max_model_len": 64, "max_num_seqs": 2}

def draw(llm, **more):
    outputs = [output.outputs[0] for output in llm.generate(prompts, sampling, use_tqdm=False, **more)]
    return [[[token, step[token].logprob] for token, step in zip(o.token_ids, o.logprobs)] for o in outputs]

llm = LLM(base, enable_lora=True, max_lora_rank=8, **options)
found = {"adapter": draw(llm, lora_request=LoRARequest("policy", 1, adapter)), "base": draw(llm)}
del llm
found["merged"] = draw(LLM(merged, **options))
open(to, "w").write(json.dumps(found))
"""


@pytest.mark.long
def test_vllms_own_lora_gives_saved_adapters_the_merged_models_tokens(tiny_recipe, tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    policy = with_adapters(model, LoraSection(rank=4, alpha=8), fp32=True)
    torch.manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapter, merged = tmp_path / "adapter", shutil.copytree(tiny_model, tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    save_adapter(policy, tokenizer, str(adapter))
    recipe = load_recipe(tiny_recipe, ["distributed.engine=none"])
    weights = whole_weights(policy, make_backend(recipe, derive_sizes(recipe, 1)))
    save_file({name: tensor.contiguous() for name, tensor in weights}, merged / "model.safetensors", {"format": "pt"})
    done = run_python("-c", IN_VLLM, tiny_model, adapter, merged, tmp_path / "found.json", VLLM_CPU_KVCACHE_SPACE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    tokens = {kind: [[token for token, _ in one] for one in drawn] for kind, drawn in found.items()}
    assert tokens["adapter"] == tokens["merged"] != tokens["base"]
    for one, other in zip(found["adapter"], found["merged"], strict=True):
        assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in other], abs=1e-3)


WITHOUT_ADAPTERS = """
from rl_posttrain.rollout.vllm import VLLMEngine
whole, first = VLLMEngine.load_weights, {}
def base_model(self, weights):
    # As in verl #7495: the engine is told to load, and gets the weights that it had.
    whole(self, ((name, first.setdefault(name, tensor.clone())) for name, tensor in weights))
VLLMEngine.load_weights = base_model
from rl_posttrain.cli.main import main
main()
"""


def test_adapters_that_never_reach_the_engine_fail_the_run(tiny_recipe):
    done = run_python("-c", WITHOUT_ADAPTERS, "train", tiny_recipe, "run.name=lora-lost", *ADAPTERS)
    assert done.returncode == 2, done.stdout + done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert "at step 2 the engine samples from stale or wrong weights" in message
    assert "_proj.weight" in message


def test_adapters_of_a_base_model_that_was_changed_are_not_merged(made, tmp_path):
    run = RunDirectory.open(shutil.copytree(made("plain-fp32").path, tmp_path / "changed"))
    inputs = json.loads((run.path / "inputs.json").read_text())
    inputs["files"]["model"]["model.safetensors"]["crc32"][0] = "00000000"
    (run.path / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(RunError, match=r"its model\.safetensors was changed since .* began"):
        export_model(run, tmp_path / "model", step=2)
    assert not (tmp_path / "model").exists()


def test_layers_that_cannot_have_adapters_are_named_before_weights_are_loaded(tiny_recipe, run_main):
    for target, reason in {
        "q_prj": "peft refuses it",
        "lm_head": "log-probabilities are computed from the output layer's own weight",
        "embed_tokens": "model.embed_tokens is of the kind Embedding",
    }.items():
        status, _, error = run_main("check", tiny_recipe, f"model.lora.target_modules=[{target}]")
        assert status == 2
        assert f"model.lora.target_modules=['{target}']: {reason}" in error
        assert error.count("\n") == 1


def test_check_counts_gradients_and_state_of_adapters_alone(tiny_recipe):
    whole, lora = (
        check_recipe(load_recipe(tiny_recipe, overrides), 1)
        for overrides in ([], ["model.lora.rank=4", "algorithm.kl_coef=0.1"])
    )
    assert lora["num_parameters"] == whole["num_parameters"]
    (group,) = lora["optimizer_groups"]
    # Of each of two layers: q, k, v, o, gate, up, down, each with rank 4 times its inputs and outputs.
    assert group["num_parameters"] == 2 * 4 * (128 + 96 + 96 + 128 + 3 * 192)
    memory = lora["memory_bytes"]
    # Gradients of several micro batches are summed in fp32.
    assert memory["gradients"] == memory["masters"] == memory["optimizer_state"] == 4 * group["num_parameters"]
    assert memory["reference_model"] == 0
    assert memory["rollout_weights"] == whole["memory_bytes"]["rollout_weights"]


def test_what_is_sampled_and_compared_with_is_the_policy_without_dropout(tiny_recipe, make_trainer):
    options = ("distributed.engine=none", "rollout.engine=transformers", "model.lora={rank: 4, dropout: 0.5}")
    trainer = make_trainer(load_recipe(tiny_recipe, options))
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # zero at first, where dropout changes nothing
            torch.nn.init.normal_(parameter, std=0.1)
    trainer.model.train()
    ids = torch.tensor(TOKENS)
    batch = {"prompt_ids": ids[:, :4], "completion_ids": ids[:, 4:]}
    batch |= {"prompt_mask": torch.ones(2, 4).long(), "completion_mask": torch.ones(2, 4).long()}
    known = [known_before_update(trainer, batch, needs_values=False, needs_logprobs=True) for _ in range(2)]
    one, other = (found["old_per_token_logps"] for found in known)
    assert torch.equal(one, other)
    assert trainer.model.training
    with torch.no_grad():
        with_dropout = trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 4, 2)[0]
    assert (with_dropout - one).abs().max() > 0.01
    with trainer.policy.whole_model() as model:
        assert not any(module.training for module in model.modules())
    assert trainer.model.training
