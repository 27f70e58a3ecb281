"""The swap by environment: what a program's trainers run then, what is said of them, and what is refused.

Each program is a process of its own, as swaps are for the process.
"""

import pytest
from swapped_programs import ADAMS, run_swapped

from rl_posttrain.optim.swapped import NAME, OPTIONS


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_swapped


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
            "optimizer=adams: Trainer has SGD already; call use_optimizer before train(), and make the trainer "
            "without optimizers=(...)",
        ),
        (
            "make(optimizer_cls_and_kwargs=(torch.optim.SGD, {}))",
            "optimizer=adams: Trainer has SGD already; make the trainer without optimizer_cls_and_kwargs=(...)",
        ),
        (
            "make(optim='adalomo')",
            "optimizer=adams: the trainer's arguments have optim=adalomo, for which transformers calls backward() in "
            "another way; take optim out",
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


def test_optimizers_of_others_are_seen_after_a_step_of_ours_that_failed(run):
    body = (
        "trainer = make(); trainer.train(); ours = trainer.optimizer.optimizer\n"
        "weight = trainer.model.linear.weight; weight.grad = torch.ones_like(weight).to_sparse()\n"
        "try:\n    ours.step()\nexcept Exception as error:\n    print(error, file=sys.stderr)\n"
        "model = Model(); step(torch.optim.SGD(model.parameters()), model)\n"
    )
    _, lines, everything = run(body)
    assert "sparse" in everything
    assert lines[-1] == "rl-posttrain: optimizer adams did not reach torch.optim.sgd.SGD: 1 step outside of any trainer"


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
        "rl-posttrain: optimizer=adams: no trainer ran it: torch.optim.sgd.SGD made steps outside of any Trainer of "
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
    assert lines[-1] == "rl-posttrain: optimizer=adams: no trainer ran it: Trainer made no step; call its train()"
    status, lines, _ = run("")
    assert status == 2
    assert lines[-1].startswith("rl-posttrain: optimizer=adams: no trainer ran it: no Python process of the program")


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
