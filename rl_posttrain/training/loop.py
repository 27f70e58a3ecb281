"""GRPO on TRL's trainer, with the project's rollouts, optimizer, records and exact resume.

What TRL does well stays TRL's: losses, advantages, log-probabilities, distribution. This subclass replaces where
completions come from, checks that they came from the policy's own weights, and turns what is logged into the run's
rows.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from transformers import PrinterCallback, Trainer

from rl_posttrain.errors import WeightSyncError
from rl_posttrain.optim import OptimizerSpec
from rl_posttrain.optim.swap import put_in
from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.rollout.vllm import VLLMEngine
from rl_posttrain.scoring.evaluation import evaluate_policy
from rl_posttrain.scoring.rewards import judging_rewards
from rl_posttrain.training.groups import Drawn, draw_anew, equally_paid, without_skipped
from rl_posttrain.training.logprobs import add_completion_scoring, can_score
from rl_posttrain.training.losses import masked_mean_parts
from rl_posttrain.training.records import metrics_row, rollout_rows
from rl_posttrain.training.updates import UpdateWatch

OnStep = Callable[[dict, list[dict]], None]
OnPhase = Callable[[str], None]


class GRPOTrainer(trl.GRPOTrainer):
    """TRL's GRPOTrainer, run from a recipe.

    Args:
        recipe: the run's recipe.
        optimizer: transformers builds it, which holds under every wrapper (DeepSpeed, DDP).
        engine: makes the rollout engine once the model is placed; None to generate with transformers.
        on_step: called on the main process after every update with the step's metrics row and its rollouts.
        on_phase: called with what the trainer is doing now: rollout, reward, update, evaluation, checkpoint.
        **trainer_arguments: as for `trl.GRPOTrainer`.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        optimizer: OptimizerSpec,
        engine: Callable[[], VLLMEngine] | None,
        on_step: OnStep,
        on_phase: OnPhase,
        **trainer_arguments: Any,
    ):
        super().__init__(**trainer_arguments)
        put_in(self, optimizer)
        plain_head = not (self.args.cast_lm_head_to_fp32 or self.aux_loss_enabled)
        self._scores_itself = self.accelerator.device.type == "cpu" and plain_head and can_score(self.model)
        if self._scores_itself:
            add_completion_scoring(self.model, self.temperature)
            if self.ref_model is not None:
                add_completion_scoring(self.accelerator.unwrap_model(self.ref_model), self.temperature)
        self.recipe = recipe
        assert self.is_deepspeed_enabled == (recipe.distributed.engine == "deepspeed"), "accelerate kept another engine"
        self.remove_callback(PrinterCallback)
        self._update_watch = UpdateWatch(self.model)
        self.add_callback(self._update_watch)
        self._on_step, self._on_phase = on_step, on_phase
        self._engine = engine() if engine else None
        # TRL's own vLLM stays off; the flag tells its loss that sampled log-probabilities came with the completions.
        self.use_vllm = self._engine is not None
        self._synced_step: int | None = None
        self._seconds = {"rollout": 0.0, "reward": 0.0, "sync": 0.0}
        self._step_started = self._run_started = time.perf_counter()
        self._seconds_before = 0.0
        self._rollouts: list[dict] = []
        self._lengths: list[int] = []
        self._described: dict[str, list[float]] = {}
        self._drift = torch.zeros(2, device=self.accelerator.device)

    @property
    def _reward_specs(self) -> list[RewardSpec]:
        return [reward.spec for reward in self.reward_funcs]

    def continue_from(self, seconds: float) -> None:
        """Count the run's seconds on from those of the process that was stopped."""
        self._seconds_before = seconds

    def train(self, *args: Any, **kwargs: Any):
        self._step_started = self._run_started = time.perf_counter()
        return super().train(*args, **kwargs)

    # Rollouts

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        # Everything random in a step hangs on the run's seed and the step, so that a resumed run repeats it exactly.
        step = self.state.global_step + 1
        torch.manual_seed(self._seed("step"))
        self._rows = inputs  # resampling exchanges some of them in place
        output = super()._generate_and_score_completions(inputs)
        if self.recipe.algorithm.zero_variance_groups == "skip":
            start = self.accelerator.process_index * len(inputs)
            output["skipped"] = self._equally_paid[start : start + len(inputs)]
            self._metrics["train"]["skipped_share"].append(self._equally_paid.float().mean().item())
        self._on_phase("update")
        lengths = gather_object(self._lengths)
        answers = gather_object([row.get("answer") for row in inputs])
        self._rollouts = rollout_rows(
            step, self._logs, answers, lengths, self.reward_weights.tolist(), self.recipe.rollout.max_new_tokens
        )
        self._drift.zero_()
        return output

    def _generate(self, prompts: list):
        output = super()._generate(prompts)
        if self.recipe.algorithm.zero_variance_groups == "resample":
            self._resample(prompts, output)
        return output

    def _resample(self, prompts: list, output: tuple) -> None:
        """Exchange prompts and completions of groups that are all right or all wrong, in the lists TRL goes on with.

        TRL has described the first drawing by now; what the run records is described again.
        """
        spec, _ = judging_rewards(self._reward_specs)
        judge = self.reward_funcs[self.reward_func_names.index(spec.name)]

        def is_right(rows: list[dict], completions: list) -> list[bool]:
            columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
            return [spec.gives_full_credit(reward) for reward in judge(completions=completions, **columns)]

        def complete(rows: list[dict], number: int) -> Drawn:
            return self._complete([row["prompt"] for row in rows], "resample", number)

        drawn = Drawn(output[0], output[1], output[3], output[4])
        num_replaced, wasted_tokens = draw_anew(
            self._rows,
            drawn,
            pool=self.train_dataset,
            group_size=self.num_generations,
            max_rounds=self.recipe.algorithm.max_resample_rounds,
            is_right=is_right,
            complete=complete,
            any_process=lambda holds: any(gather_object([holds])),
            seed=self._seed("resample"),
        )
        prompts[:] = [row["prompt"] for row in self._rows]
        self._lengths = [len(ids) for ids in drawn.completion_ids]
        lengths, wasted, replaced = (
            gather_object(values) for values in (self._lengths, [wasted_tokens], [num_replaced])
        )
        self.state.num_input_tokens_seen += sum(wasted)
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        unfinished = gather_object([ids[-1] not in ends for ids in drawn.completion_ids])
        metrics = self._metrics["train"]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        metrics["completions/mean_length"][-1] = sum(lengths) / len(lengths)
        metrics["completions/clipped_ratio"][-1] = sum(unfinished) / len(unfinished)
        metrics["resampled_share"].append(sum(replaced) * self.num_generations / len(lengths))

    def _complete(self, prompts: list, *purpose: str | int) -> Drawn:
        """One completion of each prompt, as text or as chat messages, without TRL's records of it."""
        prompt_ids, images, fields = self._tokenize_prompts(prompts)
        if self._engine is None:
            with self._timed("rollout"):
                ids, logprobs = super()._generate_single_turn(prompt_ids, images, fields, 1)
        else:
            ids, logprobs = self._sample(prompt_ids, self._seed(*purpose))
        completions = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        if not isinstance(prompts[0], str):
            completions = [[{"role": "assistant", "content": text}] for text in completions]
        return Drawn(prompt_ids, ids, completions, logprobs)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        self._on_phase("rollout")
        if self._engine is None:
            with self._timed("rollout"):
                ids, logprobs = super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, num_generations, has_tool_images
                )
        else:
            ids, logprobs = self._sample(prompt_ids, self._seed("rollout"))
        # Before TRL masks any of them.
        self._lengths = [len(completion) for completion in ids]
        return ids, logprobs

    def _seed(self, *purpose: str | int) -> int:
        """A seed for what this process draws in this step; a resumed run draws the same."""
        return derive_seed(self.recipe.run.seed, self.state.global_step + 1, self.accelerator.process_index, *purpose)

    def _sample(self, prompt_ids: list[list[int]], seed: int):
        """One completion a prompt from the engine, under the present weights."""
        self._sync_engine()
        sampling = Sampling(
            max_tokens=self.max_completion_length,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty,
            other=self.args.generation_kwargs or {},
        )
        with self._timed("rollout"):
            drawn = self._engine.generate(prompt_ids, seed, sampling)
        return drawn.token_ids, drawn.logprobs

    def _sync_engine(self) -> None:
        if self._synced_step == self.state.global_step:
            return
        with self._timed("sync"):
            self._engine.load_weights(self.policy_weights())
        self._synced_step = self.state.global_step

    def policy_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The policy's whole weights under their checkpoint names; every process must walk all of them.

        Yields:
            Name and tensor in the parameter's shape. Under ZeRO-3 each is gathered in turn, so that no more than one
            layer's worth stands beside the shards.
        """
        sharded = self.is_deepspeed_enabled and self.recipe.distributed.zero_stage == 3
        for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters():
            if not sharded:
                yield name, parameter.data
                continue
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                # A copy: the engine keeps a layer's tensors until the layer is whole, the gathered one is gone by then.
                yield name, parameter.data.clone()

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._on_phase("reward")
        with self._timed("reward"):
            rewards = super()._calculate_rewards(*args, **kwargs)
        self._equally_paid = equally_paid(rewards, self.num_generations)
        return rewards

    # The update, and the check that completions came from the weights being updated

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs: Any):
        if not self._scores_itself:
            output = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, **kwargs
            )
        else:
            size = kwargs.get("batch_size") or len(input_ids)
            parts = []
            for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
                with self.accelerator.autocast():
                    parts.append(model(input_ids=ids, attention_mask=mask, completion_tokens=logits_to_keep))
            logprobs, entropies = (torch.cat(values) for values in zip(*parts, strict=True))
            output = (logprobs, entropies, None)
        self._policy_logprobs = output[0].detach()
        return output

    def _compute_loss(self, model, inputs):
        factor = 1.0
        if "skipped" in inputs:
            num_taught = (~inputs["skipped"]).sum().view(1)
            num_rows = max(1, self.accelerator.gather(num_taught).max().item())
            inputs, factor = without_skipped(inputs, self.loss_type, num_rows)
        loss = super()._compute_loss(model, inputs) * factor
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is not None and self._on_policy():
            # A logarithm that vLLM could not give is NaN and counts as no evidence.
            mask = inputs["completion_mask"].bool() & ~sampled.isnan()
            self._drift += masked_mean_parts((self._policy_logprobs - sampled).abs(), mask)
            if self._step % self.args.gradient_accumulation_steps == self.args.gradient_accumulation_steps - 1:
                self._check_drift()
        return loss

    def _on_policy(self) -> bool:
        """Whether no update has come between the sampling of this micro batch and its loss."""
        window = self.args.steps_per_generation * self.num_iterations
        return self.model.training and self._step % window < self.args.gradient_accumulation_steps

    def _check_drift(self) -> None:
        """Fail before the update when the engine sampled from other weights than the trainer's."""
        total, count = self.accelerator.reduce(self._drift.clone(), reduction="sum").tolist()
        difference = total / max(count, 1.0)
        self._metrics["train"]["sampling_logprob_difference"].append(difference)
        limit = self.recipe.rollout.max_logprob_difference
        if self._samples_whole_distribution() and not difference <= limit:
            raise WeightSyncError(
                f"rollout.max_logprob_difference={limit}: at step {self.state.global_step + 1} the engine's "
                f"log-probabilities are {difference:.3f} nats a token off the trainer's; the engine samples from stale "
                "or wrong weights (a sync that did not reach it, or one that this vLLM version takes differently); set "
                "rollout.engine=transformers to go on without vLLM, or raise the limit if the model is that noisy in "
                f"{self.recipe.model.dtype}"
            )

    def _samples_whole_distribution(self) -> bool:
        """Whether sampler and policy should agree: top-p and its kin renormalize what is sampled from, rightly."""
        reshaped = self.min_p or self.repetition_penalty != 1.0 or self.args.generation_kwargs
        return self.top_p == 1.0 and self.top_k in (0, -1) and not reshaped

    # Records

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:  # the totals that transformers logs once at the end; summary.json has the run's own
            return
        step = self.state.global_step
        # A step that trains on the completions of the one before has no new values of what describes them.
        self._described |= self._metrics["train"]
        row = metrics_row(step, logs, self._described, self._rollouts, self._reward_specs)
        self._metrics["train"].clear()
        row |= self._update_watch.metrics(self.accelerator)
        row |= {f"time/{phase}": seconds for phase, seconds in self._seconds.items()}
        row["time/update"] = time.perf_counter() - self._step_started - sum(self._seconds.values())
        if self.recipe.eval.every_steps and step % self.recipe.eval.every_steps == 0:
            started = time.perf_counter()
            row |= self._evaluate_policy()
            row["time/evaluation"] = time.perf_counter() - started
        row["seconds"] = self._seconds_before + time.perf_counter() - self._run_started
        Trainer.log(self, dict(row), start_time)
        if self.accelerator.is_main_process:
            self._on_step(row, self._rollouts if self._rollouts[0]["step"] == step else [])
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._step_started = time.perf_counter()

    def _evaluate_policy(self) -> dict[str, float]:
        """Accuracy and pass@k over the task's eval rows, sampled as in training."""
        self._on_phase("evaluation")
        torch.manual_seed(self._seed("evaluation"))
        judge, form = judging_rewards(self._reward_specs)

        def sample(prompts: list, call: int) -> tuple[list, list]:
            drawn = self._complete(prompts, "evaluation", call)
            return drawn.completions, drawn.completion_ids

        return evaluate_policy(
            list(self.eval_dataset),
            sample,
            dict(zip(self.reward_func_names, self.reward_funcs, strict=True)),
            judge=judge,
            form=form,
            num_samples=self.recipe.eval.num_samples,
            ks=self.recipe.eval.k,
            batch_size=self.args.per_device_train_batch_size * self.args.steps_per_generation,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            gather=gather_object,
        )

    def _save_checkpoint(self, model, trial) -> None:
        """transformers' checkpoint, marked once it is whole; only then do older ones go."""
        self._on_phase("checkpoint")
        started = time.perf_counter()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            folder = Path(self.args.output_dir)
            (folder / f"checkpoint-{self.state.global_step}" / "complete").touch()
            others = (
                path for path in folder.glob("checkpoint-*") if path.name != f"checkpoint-{self.state.global_step}"
            )
            older = sorted(others, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)
            for path in older[self.recipe.checkpoint.keep - 1 :]:
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()
        # Counts in the run's seconds, in no phase of the next step.
        self._step_started += time.perf_counter() - started

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started
