"""`rl-posttrain optim run`: how programs are found, started, interrupted and judged; TRL's own scripts, for real."""

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import clean_environment, command, run_command
from linear_model import SOURCE

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import injected
from rl_posttrain.optim.launch import find_program
from rl_posttrain.optim.swapped import NAME, NOTES, OPTIONS

NONE_RAN = "rl-posttrain: optimizer=adams: no trainer ran it: no Python process of the program"
RUN = ("optim", "run", "--optimizer", "adams")
PRINT_ENVIRONMENT = f"import os; print([os.environ.get(name) for name in ({NAME!r}, {OPTIONS!r}, {NOTES!r})])"


# The command, on programs without a trainer


@pytest.mark.parametrize(("status", "ends_in"), [(3, 3), (0, 2)])
def test_the_exit_status_is_the_programs_unless_nothing_was_swapped(status, ends_in, run_main):
    ended, out, err = run_main(*RUN, "--", "python", "-c", f"print('here'); raise SystemExit({status})")
    assert (ended, out) == (ends_in, "here\n")
    assert err.startswith(NONE_RAN) if status == 0 else err == ""


def test_a_program_that_a_signal_ends_has_the_status_of_shells(run_main):
    status, _, _ = run_main(*RUN, "--", "python", "-c", "import os; os.kill(os.getpid(), 15)")
    assert status == 128 + 15


def test_a_crash_of_the_program_is_shown_as_it_is(run_main):
    status, _, err = run_main(*RUN, "--", "python", "-c", "{}['missing']")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith("KeyError: 'missing'\n")


def test_the_program_gets_the_choice_in_its_environment(run_main):
    settings = ("--set", "betas=[0.8,0.9]", "--set", "lr=1e-5", "--no-decay", "norms,biases")
    _, out, _ = run_main(*RUN, *settings, "--", "python", "-c", PRINT_ENVIRONMENT)
    name, options, notes = eval(out)
    assert name == "adams"
    assert options == '{"betas": [0.8, 0.9], "lr": 1e-05, "no_decay": ["norms", "biases"]}'
    assert not Path(notes).exists()  # by now


def test_words_after_the_program_are_the_programs_own(run_main):
    words = ["--optimizer", "x", "--help", "--", "--json", "~/x"]
    _, out, _ = run_main(*RUN, "python", "-c", "import sys; print(sys.argv[1:])", *words)
    assert out == f"{words}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--optimizer", "adms", "--", "true"), "--optimizer=adms: no built-in of that name; did you mean 'adams'?"),
        ((*RUN[2:], "--set", "bets=1", "--", "true"), "--optimizer.bets=1: AdamS takes no such argument; did you mean"),
        ((*RUN[2:], "--set", "betas=[2,3]", "--", "true"), "--optimizer.betas=(2.0, 3.0): adams refuses it (Val"),
        ((*RUN[2:], "--set", "betas", "--", "true"), "--set betas: it is written key=value, such as --set betas="),
        ((*RUN[2:], "--no-decay", "heads", "--", "true"), "--optimizer.no_decay=heads: "),
        (
            (*RUN[2:], "--set", "no_decay=norms", "--", "true"),
            "--optimizer.no_decay=norms: it is not a list of roles; write one, such as [norms]",
        ),
        (
            (*RUN[2:], "--set", "lr_by_role=1e-6", "--", "true"),
            "--optimizer.lr_by_role=1e-06: it gives no role a learning rate; write a mapping, such as {embeddings: ",
        ),
        ((*RUN[2:], "--set", "model=1", "--", "true"), "--optimizer.model=1: AdamS takes no such argument; "),
        ((*RUN[2:], "--", "no-such-program"), "no-such-program: no such program; give one on PATH"),
        ((*RUN[2:], "--", "none.py"), "none.py: no such file; give the script's path"),
        ((*RUN[2:], "--", "-m", "no_such_module.x"), "-m no_such_module.x: no such module; name one"),
        ((*RUN[2:], "--", "-m"), "-m: no such module"),
        (RUN[2:], "missing argument '-- PROGRAM'; see"),
        (("--", "true"), "missing option '--optimizer'; see"),
    ],
)
def test_a_mistake_is_one_line_before_the_program_starts(arguments, said, run_main):
    status, out, err = run_main("optim", "run", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"rl-posttrain: {said}")


