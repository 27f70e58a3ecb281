"""Log-probabilities that a loss needs from before the update: the policy's own, and the reference model's."""

from typing import Any

import torch
from trl.models.utils import disable_gradient_checkpointing

from rl_posttrain.training.importance import importance_ratio


def logprobs_before_update(trainer: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What TRL's loss takes of them, under its names; each costs a forward pass, so only what is needed is there.

    Args:
        trainer: gives its models, their forward passes and its arguments.
        batch: of `loss_inputs`, B completions of T tokens.

    Returns:
        ``old_per_token_logps`` (B, T) in nats, where an update comes between sampling and loss, or the sampler is
        corrected for; ``ref_per_token_logps`` (B, T) in nats, with a KL term; ``importance_sampling_ratio`` as
        `importance_ratio` gives it, where the sampler is corrected for.
    """
    args = trainer.args
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    arguments = ids, mask, batch["completion_ids"].size(1), args.per_device_train_batch_size
    forward = trainer._get_per_token_logps_and_entropies
    corrects = trainer.use_vllm and trainer.vllm_importance_sampling_correction
    reuses = args.gradient_accumulation_steps % (args.steps_per_generation * trainer.num_iterations) != 0
    kept = {}
    with torch.no_grad(), disable_gradient_checkpointing(trainer.model, args.gradient_checkpointing_kwargs):
        if reuses or corrects:
            kept["old_per_token_logps"] = forward(trainer.model, *arguments)[0]
        if trainer.beta != 0.0:
            kept["ref_per_token_logps"] = forward(trainer.ref_model, *arguments)[0]
    if corrects:
        kept["importance_sampling_ratio"] = importance_ratio(
            kept["old_per_token_logps"],
            batch["sampling_per_token_logps"],
            batch["completion_mask"],
            mode=trainer.vllm_importance_sampling_mode,
            clip_min=trainer.vllm_importance_sampling_clip_min,
            clip_max=trainer.vllm_importance_sampling_clip_max,
        )
    return kept
