"""What tests share: a tiny Llama with a character tokenizer, saved to a folder, and a recipe that trains it."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import forks
import hypothesis
import pytest
import yaml

from rl_posttrain.cli import main as cli
from rl_posttrain.machine import process

# A shell that starts this in the background ignores Ctrl-C for it, and nohup SIGHUP. Tested commands would, too.
for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# What `prepare_process`, and DeepSpeed after it, put into the environment for engines in this process.
PREPARED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")

# Several processes of tests share the cores. Threads that wait for a core of another process's spin, and slow both.
SHARE = {}
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    SHARE = {"OMP_NUM_THREADS": str(max(1, cores))}
    for name in PREPARED:  # of the process that started this one: two must not listen on one port
        os.environ.pop(name, None)
    os.environ |= SHARE

# In-process engines stand in this process: its variables are set as a run sets them, before torch is imported.
process.prepare_process(verbose=False)

pytest.register_assert_rewrite("served")

# The same examples each time, on however slow a machine.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

# Far longer than anything takes that a test waits for.
HANG_S = 600

# Their tests start engines and processes, the first ones most.
ROOMS_OF_SLOW_TESTS = ("training", "rollout", "study")

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often tests/training/test_kills.py kills each engine")
    parser.addoption("--kill-seed", type=int, default=0, help="decides where it kills")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest files come first, so that none of them is left over for one process when the others are done."""
    if hasattr(config, "workerinput"):
        rooms = dict.fromkeys([*ROOMS_OF_SLOW_TESTS, *(item.path.parent.name for item in items)])
        order = {room: number for number, room in enumerate(rooms)}
        items.sort(key=lambda item: order[item.path.parent.name])


def pytest_collection_finish(session: pytest.Session) -> None:
    """The process that forks imports what it needs while the first tests run."""
    if len(session.items) > 500:
        forks.start()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Garbage collections need not look at what earlier files of tests imported: a sixth of the time went there."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


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
    from rl_posttrain.machine.signals import Stop
    from rl_posttrain.recipe.resolve import resolve
    from rl_posttrain.recipe.sizes import derive_sizes
    from rl_posttrain.runs.directory import RunDirectory
    from rl_posttrain.scoring.rewards import build_rewards
    from rl_posttrain.training.algorithms.algorithm import make_algorithm
    from rl_posttrain.training.display import NoDisplay
    from rl_posttrain.training.train import build_trainer

    def make_trainer(recipe):
        specs = resolve(recipe)
        rows = specs.task.make_rows(recipe.algorithm.prompts_per_step)
        rewards = build_rewards(specs.rewards, list(rows.train[0]), rows.parts)
        run = RunDirectory.create(tmp_path_factory.mktemp("trainer") / "run", recipe_yaml=recipe.to_yaml())
        sizes, model = derive_sizes(recipe, 1), recipe.model.name
        algorithm = make_algorithm(recipe)
        return build_trainer(recipe, specs, algorithm, sizes, rows, rewards, model, run, NoDisplay(), Stop())

    return make_trainer


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and a cache of its own, as far as datasets is concerned."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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
    return [*_python(processes), "-m", "rl_posttrain", *map(str, arguments)]


def run_command(*arguments: str | Path, processes: int = 1, fresh: bool = False, **variables: str):
    """Run rl-posttrain in processes of its own, without this process's rendezvous.

    Args:
        fresh: start Python, or torchrun, as a user does. Otherwise the imports are there at once (forks.py).
    """
    if fresh:
        return _run_fresh(command(*arguments, processes=processes), clean_environment(**variables))
    return _run_forks(["-m", "rl_posttrain", *arguments], clean_environment(**variables), processes)


def run_python(*arguments: str | Path, processes: int = 1, **variables: str):
    """Run what would follow `python` on a command line: `-c` and code, `-m` and a module, or a script."""
    return _run_forks(list(arguments), clean_environment(**variables), processes)


