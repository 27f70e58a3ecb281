"""From scored completions to the batch of a step: masks, advantages, and what is known before the update."""

from collections.abc import Sequence
from typing import Any

import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.training.algorithms import ALGORITHMS
from rl_posttrain.training.algorithms.algorithm import Advantages, Algorithm, Scored
from rl_posttrain.training.batch import loss_inputs, reward_matrix, set_advantages
from rl_posttrain.training.before_update import kl_penalty, known_before_update
from rl_posttrain.training.groups import equally_paid
from rl_posttrain.training.importance import corrected
from rl_posttrain.users_code import call_users


def batch_of_step(
    trainer: Any, recipe: Recipe, algorithm: Algorithm, completions: Sequence[Completion]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """What the loss takes of a step, and its metrics; every process calls it with its B completions.

    Args:
        trainer: of TRL; gives its models, their forward passes and its arguments.
        completions: scored; their advantages are filled in.

    Returns:
        The batch: as `loss_inputs` and `known_before_update`; ``advantages`` (B,) or (B, T) float32;
        ``importance_sampling_ratio`` (B, T) float32, with `rollout.importance_correction`;
        ``num_items_in_batch``, tokens of all processes; with a critic ``old_values`` and ``returns`` (B, T) float32;
        with `zero_variance_groups: skip` ``skipped`` (B,) bool.

    Raises:
        RecipeError: the algorithm, which may be a user's own, raised, or gave advantages or returns of another shape.
    """
    accelerator, section = trainer.accelerator, recipe.algorithm
    batch = loss_inputs(
        completions, pad_token_id=trainer.processing_class.pad_token_id, device=accelerator.device,
        multiple_of=trainer.pad_to_multiple_of, mask_truncated=trainer.mask_truncated_completions,
    )  # fmt: skip
    mask = batch["completion_mask"]
    known = known_before_update(
        trainer, batch, needs_values=recipe.critic is not None,
        needs_logprobs=section.kl_coef > 0 and section.kl_in == "reward",
    )  # fmt: skip
    values = known.pop("values", None)
    metrics = {}
    if trainer.vllm_importance_sampling_correction:
        known["importance_sampling_ratio"], metrics = corrected(
            recipe.rollout, known["old_per_token_logps"], batch["sampling_per_token_logps"], mask, accelerator.gather
        )
    scored = Scored(
        rewards=accelerator.gather(reward_matrix(completions, trainer.reward_func_names).to(accelerator.device)),
        weights=trainer.reward_weights.to(accelerator.device),
        group_size=section.group_size,
        start=accelerator.process_index * len(completions),
        mask=mask,
        kl_penalty=kl_penalty(section, known, mask),
        values=values,
        truncated=torch.tensor([completion.finish_reason == "length" for completion in completions]).to(mask.device),
        completions=completions,
        gather=accelerator.gather,
    )
    advantages = _advantages(algorithm, scored, section.name, derive_seed(recipe.run.seed, trainer.steps_done, "own"))
    _check_shapes(advantages, mask, name=section.name, needs_returns=values is not None)
    set_advantages(completions, advantages.values, mask)
    batch |= known | {
        "advantages": advantages.values,
        "num_items_in_batch": accelerator.gather(mask.sum()).sum(),
    }
    metrics |= advantages.metrics
    if values is not None:
        batch |= {"old_values": values[:, :-1], "returns": advantages.returns}
    if section.zero_variance_groups == "skip":
        skipped = equally_paid(scored.rewards, section.group_size)
        batch["skipped"] = scored.own(skipped)
        metrics |= {"skipped_share": skipped.float().mean().item()}
    return batch, metrics


def _advantages(algorithm: Algorithm, scored: Scored, name: str, seed: int) -> Advantages:
    if name in ALGORITHMS:
        return algorithm.advantages(scored)
    where, fix = f"algorithm.name={name}", "correct its method advantages"
    found = call_users(algorithm.advantages, scored, where=where, fix=fix, kind=RecipeError, seed=seed)
    if not (isinstance(found, Advantages) and isinstance(found.values, torch.Tensor)):
        raise RecipeError(f"{where}: its method advantages returned no Advantages with a tensor; {fix}")
    return found


def _check_shapes(advantages: Advantages, mask: torch.Tensor, *, name: str, needs_returns: bool) -> None:
    found, whole = tuple(advantages.values.shape), tuple(mask.shape)
    if found not in (whole, whole[:1]):
        raise RecipeError(
            f"algorithm.name={name}: its advantages have the shape {found}; return those of this process's "
            f"completions, {whole[:1]} or {whole}, such as scored.own(...)"
        )
    if needs_returns and (advantages.returns is None or tuple(advantages.returns.shape) != whole):
        returned = None if advantages.returns is None else tuple(advantages.returns.shape)
        raise RecipeError(
            f"algorithm.name={name}: its returns have the shape {returned}, and the critic learns from {whole}; give "
            "Advantages the returns, or set needs_critic = False"
        )
