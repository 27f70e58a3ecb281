"""TRL's GRPOConfig from a recipe."""

import dataclasses
from typing import Any

from transformers.integrations import get_reporting_integration_callbacks
from trl import GRPOConfig

from rl_posttrain.errors import RecipeError, did_you_mean, one_line
from rl_posttrain.plugins import check_arguments
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.schedule import schedule_name

# Fields that would take rollouts, evaluation or checkpoints out of the project's hands.
_NOT_OURS_TO_PASS = {
    "use_vllm", "use_transformers_continuous_batching", "log_completions", "auto_find_batch_size",
    "save_only_model", "resume_from_checkpoint", "generation_batch_size", "do_eval", "do_train",
    "eval_strategy", "eval_on_start", "load_best_model_at_end", "num_generations_eval", "per_device_eval_batch_size",
    "cache_implementation", "log_multimodal", "log_unique_prompts", "num_completions_to_print",
    "max_tool_calling_iterations",
    "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_min", "vllm_importance_sampling_clip_max",
    # Its loss has neither the KL term of the recipe nor a critic's.
    "use_liger_kernel",
}  # fmt: skip

# Values that TRL checks only in the first step.
_CHOICES = {
    "importance_sampling_level": ("token", "sequence"),
}

_NOT_WITH_A_CRITIC = {
    "sync_ref_model": "TRL copies all weights of the policy's module into the reference model, those of the critic too",
    "lr_scheduler_kwargs": "the schedules of a policy and its critic take no such arguments",
}


def grpo_config(recipe: Recipe, sizes: Sizes, backend: Backend, *, on_cpu: bool) -> GRPOConfig:
    """Everything the recipe says, in TRL's words.

    Raises:
        RecipeError: as `check_trl`, or TRL refuses a value.
    """
    fields = _fields_from(recipe, sizes, backend, on_cpu) | check_trl(recipe, sizes, backend)
    # TRL refuses a group of one, since its own advantages compare a group. Whether ours do is the algorithm's matter.
    fields["num_generations"] = sizes.completions_per_step
    try:
        config = GRPOConfig(**fields)
    except (ValueError, TypeError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"trl={recipe.trl}: TRL refuses it: {one_line(error)}") from error
    config.num_generations = recipe.algorithm.group_size
    return config


def check_trl(recipe: Recipe, sizes: Sizes, backend: Backend) -> dict[str, Any]:
    """The recipe's `trl:` section in the types of GRPOConfig's fields.

    Raises:
        RecipeError: it names a field that GRPOConfig has not, that the recipe says elsewhere or that would have no
            effect, or a value of a wrong type; or a tracker is not there.
    """
    ours = _fields_from(recipe, sizes, backend, on_cpu=True)
    known = {field.name for field in dataclasses.fields(GRPOConfig) if field.init}
    for name, value in recipe.trl.items():
        if name not in known:
            raise RecipeError(f"trl.{name}={value}: GRPOConfig has no such field; {did_you_mean(name, known)}")
        if name in ours or name in _NOT_OURS_TO_PASS:
            said = _SAID_BY.get(name)
            fix = f"set {said} instead" if said else "leave it out"
            raise RecipeError(f"trl.{name}={value}: the recipe decides this field itself; {fix}")
        if name.startswith("vllm_"):
            raise RecipeError(f"trl.{name}={value}: it sets up TRL's own vLLM, which does not run here; see rollout")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise RecipeError(f"trl.{name}={value}: TRL knows no such value; set one of {', '.join(_CHOICES[name])}")
        if recipe.critic is not None and name in _NOT_WITH_A_CRITIC and value:
            raise RecipeError(f"trl.{name}={value}: {_NOT_WITH_A_CRITIC[name]}; leave it out")
    trackers = list(recipe.logging.trackers)
    try:
        get_reporting_integration_callbacks(trackers)
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise RecipeError(f"logging.trackers={trackers}: {reason}; install it, or name another") from error
    return check_arguments(GRPOConfig, recipe.trl, key="trl")


