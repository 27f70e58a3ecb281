"""Exports of real runs: plain PyTorch and ZeRO on two processes; loaded by transformers and by vLLM."""

import json
import os
import shlex
import shutil
import stat
from pathlib import Path

import pytest
import torch
from conftest import run_processes, run_python
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rl_posttrain.errors import RunError
from rl_posttrain.models.export import export_model, write_final_model
from rl_posttrain.runs.directory import RunDirectory

ENGINES = {
    "plain": ["distributed.engine=none"],
    "plain-fp32": ["distributed.engine=none", "model.dtype=float32"],
    "zero0": ["distributed.zero_stage=0"],
    "zero2": ["distributed.zero_stage=2"],
    "zero3": ["distributed.zero_stage=3"],
    "fsdp2": ["distributed={engine: fsdp2, zero_stage: null}"],
}
TOKENS = [[7, 20, 33, 46, 59, 72, 85, 98], [3, 14, 15, 92, 65, 35, 89, 79]]

# Trains with each engine in turn, and keeps the logits of the trainer's own forward pass at the end.
TRAIN = """
import os, sys
import torch
from rl_posttrain import load_recipe, train
from rl_posttrain.training.loop import PolicyTrainer
from rl_posttrain.training.sharded_loop import ShardedTrainer
whole = {{kind: kind.save_model for kind in (PolicyTrainer, ShardedTrainer)}}
def save_model(self, output_dir=None, _internal_call=False):
    whole[type(self)](self, output_dir, _internal_call)
    if output_dir.endswith(".final"):
        self.model_wrapped.eval()
        with torch.no_grad(), self.accelerator.autocast():
            logits = self.model_wrapped(input_ids=torch.tensor({tokens})).logits
        if os.environ["RANK"] == "0":
            torch.save(logits, os.path.join(self.args.output_dir, "..", "logits.pt"))
PolicyTrainer.save_model = ShardedTrainer.save_model = save_model
for name, overrides in {engines}.items():
    train(load_recipe({recipe!r}, [f"run.name={{name}}", *overrides, *{common}]))
"""
COMMON = [
    "algorithm.num_steps=2", "checkpoint.every_steps=1", "checkpoint.keep=2", "checkpoint.final_model=true",
    "rollout.engine=transformers", "rollout.temperature=0.7", "rollout.top_p=0.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny_recipe, tmp_path_factory) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("exported-runs")
    script = folder / "train.py"
    common = [*COMMON, f"run.output_dir={folder}"]
    script.write_text(TRAIN.format(tokens=TOKENS, engines=ENGINES, recipe=str(tiny_recipe), common=common))
    run_processes(script, processes=2)
    return {name: RunDirectory.open(folder / name) for name in ENGINES}


@pytest.fixture
def run(runs, tmp_path) -> RunDirectory:
    """A copy to damage."""
    return RunDirectory.open(shutil.copytree(runs["zero3"].path, tmp_path / "zero3"))


@pytest.mark.parametrize("name", ENGINES)
def test_logits_are_the_trainers_own(runs, tmp_path, name):
    """In the arithmetic of the forward pass in training they differ by nothing but the order of sums."""
    exported = export_model(runs[name], tmp_path / "model")
    assert exported.dtype == ("float32" if "plain" in name else "bfloat16")
    model = AutoModelForCausalLM.from_pretrained(exported.folder)
    assert str(model.dtype) == f"torch.{exported.dtype}"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=name == "plain"):
        logits = model(torch.tensor(TOKENS)).logits
    of_trainer = torch.load(runs[name].path / "logits.pt")
    torch.testing.assert_close(logits.float(), of_trainer.float(), rtol=1e-5, atol=1e-5)
    # Each token's logits are far from those of the base model, so that the comparison can fail.
    base = AutoModelForCausalLM.from_pretrained(runs[name].recipe()["model"]["name"])
    moved = (base(torch.tensor(TOKENS)).logits.float() - of_trainer.float()).abs().max()
    assert moved > 0.01


# Loads each folder as `vllm serve` does, and prints the likeliest tokens and how it would sample.
ASK_VLLM = """
import json, sys
from rl_posttrain.machine.process import prepare_process
prepare_process(verbose=False)
from vllm import LLM, SamplingParams
prompt, *folders = sys.argv[1:]
engines = []  # one that is collected takes the process group with it
for folder in folders:
    llm = LLM(folder, dtype="float32", max_model_len=64, enforce_eager=True, disable_log_stats=True,
              distributed_executor_backend="external_launcher")
    engines.append(llm)
    greedy = SamplingParams(temperature=0, max_tokens=8)
    (output,) = llm.generate([prompt], sampling_params=greedy, use_tqdm=False)
    usual = llm.get_default_sampling_params()
    answer = {"tokens": list(output.outputs[0].token_ids), "usual": [usual.temperature, usual.top_p, usual.top_k]}
    print("ANSWER", json.dumps(answer), flush=True)
"""