def test_programs_are_found_as_in_a_shell_and_beside_python(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.touch()
    assert find_program([str(script), "x"]) == [sys.executable, str(script), "x"]
    for words in (["-m", "json.tool", "x"], ["-u", str(script)], ["-c", "print(1)", "x"], ["-mjson.tool"]):
        assert find_program(words) == [sys.executable, *words]
    (tmp_path / "my_module.py").touch()
    monkeypatch.chdir(tmp_path)
    assert find_program(["-m", "my_module"]) == [sys.executable, "-m", "my_module"]
    monkeypatch.setenv("PATH", "")
    assert find_program(["torchrun"]) == [str(Path(sys.executable).with_name("torchrun"))]
    with pytest.raises(RecipeError):
        find_program(["ls"])


def test_a_class_in_a_file_is_found_wherever_the_program_goes(tmp_path, run_main, monkeypatch):
    (tmp_path / "own.py").write_text("import torch\nclass Own(torch.optim.SGD):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    _, out, _ = run_main("optim", "run", "--optimizer", "own.py:Own", "--", "python", "-c", PRINT_ENVIRONMENT)
    assert eval(out)[0] == f"{tmp_path.resolve()}/own.py:Own"


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGUSR1))],
)
def test_a_signal_is_the_programs_to_handle(number, tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, signal, sys, time\n"
        # os.write, because a signal may come in the middle of the print below.
        "def end(number, frame):\n    os.write(1, b'got %d\\n' % number); sys.exit(7)\n"
        f"signal.signal({int(number)}, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    words = command(*RUN, "--", tmp_path / "program.py")
    # In a session of its own, without a terminal, as jobs have none: the signal comes to the command alone.
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=clean_environment(), start_new_session=True
    ) as started:
        assert started.stdout.readline() == "ready\n"
        os.kill(started.pid, number)
        assert started.stdout.readline() == f"got {int(number)}\n"
        assert started.wait() == 7


@pytest.mark.parametrize("status", [0, 3])
def test_a_full_disk_is_one_line_and_the_status_stays_the_programs(status, run_main, tmp_path):
    """A note is lost then, and nobody may say that nothing ran."""
    (tmp_path / "program.py").write_text(
        "from pathlib import Path\n"
        "from rl_posttrain.optim.swapped import Note\n"
        "def full(self, *args, **kwargs):\n    raise OSError(28, 'No space left on device', str(self))\n"
        "Path.write_text = full\n"
        "note = Note('Trainer', 0, 'AdamS', calls=1)\n"
        "note.save(), note.save()\n"
        f"raise SystemExit({status})\n"
    )
    ended, _, err = run_main(*RUN, "--", str(tmp_path / "program.py"))
    assert ended == status
    assert len(err.splitlines()) == 1
    assert "No space left on device; the lines at the end may not name every trainer" in err


def test_without_a_folder_for_notes_the_program_runs_all_the_same(run_main, monkeypatch):
    def full(**kwargs):
        raise OSError(28, "No space left on device", "/tmp/rl-posttrain-x")

    monkeypatch.setattr("rl_posttrain.optim.launch.tempfile.TemporaryDirectory", full)
    status, out, err = run_main(*RUN, "--", "python", "-c", "print('here'); raise SystemExit(3)")
    assert (status, out) == (3, "here\n")
    assert err == (
        "rl-posttrain: no line at the end says which optimizer ran: /tmp/rl-posttrain-x: the disk is full; free some "
        "space there\n"
    )


# What runs in every Python process


def run_injected(python: str, *arguments: str, path: Path, **variables: str) -> subprocess.CompletedProcess:
    folders = os.pathsep.join([str(Path(injected.__file__).parent), str(path)])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": folders, **variables}
    return subprocess.run([python, *arguments], capture_output=True, text=True, env=environment)


def test_a_sitecustomize_that_is_hidden_runs_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('the hidden one')")
    done = run_injected(sys.executable, "-c", "import sys; print('torch' in sys.modules)", path=tmp_path, **{NAME: "x"})
    assert (done.stdout, done.stderr) == ("the hidden one\nFalse\n", "")


