"""What tests share: a tiny Llama with a character tokenizer, saved to a folder, and a recipe that trains it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rl_posttrain.cli import main as cli
from rl_posttrain.machine import process

# In-process engines stand in this process: its variables are set as a run sets them, before torch is imported.
process.prepare_process(verbose=False)

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random 2-layer Llama of about 0.1 M parameters with tied embeddings, as save_pretrained writes it."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<pad>": 1, "<eos>": 2}
    vocabulary |= {character: number for number, character in enumerate(CHARACTERS, start=len(vocabulary))}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    characters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=1,
        # Logits far enough apart that a change of weights shows in the log-probabilities.
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_model, tmp_path_factory) -> Path:
    """A recipe file that trains the tiny model for three short steps; its reward pays for completions with digits."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "digits.py").write_text(
        "def digit_share(completions, **kwargs):\n"
        "    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]\n"
    )
    recipe = {
        "run": {"seed": 0, "output_dir": str(folder / "runs")},
        "model": {"name": str(tiny_model), "dtype": "bfloat16"},
        "task": {"name": "arithmetic", "template": "qa", "operators": ["+"], "num_train": 64, "num_eval": 8},
        "rewards": [{"fn": f"{folder / 'digits.py'}:digit_share"}, {"fn": "math_accuracy", "weight": 0.5}],
        "algorithm": {
            "num_steps": 3,
            "prompts_per_step": 4,
            "group_size": 4,
            "micro_batch_size": 4,
            "loss": "dr_grpo",
        },
        "optimizer": {"name": "adams", "lr": 1e-3},
        "rollout": {"engine": "vllm", "max_new_tokens": 8},
        "distributed": {"engine": "deepspeed", "zero_stage": 2},
        "checkpoint": {"every_steps": 0, "final_model": False},
        "logging": {"trackers": [], "print_samples": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="session")
def make_trainer(tmp_path_factory):
    """Makes the trainer of a recipe with all of its parts, as `train` does, in this process and not trained."""
    from rl_posttrain.recipe.resolve import resolve
    from rl_posttrain.recipe.sizes import derive_sizes
    from rl_posttrain.runs.directory import RunDirectory
    from rl_posttrain.scoring.rewards import build_rewards
    from rl_posttrain.training.display import NoDisplay
    from rl_posttrain.training.train import build_trainer

    def make_trainer(recipe):
        specs = resolve(recipe)
        rows = specs.task.make_rows(recipe.algorithm.prompts_per_step)
        rewards = build_rewards(specs.rewards, list(rows.train[0]))
        run = RunDirectory.create(tmp_path_factory.mktemp("trainer") / "run", recipe_yaml=recipe.to_yaml())
        sizes, model = derive_sizes(recipe, 1), recipe.model.name
        return build_trainer(recipe, specs, sizes, rows, rewards, model, run, NoDisplay())

    return make_trainer


@pytest.fixture
def run_main(capfd, monkeypatch):
    """Call the entry point in this process, which spares the imports; status, standard output, standard error."""

    def run_main(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rl-posttrain", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capfd.readouterr()

    return run_main


def command(*arguments: str | Path, processes: int = 1) -> list[str]:
    """The command line that runs rl-posttrain with this Python, by torchrun for several processes."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    return [*start, "rl_posttrain", *map(str, arguments)]


def run_command(*arguments: str | Path, processes: int = 1, timeout_s: float = 600, **variables: str):
    """Run rl-posttrain as a user does, in a process of its own and without this process's rendezvous."""
    return subprocess.run(
        command(*arguments, processes=processes),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=clean_environment(**variables),
    )


def run_processes(script: str | Path, *arguments: str | Path, processes: int, timeout_s: float = 600) -> str:
    """Run a script under torchrun; what it prints. One thread to a process: a product's last bits hang on that."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*start, *map(str, (script, *arguments))],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=clean_environment(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment, less what `prepare_process` put there for engines in this process."""
    ours = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        "HF_HUB_OFFLINE": "1",
        **variables,
    }
