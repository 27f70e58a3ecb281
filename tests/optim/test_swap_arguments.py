"""When the optimizer reads the trainer's arguments: in each trial of a search anew; and a second `use_optimizer`."""

import pytest
import torch
import transformers
from linear_model import ROW, Model
from transformers.trainer_utils import HPSearchBackend

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.optim import SCALE, AdamS, build_optimizer, use_optimizer
from rl_posttrain.optim.swap import OptimizerCheck, running_optimizer


@pytest.fixture
def make(tmp_path):
    def make(**fields) -> transformers.Trainer:
        """A trainer that makes its model anew for each training, as a search needs it."""
        args = transformers.TrainingArguments(
            str(tmp_path), max_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
            lr_scheduler_type="constant", weight_decay=0.1, learning_rate=1e-3, **fields
        )  # fmt: skip
        rows = [ROW] * 4
        return transformers.Trainer(model_init=Model, args=args, train_dataset=rows)

    return make


def search(trainer: transformers.Trainer, *trials: dict) -> list[tuple[float, float, float]]:
    """What each trial ran at: rate and weight decay of the live optimizer, and the size of the step that it made.

    It does what `hyperparameter_search` does to a trainer for each of them; that itself needs a package that searches.
    """
    trainer.hp_search_backend, found = HPSearchBackend.RAY, []
    for trial in trials:
        trainer._hp_search_setup(dict(trial))
        trainer.train()
        group = running_optimizer(trainer.optimizer).param_groups[0]
        torch.manual_seed(trainer.args.seed)
        moved = (trainer.model.linear.weight - Model().linear.weight).norm().item()
        found.append((group["lr"], group["weight_decay"], moved))
    trainer.hp_search_backend = None
    return found


def test_each_trial_of_a_search_trains_at_its_own_rate(make):
    trainer = make()
    use_optimizer(trainer, "adams")
    first, second, third = search(
        trainer,
        {"learning_rate": 1e-2, "weight_decay": 0.0},
        {"learning_rate": 1e-3, "weight_decay": 0.0},
        {"learning_rate": 1e-3, "weight_decay": 0.5},
    )
    assert [run[:2] for run in (first, second, third)] == [(1e-2, 0.0), (1e-3, 0.0), (1e-3, 0.5)]
    # The first step of the same model on the same batch: as far as the rate says.
    assert first[2] == pytest.approx(10 * second[2], rel=1e-3)
    assert third[2] != pytest.approx(second[2], rel=1e-6)


def test_optunas_search(make):
    """`pip install optuna` runs it; the set-up leaves it out."""
    pytest.importorskip("optuna")
    trainer, rates = make(), []
    use_optimizer(trainer, "scale")
    trainer.eval_dataset = trainer.train_dataset
    trainer.add_callback(Rates(rates))
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)},
        compute_objective=lambda metrics: trainer.args.learning_rate,
        n_trials=3,
        backend="optuna",
    )
    assert len(rates) == len({rate for rate, _ in rates}) == 3
    assert all(rate == asked for rate, asked in rates)


class Rates(transformers.TrainerCallback):
    """Keeps the rate that the optimizer has and the one that the arguments say, when training begins."""

    def __init__(self, found: list):
        self.found = found

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.found.append((optimizer.param_groups[0]["lr"], args.learning_rate))


def test_arguments_that_are_changed_before_training_count(make):
    trainer = make()
    use_optimizer(trainer, "adams")
    trainer.args.learning_rate, trainer.args.weight_decay = 5e-4, 0.0
    trainer.train()
    group = running_optimizer(trainer.optimizer).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (5e-4, 0.0)


