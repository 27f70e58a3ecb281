"""The swap by environment: what a program's trainers run then, what is said of them, and what is refused.

Each program is a process of its own, as swaps are for the process.
"""

import pytest
from conftest import run_python

from rl_posttrain.optim.swapped import NAME, NOTES, OPTIONS, Note, none_ran, read_notes, tell

BEGIN = """
import os, sys
import rl_posttrain.optim.autoswap
import torch
from transformers import Trainer, TrainingArguments

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)
    def forward(self, x, labels):
        return {"loss": (self.linear(x) - labels).square().mean()}

def make(kind=Trainer, optimizers=(None, None), **fields):
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    fields = {"max_steps": 2, "use_cpu": True} | quiet | fields
    rows = [{"x": [1.0, 2.0], "labels": [3.0]}] * 4
    return kind(Model(), TrainingArguments("out", **fields), train_dataset=rows, optimizers=optimizers)

class Own(Trainer):
    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        return self.optimizer

class Super(Trainer):
    def create_optimizer(self, model=None):
        return super().create_optimizer()

class OwnLoop(Trainer):
    def train(self):
        self.create_optimizer_and_scheduler(num_training_steps=3)
        step(self.optimizer, self.model, times=3)

class OwnOptimizer(Trainer):
    def train(self):
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        step(self.optimizer, self.model)

def step(optimizer, model, times=1):
    for _ in range(times):
        model(torch.ones(1, 2), torch.zeros(1, 1))["loss"].backward()
        optimizer.step()

"""
ADAMS = "rl_posttrain.optim.adams.AdamS"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a program; its status and what it said that is not the training's own."""
    monkeypatch.chdir(tmp_path)

    def run(body: str, **variables: str):
        done = run_python("-c", BEGIN + body, **{NAME: "adams", **variables})
        lines = [line for line in done.stderr.splitlines() if line.startswith(("rl-posttrain: ", "rl_posttrain: "))]
        return done.returncode, lines, done.stderr

    return run


def test_every_trainer_is_swapped_and_the_end_says_so(run):
    status, lines, _ = run(
        "make(optim='adamw_8bit', learning_rate=1e-4).train(); make(Super).train(); make()\n",
        **{OPTIONS: '{"betas": [0.8, 0.9], "weight_decay": 0.1}'},
    )
    assert status == 0
    begun = f"rl_posttrain: optimizer adams ({ADAMS}, betas=(0.8, 0.9)); matrices: 6 parameters, lr "
    assert [line.startswith(begun) for line in lines[:2]] == [True, True]
    assert lines[0].startswith(f"{begun}0.0001, weight decay 0.1")
    assert lines[2:] == [
        f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps",
        f"rl-posttrain: optimizer adams ran in Super: {ADAMS}, 2 steps",
        "rl-posttrain: optimizer adams: Trainer was made and made no step",
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "os.environ |= dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')\n"
            "make(deepspeed={'train_micro_batch_size_per_gpu': 2, 'zero_optimization': {'stage': 2}, "
            "'optimizer': {'type': 'AdamW'}})",
            "optimizer=adams: DeepSpeed's configuration has an optimizer section (AdamW), which transformers would use "
            "instead; delete that section",
        ),
        (
            "model = Model(); make(optimizers=(torch.optim.SGD(model.parameters()), None)).train()",
            "optimizer=adams: the trainer has SGD already; call use_optimizer before train(), and make the trainer "
            "without optimizers=(...)",
        ),
        (
            "make(Own).train()",
            "optimizer: AdamS was asked for, but torch.optim.adamw.AdamW runs; Own.create_optimizer makes it: let that "
            "call super().create_optimizer(), or take it out",
        ),
        (
            "make(OwnOptimizer).train()",
            "optimizer=adams: OwnOptimizer trains with torch.optim.adamw.AdamW, which it made by itself; let it call "
            "create_optimizer() of transformers' Trainer",
        ),
        (
            "from rl_posttrain.optim import use_optimizer; use_optimizer(make(), 'scale')",
            "optimizer=SCALE: RL_POSTTRAIN_OPTIMIZER=adams is set, by rl-posttrain optim run or the environment; leave "
            "one of the two out",
        ),
    ],
)
def test_a_program_with_an_optimizer_of_its_own_ends_in_one_line(body, said, run):
    status, lines, everything = run(body)
    assert status == 2, everything[-2000:]
    assert lines[-1] == f"rl-posttrain: {said}"
    assert "Traceback" not in everything


def test_no_step_is_made_before_the_refusal(run):
    _, _, everything = run(
        "trainer = make(OwnOptimizer); before = trainer.model.linear.weight.clone()\n"
        "try:\n    trainer.train()\nexcept Exception:\n    pass\n"
        "print('same', torch.equal(before, trainer.model.linear.weight), file=sys.stderr)"
    )
    assert "same True" in everything


def test_a_trainer_with_a_loop_of_its_own_is_reached_through_create_optimizer(run):
    status, lines, _ = run("make(OwnLoop).train()")
    assert (status, lines[-1]) == (0, f"rl-posttrain: optimizer adams ran in OwnLoop: {ADAMS}, 3 steps")


