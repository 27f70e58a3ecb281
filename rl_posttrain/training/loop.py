"""The loop: TRL's trainer with the project's parts at its seams.

TRL keeps what it does well: losses, log-probabilities on a GPU, distribution. Every method here overrides one of TRL's
or of transformers' and hands over to a part; tests/contracts pins each of them.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from transformers import PrinterCallback, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rl_posttrain.machine.signals import Stop
from rl_posttrain.models.universal import only_weights
from rl_posttrain.optim.joint import JointSpec
from rl_posttrain.optim.spec import OptimizerSpec
from rl_posttrain.optim.swap import put_in
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.rollout.sampling import rollout_sampling
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import disk_errors
from rl_posttrain.scoring.rewards import Reward
from rl_posttrain.training.adapters import is_adapted, settle_quantized
from rl_posttrain.training.algorithms.algorithm import Algorithm
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.checkpoints import (
    finish_checkpoint,
    load_critic,
    of_policy,
    save_critic,
    write_checkpoint,
)
from rl_posttrain.training.clock import Clock
from rl_posttrain.training.critic import Critic, attach_critic
from rl_posttrain.training.drift import DriftCheck
from rl_posttrain.training.engines import MakeEngine
from rl_posttrain.training.evaluation import Evaluation
from rl_posttrain.training.goals import Goals
from rl_posttrain.training.groups import without_skipped
from rl_posttrain.training.guards.guards import Guards
from rl_posttrain.training.logprobs import completion_logprobs, score_on_cpu
from rl_posttrain.training.lora import save_adapter
from rl_posttrain.training.objective import Objective
from rl_posttrain.training.order import RowsOfSteps
from rl_posttrain.training.placed import Placed
from rl_posttrain.training.rates import rates_kept
from rl_posttrain.training.recorder import OnStep, Recorder
from rl_posttrain.training.rollouts import Rollouts
from rl_posttrain.training.rotary import restore_frequencies
from rl_posttrain.training.schedule import critic_rate, joint_schedule
from rl_posttrain.training.step_batch import batch_of_step
from rl_posttrain.training.stopping import Stopping
from rl_posttrain.training.updates import UpdateWatch
from rl_posttrain.training.weight_check import WeightCheck, transposed_weights


class PolicyTrainer(trl.GRPOTrainer):
    """TRL's GRPOTrainer, run from a recipe.

    Args:
        recipe: the run's recipe.
        sizes: of a step.
        backend: placed the process; reads the weights back.
        algorithm: makes advantages of rewards.
        make_critic: makes the critic for a policy; None if the algorithm has none.
        optimizer: transformers builds it, which holds under every wrapper (DeepSpeed, DDP).
        make_engine: makes the rollout engine once the model is placed.
        rewards: of the recipe.
        make_evaluation: makes the evaluation from the rollouts, their sampling, and what gathers lists.
        guards: of the recipe; they may leave out an update, or end the run.
        on_step: called on the main process after every update with the step's metrics row and its rollouts.
        on_phase: called with what the trainer is doing now.
        on_first_evaluation: called on the main process with the metrics of the evaluation before the first step.
        on_note: called with what the user has to know, a line.
        stop: what this process hears of signals.
        **trainer_arguments: as for `trl.GRPOTrainer`.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        sizes: Sizes,
        backend: Backend,
        algorithm: Algorithm,
        make_critic: Callable[[torch.nn.Module], Critic] | None,
        optimizer: OptimizerSpec | JointSpec,
        make_engine: MakeEngine,
        rewards: list[Reward],
        make_evaluation: Callable[..., Evaluation],
        guards: Guards,
        on_step: OnStep,
        on_phase: Callable[[str], None],
        on_first_evaluation: Callable[[dict], None],
        on_note: Callable[[str], None],
        stop: Stop,
        **trainer_arguments: Any,
    ):
        super().__init__(reward_funcs=rewards, **trainer_arguments)
        assert self.is_deepspeed_enabled == (backend.zero_stage is not None), "accelerate kept another engine"
        # The KL term is the objective's; TRL made the reference model for it.
        self.beta = 0.0
        self._scores_on_cpu = score_on_cpu(self)
        settle_quantized(self.model)
        self.critic = make_critic(self.model) if make_critic else None
        for model in filter(None, (self.model, self.ref_model, self.critic)):
            restore_frequencies(model)
        if self.critic is not None:
            attach_critic(self.model, self.critic)
        backend.place(self)
        put_in(self, lambda: optimizer)
        self.remove_callback(PrinterCallback)
        self.update_watch = UpdateWatch(self.model)
        self.add_callback(self.update_watch)
        self.stopping = Stopping(
            stop, recipe.checkpoint, self._most_of_processes, updates_per_step=sizes.updates_per_step
        )
        self.add_callback(self.stopping)
        self.guards = guards
        self.guards.attach(self, sizes.updates_per_step)
        self.policy = Placed(self, backend)
        self.clock = Clock(on_phase)
        self.recorder = Recorder([reward.spec for reward in rewards], on_step, gather_object, self.clock)
        engine = make_engine(self.policy)
        # TRL's own vLLM stays off; the flag tells its loss that sampled log-probabilities come with the completions.
        self.use_vllm = engine.gives_logprobs
        check = WeightCheck(recipe, gather_object, on_note, transposed_weights(self.model))
        sampling = rollout_sampling(recipe.rollout, recipe.trl)
        self.rollouts = Rollouts(
            recipe, engine, self.policy, sampling, rewards,
            pool=self.train_dataset, weight_check=check, rank=self.accelerator.process_index, gather=gather_object,
            clock=self.clock, stopping=self.stopping, rows_of=RowsOfSteps(self, recipe.rollout.max_staleness),
        )  # fmt: skip
        add_up = partial(self.accelerator.reduce, reduction="sum")
        self.drift = DriftCheck(recipe, sampling, add_up)
        self.objective = Objective(recipe, sizes, self.critic, add_up)
        self.goals = Goals(recipe)
        self._tied = set(self.model.all_tied_weights_keys)
        self.evaluation = make_evaluation(rewards, self.rollouts, sampling, gather_object)
        self._on_first_evaluation = on_first_evaluation
        self._run = RunDirectory(Path(self.args.output_dir).parent)
        self._recipe, self._algorithm, self._updates_per_step = recipe, algorithm, sizes.updates_per_step

    @property
    def steps_done(self) -> int:
        """Whole steps: each draws completions and makes `updates_per_step` updates with them."""
        return self.state.global_step // self._updates_per_step

    @property
    def is_over(self) -> bool:
        """Whether no step is left: the last one is done, or one has reached `algorithm.stop_at`."""
        return self.state.global_step >= self.state.max_steps or self.goals.stopped

    def _most_of_processes(self, number: int) -> int:
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        """What the loss takes of a step. `inputs` only say that it begins: its rows are those of training/order.py."""
        steps = self.steps_done
        self.stopping.begin_step()
        if steps == 0 and self.evaluation.is_due(0):
            self._evaluate_first()
        # Everything random in a step follows from the run's seed and the step, so that a resumed run repeats it.
        torch.manual_seed(self.rollouts.seed(steps, "step", self.rollouts.rank))
        completions, metrics = self.rollouts.collect(
            steps,
            trainer_state=self.state, log_metric=self.recorder.log_metric, log_extra=self.recorder.log_extra,
        )  # fmt: skip
        self.state.num_input_tokens_seen += int(metrics.pop("new_tokens"))
        batch, of_batch = batch_of_step(self, self._recipe, self._algorithm, completions)
        tokens = {"tokens": self.state.num_input_tokens_seen}
        rollouts = self.recorder.drawn(steps + 1, completions, of_batch | tokens | metrics)
        self.recorder.describe(**self.guards.drawn(steps + 1, rollouts, self.rollouts.take_unusable_rewards()))
        self.drift.start(is_stale=metrics.get("staleness", 0) > 0)
        return batch

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        if self._scores_on_cpu:
            size = (args[0] if args else kwargs.get("batch_size")) or len(input_ids)
            with self.accelerator.autocast():
                output = completion_logprobs(model, input_ids, attention_mask, logits_to_keep, size)
        else:
            output = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        return self.objective.clamped(output[0]), *output[1:]

    def _compute_loss(self, model, inputs):
        factor = 1.0
        if "skipped" in inputs:
            num_taught = (~inputs["skipped"]).sum().view(1)
            inputs, factor = without_skipped(
                inputs, self.loss_type, max(1, self.accelerator.gather(num_taught).max().item())
            )
        with self.objective.watching(inputs):
            loss = super()._compute_loss(model, inputs) * factor
        loss = self.objective.whole(loss, inputs, self.steps_done)
        steps = self.args.gradient_accumulation_steps
        # No update has come between the sampling of this micro batch and its loss.
        on_policy = self._step % (self.args.steps_per_generation * self.num_iterations) < steps
        if on_policy and self.model.training and "sampling_per_token_logps" in inputs:
            is_last = self._step % steps == steps - 1
            found = self.drift.watch(self.objective.logprobs.detach(), inputs, self.steps_done + 1 if is_last else None)
            self.recorder.describe(**found)
        self.guards.loss(loss)
        return loss

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of DTensors
        self.guards.gate.clipped(norm)
        return norm

    def _evaluate_first(self) -> None:
        """The evaluation before the first step; it has its folder and no row of metrics, which a step has."""
        is_alone = self.accelerator.num_processes == 1
        with self.stopping.droppable() if is_alone else contextlib.nullcontext():
            metrics = self._evaluate_policy()
        if self.accelerator.is_main_process:
            self._on_first_evaluation(metrics)

    def _evaluate_policy(self) -> dict[str, float | None]:
        with self.clock.phase("evaluation"):
            metrics = self.evaluation.run(self.steps_done)
        self.guards.evaluated(self.steps_done, self.rollouts.take_unusable_rewards())
        return metrics

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """After an update: evaluation first, so that the step's row holds it."""
        if self.control.should_log and self.evaluation.is_due(self.steps_done):
            self.recorder.evaluated(self._evaluate_policy())
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:  # the totals that transformers logs once at the end; summary.json has the run's own
            return
        update = self.update_watch.metrics(self.accelerator)
        if self.critic is not None:
            update["lr/critic"] = critic_rate(self.optimizer)
        row = self.recorder.row(self.steps_done, logs, self._metrics["train"], self.objective.take_metrics() | update)
        self._metrics["train"].clear()
        stops = self.goals.stops(row)
        ends = stops or self.state.global_step >= self.state.max_steps
        saves = self.control.should_save or ends or self._recipe.checkpoint.keep_best is not None
        row |= self.guards.finished(row, saves=saves)
        if stops and self._recipe.eval.is_on and not self.evaluation.is_due(self.steps_done):
            row |= self._evaluate_policy()  # a last step is evaluated
        Trainer.log(self, dict(row), start_time)
        # A run that stops early has a checkpoint of its last step where one that does not stop has it.
        is_best = self.guards.step_is_sound and self.goals.is_best(row)
        self.control.should_save |= is_best or (stops and self._recipe.checkpoint.every_steps > 0)
        self.control.should_training_stop |= stops
        if self.accelerator.is_main_process:
            self.recorder.write(row)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """transformers' schedule; with a critic one for each of the two."""
        if self.critic is None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = joint_schedule(self._recipe, self._updates_per_step, optimizer)
        return self.lr_scheduler

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """The policy as a model of transformers, or its adapters as peft has them; in a checkpoint its critic, too."""
        if self.critic is not None:
            state_dict = self.model.state_dict() if state_dict is None else state_dict
            if Path(output_dir).name.startswith(PREFIX_CHECKPOINT_DIR):
                save_critic(self.critic, state_dict, output_dir)
        if state_dict is not None:
            state_dict = of_policy(state_dict, self._tied)
        with disk_errors(self._run.path):
            if is_adapted(self.model):
                save_adapter(self.model, self.processing_class, output_dir, state_dict)
            else:
                super()._save(output_dir, state_dict)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card of a folder of checkpoints knows neither base model nor task; models/card.py has the final one."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None):
        """transformers reads optimizer and schedule here, and DeepSpeed its shards: nothing in them may run."""
        with only_weights(resume_from_checkpoint or ""):
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self.rollouts.load(resume_from_checkpoint)
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.critic is not None:
            load_critic(self.critic, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with rates_kept(self, place=False):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _get_output_dir(self, trial) -> str:
        """Where checkpoints are written: aside, until they are whole."""
        return str(self._run.writing_path)

    def _save_checkpoint(self, model, trial) -> None:
        """transformers' checkpoint, which gets its name once it is whole; only then older ones are removed."""
        folder = self._run.writing_path / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with self.clock.phase("checkpoint"):
            write_checkpoint(
                self._run, self.accelerator,
                may_write=self.guards.before_checkpoint, write=partial(super()._save_checkpoint, model, trial),
                add=partial(self.rollouts.save, folder, self.steps_done),
                finish=partial(
                    finish_checkpoint, self._run, self.state.global_step, self.steps_done,
                    keep=self._recipe.checkpoint.keep, best=self.goals.best,
                ),
            )  # fmt: skip