def test_a_python_without_rl_posttrain_says_so_when_a_trainer_is_imported(tmp_path, run_main, monkeypatch):
    venv.create(tmp_path / "other", with_pip=False)
    (tmp_path / "transformers").mkdir()  # the other Python has a package of that name, and nothing else
    (tmp_path / "transformers" / "__init__.py").touch()
    (tmp_path / "transformers" / "trainer.py").write_text("print('trainer')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    python = str(tmp_path / "other" / "bin" / "python")
    status, out, err = run_main(*RUN, "--", python, "-c", "import transformers.trainer; print('went on')")
    assert (status, out) == (2, "trainer\n")
    said = f"rl-posttrain: RL_POSTTRAIN_OPTIMIZER=adams: {python} has no rl_posttrain.optim.autoswap "
    assert [line.startswith(said) for line in err.splitlines()] == [True, True]
    assert "install rl_posttrain there, too" in err


# TRL's scripts

COMMON = (
    "--max_steps", "2", "--per_device_train_batch_size", "2", "--learning_rate", "1e-3", "--use_cpu", "--report_to",
    "none", "--save_strategy", "no", "--bf16", "False", "--dtype", "float32", "--optim", "adamw_8bit",
)  # fmt: skip
ROWS = {
    "sft": '{"text": "1 + 1 = 2"}',
    "dpo": '{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}',
    "reward": '{"chosen": "1 + 1 = 2", "rejected": "1 + 1 = 3"}',
    "grpo": '{"prompt": "1 + 1 ="}',
    "rloo": '{"prompt": "1 + 1 ="}',
}
SAMPLED = ("--reward_funcs", "my_rewards.lengths", "--num_generations", "2", "--max_completion_length", "4")
TRAINERS = {"sft": "SFT", "dpo": "DPO", "reward": "Reward", "grpo": "GRPO", "rloo": "RLOO"}


@pytest.fixture
def trl_script(tiny_model, tmp_path, monkeypatch):
    """The words that train the tiny model by `trl NAME` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(
        "def lengths(completions, **kwargs):\n"
        "    return [float(len(text) + place) for place, text in enumerate(completions)]\n"
    )

    def words(name: str, *more: str) -> list[str]:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "train.jsonl").write_text(f"{ROWS[name]}\n" * 8)
        files = ("--model_name_or_path", str(tiny_model), "--dataset_name", "data", "--output_dir", "out")
        return ["trl", name, *files, *COMMON, *(SAMPLED if name in ("grpo", "rloo") else ()), *more]

    return words


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("rl-posttrain: ", "rl_posttrain: "))]


def swapped(name: str, trainer: str, *, steps: int = 2) -> str:
    return f"rl-posttrain: optimizer {name} ran in {trainer}: rl_posttrain.optim.adams.AdamS, {steps} steps"


@pytest.mark.parametrize(
    "name", ["sft", *(pytest.param(name, marks=pytest.mark.long) for name in ("dpo", "reward", "grpo", "rloo"))]
)
def test_trls_script_trains_with_the_optimizer_that_was_asked_for(name, trl_script):
    done = run_command(*RUN, "--set", "betas=[0.8,0.9]", "--", *trl_script(name), fresh=True)
    assert done.returncode == 0, done.stderr[-3000:]
    begun, ended = ours(done.stderr)
    assert begun.startswith("rl_posttrain: optimizer adams (rl_posttrain.optim.adams.AdamS, betas=(0.8, 0.9)); matri")
    assert ended == swapped("adams", f"{TRAINERS[name]}Trainer")


@pytest.mark.long
def test_every_rank_of_a_launcher_is_reached_and_the_first_speaks(trl_script, tmp_path):
    """trl hands on to accelerate, which starts two processes; the wrapped script says what each of them runs."""
    done = run_command(*RUN, "--", *trl_script("sft", "--num_processes", "2"), fresh=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ours(done.stderr)[-1] == swapped("adams", "SFTTrainer")


SCRIPT = (
    SOURCE
    + """
import sys, torch
from transformers import Trainer, TrainingArguments

rows = [ROW] * 16
args = TrainingArguments("out", max_steps=2, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True)
trainer = Trainer(Model(), args, train_dataset=rows)
trainer.train()
print(args.process_index, args.world_size, type(trainer.optimizer.optimizer).__name__, sys.argv[1:], flush=True)
"""
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "processes"),
    [
        (["train.py", "--x"], 1),
        (["python", "train.py", "--x"], 1),
        (["-m", "train", "--x"], 1),
        (["torchrun", "--nproc_per_node=2", "train.py", "--x"], 2),
        (["accelerate", "launch", "--cpu", "--num_processes=1", "train.py", "--x"], 1),
        (["sh", "-c", "python train.py --x"], 1),
    ],
)
def test_however_a_script_is_started(words, processes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = run_command(*RUN, "--", *words, fresh=True, PATH=path)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line.endswith("['--x']")]
    assert sorted(said) == [f"{rank} {processes} AdamS ['--x']" for rank in range(processes)]
    assert ours(done.stderr)[-1] == swapped("adams", "Trainer")