_SAID_BY = {
    "learning_rate": "optimizer.lr", "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "lr_scheduler_type": "optimizer.schedule", "warmup_steps": "optimizer.warmup_steps", "optim": "optimizer.name",
    "max_steps": "algorithm.num_steps", "num_generations": "algorithm.group_size", "loss_type": "algorithm.loss",
    "beta": "algorithm.kl_coef", "scale_rewards": "algorithm.scale_rewards",
    "per_device_train_batch_size": "algorithm.micro_batch_size",
    "gradient_accumulation_steps": "algorithm.prompts_per_step", "num_iterations": "algorithm.num_epochs",
    "steps_per_generation": "algorithm.num_mini_batches", "use_bias_correction_kl": "algorithm.kl_bias_correction",
    "max_completion_length": "rollout.max_new_tokens", "temperature": "rollout.temperature", "top_p": "rollout.top_p",
    "use_vllm": "rollout.engine", "seed": "run.seed", "output_dir": "run.output_dir", "run_name": "run.name",
    "bf16": "model.dtype", "gradient_checkpointing": "model.gradient_checkpointing", "model_init_kwargs": "model.dtype",
    "trust_remote_code": "model.trust_remote_code", "report_to": "logging.trackers",
    "save_steps": "checkpoint.every_steps", "eval_steps": "eval.every_steps", "eval_strategy": "eval.every_steps",
    "num_generations_eval": "eval.num_samples", "deepspeed": "distributed.zero_stage", "reward_weights": "rewards",
    "vllm_importance_sampling_correction": "rollout.importance_correction",
    "vllm_importance_sampling_mode": "rollout.importance_correction",
    "vllm_importance_sampling_clip_min": "rollout.importance_min",
    "vllm_importance_sampling_clip_max": "rollout.importance_max",
    "log_completions": "logging.print_samples", "shuffle_dataset": "task.order_by",
}  # fmt: skip


def _fields_from(recipe: Recipe, sizes: Sizes, backend: Backend, on_cpu: bool) -> dict[str, Any]:
    algorithm, optimizer, rollout = recipe.algorithm, recipe.optimizer, recipe.rollout
    updates = sizes.updates_per_step
    return {
        "output_dir": str(recipe.run_path / "checkpoints"),
        "run_name": recipe.run.name,
        "seed": recipe.run.seed,
        "max_steps": algorithm.num_steps * updates,
        "per_device_train_batch_size": algorithm.micro_batch_size,
        "gradient_accumulation_steps": sizes.gradient_accumulation,
        "steps_per_generation": sizes.gradient_accumulation * algorithm.num_mini_batches,
        "num_iterations": algorithm.num_epochs,
        "num_generations": algorithm.group_size,
        "loss_type": algorithm.loss,
        "scale_rewards": algorithm.scale_rewards or "none",
        "beta": algorithm.kl_coef,
        "use_bias_correction_kl": algorithm.kl_bias_correction,
        "reward_weights": [reward.weight for reward in recipe.rewards],
        "learning_rate": optimizer.lr,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "lr_scheduler_type": schedule_name(optimizer),
        "warmup_steps": optimizer.warmup_steps * updates,
        "max_completion_length": rollout.max_new_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "use_cpu": on_cpu,
        "trust_remote_code": recipe.model.trust_remote_code,
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
        **backend.trl_fields(),
        "use_vllm": False,  # completions come from training/rollouts.py
        "vllm_importance_sampling_correction": rollout.importance_correction != "none",
        "vllm_importance_sampling_mode": "token_truncate",  # of weights a token, which vespo asks for; the rest is ours
        **({"shuffle_dataset": False} if recipe.task.order_by else {}),
        "logging_strategy": "steps",
        "logging_steps": updates,
        "disable_tqdm": True,
        "report_to": list(recipe.logging.trackers) or "none",
        "save_strategy": "steps" if recipe.checkpoint.every_steps else "no",
        "save_steps": (recipe.checkpoint.every_steps or 500) * updates,
        **({"ddp_find_unused_parameters": False} if recipe.critic else {}),
    }
