"""What a step needs to know from before its first update: log-probabilities, and the critic's values."""

from typing import Any

import torch
from trl.models.utils import disable_gradient_checkpointing

from rl_posttrain.recipe.schema import AlgorithmSection
from rl_posttrain.training.dropout import without_dropout
from rl_posttrain.training.lora import reference_model
from rl_posttrain.training.losses import kl_estimate


def known_before_update(
    trainer: Any, batch: dict[str, torch.Tensor], *, needs_values: bool, needs_logprobs: bool
) -> dict[str, torch.Tensor]:
    """Forward passes of a step's completions, without dropout; each costs time, so only what is needed is there.

    Args:
        trainer: gives its models, their forward passes and its arguments.
        batch: of `loss_inputs`, B completions of T tokens.
        needs_values: whether the policy has a critic.
        needs_logprobs: whether the policy's log-probabilities are needed in any case.

    Returns:
        ``old_per_token_logps`` (B, T) in nats, also where an update comes between sampling and loss, or the sampler is
        corrected for; ``ref_per_token_logps`` (B, T) in nats, with a reference model; ``values`` (B, T + 1) of the
        critic. The names are those of TRL's loss where it has them.
    """
    args = trainer.args
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    num_tokens, size = batch["completion_ids"].size(1), args.per_device_train_batch_size
    forward = trainer._get_per_token_logps_and_entropies
    corrects = trainer.vllm_importance_sampling_correction
    reuses = args.gradient_accumulation_steps % (args.steps_per_generation * trainer.num_iterations) != 0
    known = {}
    with (
        torch.no_grad(),
        disable_gradient_checkpointing(trainer.model, args.gradient_checkpointing_kwargs),
        without_dropout(trainer.model),
    ):
        if reuses or corrects or needs_logprobs:
            known["old_per_token_logps"] = forward(trainer.model, ids, mask, num_tokens, size)[0]
        with reference_model(trainer) as reference:
            if reference is not None:
                known["ref_per_token_logps"] = forward(reference, ids, mask, num_tokens, size)[0]
        if needs_values:
            with trainer.accelerator.autocast():
                parts = [
                    trainer.model(input_ids=some, attention_mask=attended, values_of=num_tokens)
                    for some, attended in zip(ids.split(size), mask.split(size), strict=True)
                ]
            known["values"] = torch.cat(parts)
    return known


def kl_penalty(algorithm: AlgorithmSection, known: dict[str, torch.Tensor], mask: torch.Tensor) -> torch.Tensor | None:
    """(B, T) float32, what each token's reward loses to the KL penalty; None where it is not taken off the reward.

    Args:
        known: of `known_before_update`.
        mask: (B, T), 1 on the completion's tokens.
    """
    if algorithm.kl_in == "loss" or "ref_per_token_logps" not in known:
        return None
    estimate = kl_estimate(known["old_per_token_logps"], known["ref_per_token_logps"], algorithm.kl_estimator)
    return algorithm.kl_coef * estimate.float() * mask