def test_trainers_of_processes_that_it_started_count(run):
    status, lines, _ = run(
        "import multiprocessing\n"
        "def train():\n    make().train()\n"
        "child = multiprocessing.get_context('fork').Process(target=train)\n"
        "child.start(); child.join(); assert child.exitcode == 0\n"
    )
    assert (status, lines[-1]) == (0, f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps")


def test_a_trainer_that_trains_again_is_told_once(run):
    status, lines, _ = run("trainer = make(); trainer.train(); trainer.train()")
    told = f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 4 steps, trained 2 times"
    assert (status, lines[-1]) == (0, told)


def test_loops_without_a_trainer_are_named_and_fail_the_program_if_nothing_else_ran(run):
    body = "model = Model(); step(torch.optim.SGD(model.parameters()), model, times=2)\n"
    status, lines, _ = run(body)
    assert status == 2
    assert lines == [
        "rl_posttrain: RL_POSTTRAIN_OPTIMIZER=adams does not reach torch.optim.sgd.SGD, which makes steps outside of "
        "any trainer",
        "rl-posttrain: optimizer adams did not reach torch.optim.sgd.SGD: 2 steps outside of any trainer",
        "rl-posttrain: optimizer=adams: it ran in no trainer: torch.optim.sgd.SGD made steps outside of any Trainer of "
        "transformers; give that loop an optimizer by rl_posttrain.optim.build_optimizer",
    ]
    status, lines, _ = run(body + "make().train()")
    assert status == 0
    assert len(lines) == 4


def test_the_parts_of_an_optimizer_are_not_taken_for_others(run):
    status, lines, _ = run("make().train()", **{NAME: "muon"})
    assert status == 0
    assert lines[1:] == ["rl-posttrain: optimizer muon ran in Trainer: rl_posttrain.optim.muon.Muon, 2 steps"]


def test_a_program_that_trains_nothing_fails(run):
    status, lines, _ = run("make()")
    assert status == 2
    assert lines[-1] == "rl-posttrain: optimizer=adams: it ran in no trainer: Trainer made no step; let it train"
    status, lines, _ = run("")
    assert status == 2
    assert lines[-1].startswith("rl-posttrain: optimizer=adams: it ran in no trainer: no Python process that it start")


def test_a_crash_stays_a_crash(run):
    status, lines, everything = run("make().train(); {}['missing']")
    assert status == 1
    assert lines[-1] == f"rl-posttrain: optimizer adams ran in Trainer: {ADAMS}, 2 steps"
    assert "KeyError: 'missing'" in everything
    status, lines, everything = run("{}['missing']")
    assert (status, lines) == (1, [])
    assert "Traceback" in everything


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({NAME: "adms"}, "RL_POSTTRAIN_OPTIMIZER.name=adms: no built-in of that name; did you mean 'adams'?"),
        ({OPTIONS: '{"bets": 1}'}, "RL_POSTTRAIN_OPTIMIZER.bets=1: AdamS takes no such argument; did you mean 'betas'"),
        ({OPTIONS: "{betas"}, "RL_POSTTRAIN_OPTIMIZER_OPTIONS={betas: "),
        ({OPTIONS: "[0.9]"}, "RL_POSTTRAIN_OPTIMIZER_OPTIONS=[0.9]: not a mapping; write one, such as"),
    ],
)
def test_a_wrong_name_or_option_ends_at_the_import(variables, said, run):
    status, lines, everything = run("print('went on')", **variables)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"rl-posttrain: {said}")
    assert "Traceback" not in everything


def test_without_the_variable_nothing_is_swapped(run):
    body = "trainer = make(); trainer.train(); sys.exit(type(trainer.optimizer.optimizer) is not torch.optim.AdamW)"
    status, lines, _ = run(body, **{NAME: ""})
    assert (status, lines) == (0, ["rl_posttrain: RL_POSTTRAIN_OPTIMIZER is not set: no optimizer is swapped"])


def test_notes_outlive_a_process_that_leaves_without_a_word(run, tmp_path):
    status, lines, _ = run("make().train(); make(); os._exit(0)", **{NOTES: str(tmp_path)})
    assert status == 0
    assert not any(line.startswith("rl-posttrain: ") for line in lines)
    notes, refusals = read_notes(tmp_path)
    assert [(note.trainer, note.optimizer, note.steps) for note in notes] == [("Trainer", ADAMS, 2), ("Trainer", "", 0)]
    assert refusals == []


def test_refusals_are_noted_for_the_command_to_tell(run, tmp_path):
    status, lines, _ = run("make(Own).train()", **{NOTES: str(tmp_path)})
    assert status == 1  # the command makes 2 of it
    assert not any(line.startswith("rl-posttrain: ") for line in lines)
    _, (refusal,) = read_notes(tmp_path)
    assert refusal.startswith("optimizer: AdamS was asked for, but torch.optim.adamw.AdamW runs; Own.create_optimizer")


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