def test_vllm_loads_it_and_says_what_transformers_says(runs, tmp_path):
    names, question = ("plain", "zero2", "zero3"), "Q: What is 3 + 4?\nA:"
    folders = [export_model(runs[name], tmp_path / name).folder for name in names]
    done = run_python("-c", ASK_VLLM, question, *folders, VLLM_CPU_KVCACHE_SPACE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    for folder, answer in zip(folders, answers, strict=True):
        prompt = AutoTokenizer.from_pretrained(folder)(question, return_tensors="pt")["input_ids"]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        said = model.generate(prompt, do_sample=False, max_new_tokens=8)[0, prompt.shape[1] :].tolist()
        assert answer == {"tokens": said, "usual": [0.7, 0.9, 0]}


def test_the_folder_has_the_model_and_nothing_else(runs, tmp_path):
    exported = export_model(runs["zero3"], tmp_path / "model")
    files = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert {file.name for file in exported.folder.iterdir()} == files | {"tokenizer.json", "tokenizer_config.json"}
    assert exported.num_bytes == sum(file.stat().st_size for file in exported.folder.iterdir())
    assert json.loads((exported.folder / "config.json").read_text())["use_cache"] is True
    config = GenerationConfig.from_pretrained(exported.folder)
    assert (config.eos_token_id, config.pad_token_id, config.do_sample) == ([2], 1, True)
    assert (config.temperature, config.top_p, config.top_k, config.repetition_penalty) == (0.7, 0.9, 0, None)
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in exported.folder.iterdir()} == {0o666 & ~umask}
    assert "lm_head.weight" not in load_file(exported.folder / "model.safetensors"), "it is tied to the embeddings"


def test_a_base_models_own_sampling_is_not_the_policys(run, tmp_path):
    final = run.final_model_path
    qwen = {"repetition_penalty": 1.1, "temperature": 0.6, "top_k": 20, "eos_token_id": [2], "pad_token_id": 1}
    (final / "generation_config.json").write_text(json.dumps({**qwen, "max_length": 77}))
    config = GenerationConfig.from_pretrained(export_model(run, tmp_path / "model").folder)
    assert (config.temperature, config.top_k, config.repetition_penalty, config.max_length) == (0.7, 0, None, None)


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_fp32_of_a_bf16_run_is_its_masters(runs, tmp_path, name):
    exported = export_model(runs[name], tmp_path / "masters", step=2, dtype="float32")
    assert (exported.dtype, exported.masters) == ("float32", True)
    masters = load_file(exported.folder / "model.safetensors")
    weights = load_file(export_model(runs[name], tmp_path / "model").folder / "model.safetensors")
    assert masters.keys() == weights.keys()
    assert all(tensor.dtype == torch.float32 for tensor in masters.values())
    assert all(torch.equal(masters[key].bfloat16(), weights[key]) for key in weights)
    assert any(not torch.equal(masters[key], weights[key].float()) for key in weights), "they say more than bf16 can"
    assert AutoModelForCausalLM.from_pretrained(exported.folder).dtype == torch.float32
    assert "float32, the fp32 masters" in (exported.folder / "README.md").read_text()


def test_a_run_in_fp32_can_be_rounded(runs, tmp_path):
    whole = load_file(export_model(runs["plain"], tmp_path / "whole").folder / "model.safetensors")
    rounded = export_model(runs["plain"], tmp_path / "rounded", dtype="bfloat16")
    assert (rounded.dtype, rounded.masters) == ("bfloat16", False)
    found = load_file(rounded.folder / "model.safetensors")
    assert all(torch.equal(found[key], whole[key].bfloat16()) for key in whole)
    assert AutoModelForCausalLM.from_pretrained(rounded.folder).dtype == torch.bfloat16


def test_the_default_is_the_final_model_then_the_newest_checkpoint(run, tmp_path):
    assert export_model(run, tmp_path / "a").source == run.final_model_path
    first = export_model(run, tmp_path / "b", step=1)
    assert (first.source.name, first.step) == ("checkpoint-1", 1)
    shutil.rmtree(run.final_model_path)
    (run.checkpoints_path / "checkpoint-3").mkdir()  # not whole
    assert export_model(run, tmp_path / "c").source.name == "checkpoint-2"
    (run.checkpoints_path / "best.json").write_text('{"step": 1, "metric": "reward", "value": 0.5}')
    assert export_model(run, tmp_path / "d", best=True).source.name == "checkpoint-1"


def cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def without_manifest(run: RunDirectory) -> None:
    (run.checkpoints_path / "checkpoint-2" / "complete").write_bytes(b"")
    (run.checkpoints_path / "checkpoint-2" / "metrics.jsonl").unlink()


SHARD = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
MISTAKES = {
    "no such step": (lambda run: None, {"step": 7}, "--step=7: .* no whole checkpoint of step 7; it has 1, 2"),
    "no best": (lambda run: None, {"best": True}, "--best: .* kept no best checkpoint"),
    "two steps": (lambda run: None, {"best": True, "step": 1}, "--step=1: --best names a step too"),
    "no such dtype": (lambda run: None, {"dtype": "int8"}, "--dtype=int8: an export has bfloat16 or float32"),
    "no masters": (
        lambda run: shutil.rmtree(run.checkpoints_path / "checkpoint-2"),
        {"step": 2, "dtype": "float32"},
        "--dtype=float32: .*final has bf16 weights and no fp32 masters",
    ),
    "cut masters": (
        lambda run: cut(run.checkpoints_path / "checkpoint-2/global_step2", SHARD),
        {"step": 2, "dtype": "float32"},
        f"checkpoint-2: global_step2/{SHARD} has .* bytes and not .*; the checkpoint is damaged",
    ),
    "cut masters of a checkpoint from before manifests": (
        lambda run: (cut(run.checkpoints_path / "checkpoint-2/global_step2", SHARD), without_manifest(run)),
        {"step": 2, "dtype": "float32"},
        "checkpoint-2: its shards cannot be read .* they are damaged",
    ),
    "nothing": (
        lambda run: shutil.rmtree(run.checkpoints_path),
        {},
        "no final model and no whole checkpoint; train with checkpoint.final_model=true",
    ),
    "cut weights": (lambda run: cut(run.final_model_path, "model.safetensors"), {}, "model.safetensors: .* is damaged"),
    "cut config": (lambda run: cut(run.final_model_path, "config.json"), {}, "config.json: not a JSON object"),
    "no tokenizer": (
        lambda run: (run.final_model_path / "tokenizer_config.json").unlink(),
        {},
        "tokenizer_config.json: there is no such file; the folder is damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing_behind(run, tmp_path, mistake):
    damage, options, said = MISTAKES[mistake]
    damage(run)
    with pytest.raises(RunError, match=said) as error:
        export_model(run, tmp_path / "out" / "model", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_that_has_something_stays_as_it_is(run, tmp_path):
    for path in (tmp_path / "taken", tmp_path / "file"):
        if path.name == "taken":
            path.mkdir()
        (path / "notes" if path.is_dir() else path).write_text("mine")
        with pytest.raises(RunError, match=r"--to=.*: it exists and is not an empty folder; name another"):
            export_model(run, path)
    assert [file.read_text() for file in (tmp_path / "taken").iterdir()] == ["mine"]
    with pytest.raises(RunError, match=r"--to=.*: no possible folder"):
        export_model(run, tmp_path / ("a" * 5000))
    with pytest.raises(RunError, match=r"--to=.*file/model: cannot write it: .*; name another folder"):
        export_model(run, tmp_path / "file" / "model")
    (tmp_path / "empty").mkdir()
    assert export_model(run, tmp_path / "empty").folder == tmp_path / "empty"


def test_the_critic_stays_behind(run, tmp_path):
    checkpoint = run.checkpoints_path / "checkpoint-2"
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "critic.safetensors")
    folder = export_model(run, tmp_path / "model", step=2).folder
    assert not (folder / "critic.safetensors").exists()
    before = {file.name: file.read_bytes() for file in run.final_model_path.iterdir()}
    write_final_model(run, checkpoint, 2)
    assert {file.name: file.read_bytes() for file in run.final_model_path.iterdir()} == before


def test_the_command(run, tmp_path, run_main):
    status, stdout, stderr = run_main("export", run.path, "--to", tmp_path / "my model", "--step", "1")
    assert (status, stderr) == (0, "")
    assert f"{tmp_path}/my model: step 1, bfloat16, 0 MiB" in stdout
    lines = [line.removeprefix("  ") for line in stdout.splitlines()]
    ask = lines[lines.index("from transformers import pipeline") :][:3]
    done = run_python("-c", "\n".join(ask))
    assert done.returncode == 0, done.stderr
    program, *arguments = shlex.split(lines[-1])
    assert arguments[-1] == f"{tmp_path}/my model"
    if program == "python":
        done = run_python(*arguments[:2], "--help")
        assert (done.returncode, "--served-model-name" in done.stdout) == (0, True), done.stderr[-500:]
    status, _, stderr = run_main("export", run.path, "--to", tmp_path / "other", "--step", "9")
    assert (status, stderr.count("\n")) == (2, 1)
