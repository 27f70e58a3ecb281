"""The loop: TRL's trainer with the project's parts at its seams.

TRL keeps what it does well: losses, log-probabilities on a GPU, distribution. Every method here overrides one of TRL's
or of transformers' and hands over to a part; tests/contracts pins each of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from transformers import PrinterCallback, Trainer

from rl_posttrain.optim.spec import OptimizerSpec
from rl_posttrain.optim.swap import put_in
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.scoring.rewards import Reward
from rl_posttrain.training.algorithms.algorithm import Algorithm, Scored
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.batch import loss_inputs, reward_matrix, set_advantages
from rl_posttrain.training.before_update import logprobs_before_update
from rl_posttrain.training.checkpoints import finish_checkpoint
from rl_posttrain.training.clock import Clock
from rl_posttrain.training.drift import DriftCheck
from rl_posttrain.training.engines import MakeEngine
from rl_posttrain.training.evaluation import Evaluation
from rl_posttrain.training.groups import equally_paid, without_skipped
from rl_posttrain.training.logprobs import completion_logprobs, score_on_cpu
from rl_posttrain.training.placed import Placed, sampling_of
from rl_posttrain.training.recorder import OnStep, Recorder
from rl_posttrain.training.rollouts import Rollouts
from rl_posttrain.training.updates import UpdateWatch


class PolicyTrainer(trl.GRPOTrainer):
    """TRL's GRPOTrainer, run from a recipe.

    Args:
        recipe: the run's recipe.
        backend: placed the process; reads the weights back.
        algorithm: makes advantages of rewards.
        optimizer: transformers builds it, which holds under every wrapper (DeepSpeed, DDP).
        make_engine: makes the rollout engine once the model is placed.
        rewards: of the recipe.
        eval_rows: the task's rows to evaluate on.
        on_step: called on the main process after every update with the step's metrics row and its rollouts.
        on_phase: called with what the trainer is doing now.
        **trainer_arguments: as for `trl.GRPOTrainer`.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        backend: Backend,
        algorithm: Algorithm,
        optimizer: OptimizerSpec,
        make_engine: MakeEngine,
        rewards: list[Reward],
        eval_rows: list[dict],
        on_step: OnStep,
        on_phase: Callable[[str], None],
        **trainer_arguments: Any,
    ):
        super().__init__(reward_funcs=rewards, **trainer_arguments)
        assert self.is_deepspeed_enabled == (backend.zero_stage is not None), "accelerate kept another engine"
        put_in(self, optimizer)
        self.remove_callback(PrinterCallback)
        self.update_watch = UpdateWatch(self.model)
        self.add_callback(self.update_watch)
        self.policy = Placed(self, backend)
        self.clock = Clock(on_phase)
        self.recorder = Recorder([reward.spec for reward in rewards], on_step, gather_object, self.clock)
        engine = make_engine(self.policy)
        # TRL's own vLLM stays off; the flag tells its loss that sampled log-probabilities come with the completions.
        self.use_vllm = engine.gives_logprobs
        sampling = sampling_of(self)
        self.rollouts = Rollouts(
            recipe, engine, self.policy, sampling, rewards,
            pool=self.train_dataset, rank=self.accelerator.process_index, gather=gather_object, clock=self.clock,
        )  # fmt: skip
        self.drift = DriftCheck(recipe, sampling, partial(self.accelerator.reduce, reduction="sum"))
        self.evaluation = Evaluation(
            recipe, self.rollouts, rewards, eval_rows, gather=gather_object,
            batch_size=self.args.per_device_train_batch_size * self.args.steps_per_generation,
        )  # fmt: skip
        self._algorithm, self._keep = algorithm, recipe.checkpoint.keep
        self._skips = recipe.algorithm.zero_variance_groups == "skip"
        self._policy_logprobs = torch.empty(0)
        self._scores_on_cpu = score_on_cpu(self)

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        """From task rows to what the loss takes: completions, rewards, advantages, masks, log-probabilities."""
        updates = self.state.global_step
        # Everything random in a step follows from the run's seed and the step, so that a resumed run repeats it.
        torch.manual_seed(self.rollouts.seed(updates, "step"))
        completions, metrics = self.rollouts.collect(
            inputs, updates,
            trainer_state=self.state, log_metric=self.recorder.log_metric, log_extra=self.recorder.log_extra,
        )  # fmt: skip
        self.state.num_input_tokens_seen += int(metrics.pop("new_tokens"))
        batch = loss_inputs(
            completions, pad_token_id=self._tokenizer.pad_token_id, device=self.accelerator.device,
            multiple_of=self.pad_to_multiple_of, mask_truncated=self.mask_truncated_completions,
        )  # fmt: skip
        rewards = self.accelerator.gather(
            reward_matrix(completions, self.reward_func_names).to(self.accelerator.device)
        )
        start = self.accelerator.process_index * len(completions)
        weights = self.reward_weights.to(rewards.device)
        advantages = self._algorithm.advantages(
            Scored(rewards, weights, self.num_generations, start, batch["completion_mask"])
        )
        batch["advantages"] = advantages.values
        if self._skips:
            skipped = equally_paid(rewards, self.num_generations)
            batch["skipped"] = skipped[start : start + len(completions)]
            metrics["skipped_share"] = skipped.float().mean().item()
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        batch |= logprobs_before_update(self, batch)
        set_advantages(completions, advantages.values, batch["completion_mask"])
        tokens = {"tokens": self.state.num_input_tokens_seen}
        self.recorder.drawn(updates + 1, completions, advantages.metrics | tokens | metrics)
        self.drift.start()
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
        self._policy_logprobs = output[0].detach()
        return output

    def _compute_loss(self, model, inputs):
        factor = 1.0
        if "skipped" in inputs:
            num_taught = (~inputs["skipped"]).sum().view(1)
            inputs, factor = without_skipped(
                inputs, self.loss_type, max(1, self.accelerator.gather(num_taught).max().item())
            )
        loss = super()._compute_loss(model, inputs) * factor
        steps = self.args.gradient_accumulation_steps
        # No update has come between the sampling of this micro batch and its loss.
        on_policy = self._step % (self.args.steps_per_generation * self.num_iterations) < steps
        if on_policy and self.model.training and "sampling_per_token_logps" in inputs:
            self.drift.add(self._policy_logprobs, inputs["sampling_per_token_logps"], inputs["completion_mask"])
            if self._step % steps == steps - 1:
                difference = self.drift.check(self.state.global_step + 1)
                self.recorder.describe(sampling_logprob_difference=difference)
        return loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """After an update: evaluation first, so that the step's row holds it."""
        if self.control.should_log and self.evaluation.is_due(self.state.global_step):
            with self.clock.phase("evaluation"):
                self.recorder.evaluated(self.evaluation.run(self.state.global_step))
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:  # the totals that transformers logs once at the end; summary.json has the run's own
            return
        update = self.update_watch.metrics(self.accelerator)
        row = self.recorder.row(self.state.global_step, logs, self._metrics["train"], update)
        self._metrics["train"].clear()
        Trainer.log(self, dict(row), start_time)
        if self.accelerator.is_main_process:
            self.recorder.write(row)

    def _save_checkpoint(self, model, trial) -> None:
        """transformers' checkpoint, marked once it is whole; only then older ones are removed."""
        with self.clock.phase("checkpoint"):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                finish_checkpoint(self.args.output_dir, self.state.global_step, keep=self._keep)
            self.accelerator.wait_for_everyone()
