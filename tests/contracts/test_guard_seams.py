"""What the guards stand on in transformers, torch and DeepSpeed."""

import inspect

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from transformers import Trainer
from transformers.integrations import deepspeed as integration

EPOCH = inspect.getsource(Trainer._run_epoch)


def test_transformers_clips_then_steps_then_logs():
    places = [EPOCH.index(call) for call in ("self._clip_grad_norm(", "self.optimizer.step()", "_maybe_log_save")]
    assert places == sorted(places)
    # The gate is put in once optimizer and schedule are there, and a checkpoint is loaded.
    whole = inspect.getsource(Trainer._inner_training_loop)
    assert "on_train_begin(" in whole


def test_a_loss_that_is_no_number_is_hidden_by_transformers():
    assert "logging_nan_inf_filter" in EPOCH  # so the row of such a step says null by our own word


def test_deepspeed_knows_the_norm_before_the_optimizer_steps():
    for wrapper, method in (
        (DeepSpeedZeroOptimizer, "self._optimizer_step("),
        (DeepSpeedZeroOptimizer_Stage3, "self._optimizer_step("),
        (BF16_Optimizer, "self.optimizer.step("),
    ):
        source = inspect.getsource(wrapper).partition("    def step(self, closure=None):")[2]
        assert 0 < source.index("_global_grad_norm = ") < source.index(method), wrapper
        assert "overflow = True" in source, wrapper  # then it leaves the update out by itself


def test_zero_steps_through_the_optimizers_own_method():
    for wrapper in (DeepSpeedZeroOptimizer, DeepSpeedZeroOptimizer_Stage3):
        assert "optimizer.step()" in inspect.getsource(wrapper._optimizer_step), wrapper


def test_going_back_loads_as_a_resume_does():
    assert list(inspect.signature(integration.deepspeed_load_checkpoint).parameters)[:2] == [
        "deepspeed_engine", "checkpoint_path",
    ]  # fmt: skip
    assert "_load_optimizer_and_scheduler" in inspect.getsource(Trainer._prepare_for_training)


def test_a_schedule_has_base_rates_and_factors():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 0.5**update)
    assert schedule.base_lrs == [2.0]
    schedule.base_lrs, schedule.last_epoch = [8.0], 2
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 8.0 * schedule.lr_lambdas[0](3) == 1.0