def run_processes(*arguments: str | Path, processes: int) -> str:
    """Run a script, or `-m` and a module, in several processes, as under torchrun; what it prints.

    One thread to a process: a product's last bits hang on that.
    """
    environment = clean_environment(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    done = _run_forks(list(arguments), environment, processes, launched=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_ranks(*argv: str | Path, processes: int, **variables: str) -> list[tuple[int, str, str]]:
    """Run what would follow `python` in several processes, as a launcher that ends none of them: each one's end.

    Returns:
        By rank the exit status, negative for a signal; the standard output; the standard error.
    """
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    started = []
    try:
        for rank in _as_torchrun_tells(processes):
            with (folder / f"{len(started)}.out").open("w") as out, (folder / f"{len(started)}.err").open("w") as err:
                started.append(_fork(argv, {**rank, **clean_environment(**variables)}, out, err))
        wait_until(lambda: all(fork.poll() is not None for fork in started))
        said = [[(folder / f"{rank}.{end}").read_text() for end in ("out", "err")] for rank in range(processes)]
        return [(fork.returncode, *texts) for fork, texts in zip(started, said, strict=True)]
    finally:
        for fork in started:
            fork.kill()
            fork.wait()
        shutil.rmtree(folder)


def fork_command(*arguments: str | Path) -> forks.Fork:
    """Start rl-posttrain without waiting for it; what it prints is lost."""
    with open(os.devnull, "w") as nowhere:
        return _fork(["-m", "rl_posttrain", *arguments], clean_environment(), nowhere, nowhere)


def _fork(argv: Sequence[str | Path], environment: Mapping[str, str], stdout: IO, stderr: IO) -> forks.Fork:
    return forks.Fork(list(map(str, argv)), {**SHARE, **environment}, stdout, stderr)


def _python(processes: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else [])]


def _run_fresh(command_line: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    limit_s = 3 * HANG_S * slowness()
    return subprocess.run(command_line, capture_output=True, text=True, env=environment, timeout=limit_s)


def _run_forks(
    argv: list[str | Path], environment: dict[str, str], processes: int, *, launched: bool = False
) -> subprocess.CompletedProcess:
    """Run the same in every process; when one fails, the others are ended."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        ranks = _as_torchrun_tells(processes) if launched or processes > 1 else [{}]
        started = [_fork(argv, {**rank, **environment}, stdout, stderr) for rank in ranks]
        try:
            wait_until(lambda: None not in (found := [fork.poll() for fork in started]) or any(found))
            status = next((fork.returncode for fork in started if fork.returncode), 0)
        finally:
            for fork in started:
                fork.kill()
                fork.wait()
        stdout.seek(0), stderr.seek(0)
        return subprocess.CompletedProcess(argv, status, stdout.read(), stderr.read())


def _as_torchrun_tells(processes: int) -> list[dict[str, str]]:
    """The variables that torchrun sets for each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment, less what `prepare_process` put there for engines in this process."""
    return {name: value for name, value in os.environ.items() if name not in PREPARED} | {
        "HF_HUB_OFFLINE": "1",
        **variables,
    }


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what has to happen, however slow the machine is, and no longer than for a test that hangs."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        assert waited < HANG_S or waited < HANG_S * slowness(), "it hangs"
        time.sleep(0.01)


def wait_until_shared_memory_is_as(before: set[str]) -> None:
    """Wait until nothing is in /dev/shm that is there now and was not `before`.

    Other tests run at the same time. What is theirs goes when they end; what nobody removes stays, and this fails.
    """
    new = set(os.listdir("/dev/shm")) - before
    wait_until(lambda: not new & set(os.listdir("/dev/shm")))


def slowness() -> float:
    """How many times as long as usual this machine takes just now, 1 or more, by a loop of 50 ms on a usual one.

    Whatever a test waits for takes longer on a slow or busy machine: time limits are multiplied by this.
    """
    started, total = time.perf_counter(), 0
    for number in range(500_000):
        total += number * number % 7
    return max(1.0, (time.perf_counter() - started) / 0.05)