@pytest.mark.parametrize(
    ("options", "trial", "said"),
    [
        (
            {"lr": 1e-4},
            {"learning_rate": 1e-2},
            "learning_rate=0.01: the hyperparameter search sets it, but use_optimizer was given lr=0.0001; take one of "
            "the two out",
        ),
        (
            {"weight_decay": 0.0},
            {"weight_decay": 0.2},
            "weight_decay=0.2: the hyperparameter search sets it, but use_optimizer was given weight_decay=0.0; take "
            "one of the two out",
        ),
        (
            {},
            {"learning_rate": 1e-2, "adam_beta2": 0.9},
            "adam_beta2=0.9: the hyperparameter search sets it, but adams does not read it; take it out, and give "
            "use_optimizer the arguments of adams",
        ),
        ({}, {"optim": "sgd"}, "optim=sgd: the hyperparameter search sets it, but adams does not read it; take it"),
    ],
)
def test_a_search_that_would_tune_nothing_is_refused(options, trial, said, make):
    trainer = make()
    use_optimizer(trainer, "adams", **options)
    with pytest.raises(RecipeError) as error:
        search(trainer, trial)
    assert str(error.value).startswith(said)


def test_a_given_rate_wins_and_a_change_that_does_nothing_is_said(make, caplog):
    trainer = make()
    use_optimizer(trainer, "adams", lr=1e-4)
    trainer.args.learning_rate = 1e-2
    trainer.train()
    assert running_optimizer(trainer.optimizer).param_groups[0]["lr"] == 1e-4
    assert caplog.messages[0] == (
        "learning_rate=0.01 in the trainer's arguments changes nothing: use_optimizer was given lr=0.0001; take one of "
        "the two out"
    )


def test_betas_of_the_trainer_that_do_not_count_are_named(make, caplog):
    trainer = make(adam_beta2=0.95, adam_epsilon=1e-6)
    use_optimizer(trainer, "adams", eps=1e-6)
    assert caplog.messages == [
        "adam_beta2=0.95 in the trainer's arguments changes nothing: adams does not read it; give betas with the "
        "optimizer"
    ]


def test_a_second_call_takes_the_place_of_the_first(make, caplog):
    trainer = make()
    use_optimizer(trainer, "adams", lr=1e-2)
    use_optimizer(trainer, "scale")
    assert sum(isinstance(callback, OptimizerCheck) for callback in trainer.callback_handler.callbacks) == 1
    trainer.train()
    assert type(running_optimizer(trainer.optimizer)) is SCALE
    assert running_optimizer(trainer.optimizer).param_groups[0]["lr"] == 1e-3
    (line,) = (line for line in caplog.messages if line.startswith("optimizer "))
    assert line.startswith("optimizer scale ")
    # With a model_init the next training begins with a new optimizer, so that it may be another.
    use_optimizer(trainer, "adams")
    trainer.train()
    assert type(running_optimizer(trainer.optimizer)) is AdamS


def test_an_optimizer_that_the_program_puts_back_is_named_in_words_of_the_program(make):
    trainer = make()
    use_optimizer(trainer, "adams")
    trainer.optimizer_cls_and_kwargs = (torch.optim.SGD, {})
    with pytest.raises(EngineError) as error:
        trainer.train()
    assert str(error.value) == (
        "optimizer: AdamS was asked for, but torch.optim.sgd.SGD runs; the program, accelerate or DeepSpeed replaced "
        "it; leave the trainer's optimizer alone, and take the optimizer out of their configuration"
    )


@pytest.mark.parametrize("name", [AdamS, None])
def test_a_name_that_is_no_text_is_refused_in_one_line(name, make):
    for refused in (lambda: use_optimizer(make(), name), lambda: build_optimizer(Model(), name=name, lr=1e-4)):
        with pytest.raises(RecipeError, match=r"it is no text; give a name"):
            refused()


def test_a_mistake_in_the_second_call_leaves_the_first(make):
    trainer = make()
    use_optimizer(trainer, "adams")
    with pytest.raises(RecipeError):
        use_optimizer(trainer, "scale", bets=1)
    trainer.train()
    assert type(running_optimizer(trainer.optimizer)) is AdamS
