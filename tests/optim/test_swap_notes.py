"""How the end is told: notes of processes, refusals that a program catches, and what the notes may never do."""

import multiprocessing
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import clean_environment
from swapped_programs import ADAMS, BEGIN, run_swapped

from rl_posttrain.optim.swapped import NAME, NOTES, Note, none_ran, own_folder, read_notes, tell


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_swapped


SGD_GIVEN = (
    "optimizer=adams: Trainer has SGD already; call use_optimizer before train(), and make the trainer without "
    "optimizers=(...)"
)
CATCH = "try:\n    {}\nexcept Exception:\n    pass\n"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (CATCH.format("refused()"), ["optimizer adams: Trainer was refused", SGD_GIVEN]),
        (
            CATCH.format("refused()") + "make(Super).train()",
            [
                "optimizer adams: Trainer was refused",
                f"optimizer adams ran in Super: {ADAMS}, 2 steps",
                SGD_GIVEN,
            ],
        ),
        (
            "sys.excepthook = lambda kind, error, traceback: print('shown in another way')\nrefused()",
            ["optimizer adams: Trainer was refused", SGD_GIVEN],
        ),
        (
            CATCH.format("make(Own).train()"),
            [
                "optimizer adams: Own was refused",
                "optimizer: AdamS was asked for, but torch.optim.adamw.AdamW runs; Own.create_optimizer makes it: let "
                "that call super().create_optimizer(), or take it out",
            ],
        ),
    ],
)
def test_a_refusal_that_the_program_catches_or_shows_by_itself_is_told_all_the_same(body, told, run):
    status, lines, _ = run(body)
    assert status == 2
    assert [line for line in lines if line.startswith("rl-posttrain: ")] == [f"rl-posttrain: {line}" for line in told]


def test_a_child_that_nobody_joined_counts_and_without_the_folder_training_goes_on(run):
    start = "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=train).start()\n"
    status, lines, _ = run("def train():\n    make().train()\n" + start)
    assert (status, lines[-1]) == (0, f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps")
    body = "import shutil\ntrainer = make()\nshutil.rmtree(os.environ['" + NOTES + "'])\ntrainer.train()"
    status, lines, _ = run(body)  # the folder goes away first: what this process knows is told
    assert (status, lines[-1]) == (0, f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps")


def test_the_program_that_os_exec_puts_in_its_place_tells(tmp_path, monkeypatch):
    """It has the process id of the one that made the folder of notes; a process that this started has another."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(NOTES, "")
    folder = own_folder()
    assert folder.parent == tmp_path
    assert own_folder() == folder
    child = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(own_folder() is not None))
    child.start()
    child.join()
    assert child.exitcode == 0
    shutil.rmtree(folder)
    assert own_folder() is None


@pytest.mark.long
def test_os_exec_for_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    again = (
        "if not os.environ.get('AGAIN'):\n"
        "    os.environ['AGAIN'] = '1'; os.execv(sys.executable, [sys.executable, *sys.argv])\n"
    )
    for body, status, said in (
        ("make().train()", 0, f"ran in Trainer: {ADAMS}, 2 steps"),
        ("", 2, "no trainer ran it"),
    ):
        (tmp_path / "train.py").write_text(BEGIN + again + body)
        environment = {**clean_environment(), NAME: "adams", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, env=environment)
        assert done.returncode == status
        assert said in done.stderr.splitlines()[-1]
    assert list(tmp_path.glob("rl-posttrain-*")) == []


def test_notes_that_cannot_be_kept_are_one_line_and_the_training_goes_on(run, tmp_path):
    """A full disk, as root has no folder that refuses a file."""
    body = (
        "from pathlib import Path\n"
        "def full(self, *args, **kwargs):\n    raise OSError(28, 'No space left on device', str(self))\n"
        "Path.write_text = full\n"
    )
    status, lines, _ = run(body + "make().train()", **{NOTES: str(tmp_path)})
    assert status == 0
    assert [line.startswith(f"rl-posttrain: {NOTES}={tmp_path}: No space left on device;") for line in lines] == [
        True,
        False,
    ]
    status, lines, _ = run(body + "make().train()")
    assert (status, lines[-1]) == (0, f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps")
    status, lines, _ = run(body + "make(Own).train()", **{NOTES: str(tmp_path)})
    assert status == 1
    assert lines[-1].startswith("rl-posttrain: optimizer: AdamS was asked for")


@pytest.mark.parametrize(("leave", "status"), [("sys.exit(3)", 3), ("sys.exit('bad')", 1), ("sys.exit()", 2)])
def test_a_status_that_the_program_leaves_with_stays(leave, status, run):
    ended, lines, _ = run(leave)
    assert ended == status
    assert lines[0].startswith("rl-posttrain: optimizer=adams: no trainer ran it")
    ended, lines, _ = run(CATCH.format("refused()") + leave)
    assert ended == 2


def test_notes_outlive_a_process_that_leaves_without_a_word(run, tmp_path):
    status, lines, _ = run("make().train(); make(); os._exit(0)", **{NOTES: str(tmp_path)})
    assert status == 0
    assert not any(line.startswith("rl-posttrain: ") for line in lines)
    notes, refusals = read_notes(tmp_path)
    assert [(note.trainer, note.optimizer, note.steps) for note in notes] == [("Trainer", ADAMS, 2), ("Trainer", "", 0)]
    assert refusals == []


def test_a_machine_without_the_folder_of_notes_trains_all_the_same(run, tmp_path):
    """A launcher hands the variables on to other machines; the folder is on the first one."""
    status, lines, _ = run("make().train()", **{NOTES: str(tmp_path / "elsewhere")})
    assert (status, len(lines)) == (0, 1)
    status, lines, everything = run("make(Own).train()", **{NOTES: str(tmp_path / "elsewhere")})
    assert status == 1
    assert lines[-1].startswith("rl-posttrain: optimizer: AdamS was asked for, but torch.optim.adamw.AdamW runs")
    assert "Traceback" not in everything


def test_the_lowest_rank_speaks_for_those_that_train_together():
    ranks = [Note("SFTTrainer", rank, ADAMS, trainings=2, calls=8, steps=4) for rank in (5, 4)]
    assert tell("adams", ranks) == [f"optimizer adams ran in SFTTrainer: {ADAMS}, 4 steps, trained 2 times"]
    many = [Note("Trainer", 0, ADAMS, calls=1)] * 30
    assert tell("adams", many)[-1] == "and 10 more like these"
    assert "made no step" in none_ran("adams", [Note("Trainer", 0)])


def test_refusals_are_noted_for_the_command_to_tell(run, tmp_path):
    status, lines, _ = run("make(Own).train()", **{NOTES: str(tmp_path)})
    assert status == 1  # the command makes 2 of it
    assert not any(line.startswith("rl-posttrain: ") for line in lines)
    _, (refusal,) = read_notes(tmp_path)
    assert refusal.startswith("optimizer: AdamS was asked for, but torch.optim.adamw.AdamW runs; Own.create_optimizer")


@pytest.mark.parametrize(
    ("leave", "status"), [("raise SystemExit(3)", 3), ("raise SystemExit('bad')", 1), ("raise SystemExit(0)", 2)]
)
def test_a_status_that_the_program_raises_stays_too(leave, status, run):
    ended, lines, everything = run(f"import atexit\natexit.register(print, 'last', file=sys.stderr)\n{leave}")
    assert ended == status
    assert [line.partition(" no trainer ran it")[0] for line in lines] == ["rl-posttrain: optimizer=adams:"]
    assert everything.count("last\n") == 1
