"""Whether completions came from the weights that are updated: the sampler's log-probabilities against the trainer's."""

from collections.abc import Callable, Mapping

import torch

from rl_posttrain.errors import WeightSyncError
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.training.losses import masked_mean_parts


class DriftCheck:
    """Fails the run before the update when the engine sampled from other weights than the trainer's.

    Args:
        recipe: gives the limit `rollout.max_logprob_difference` in nats a token.
        sampling: top-p and similar limits renormalize the distribution; then the difference is recorded, not judged.
        sum_over_processes: (2,) tensor to (2,) tensor.
    """

    def __init__(self, recipe: Recipe, sampling: Sampling, sum_over_processes: Callable[[torch.Tensor], torch.Tensor]):
        self._limit, self._dtype = recipe.rollout.max_logprob_difference, recipe.model.dtype
        self._is_judged = sampling.is_whole_distribution()
        self._sum_over_processes = sum_over_processes
        self.start()

    def start(self, *, is_stale: bool = False) -> None:
        """New completions: nothing is known of them yet.

        Args:
            is_stale: some come from older weights on purpose: then the difference is recorded, and not judged.
        """
        self._parts, self._is_stale = torch.zeros(2), is_stale

    def watch(self, policy: torch.Tensor, batch: Mapping[str, torch.Tensor], step: int | None) -> dict:
        """Count a micro batch that is trained on before any update; after the last one, judge the step.

        Args:
            policy: (B, T) log-probabilities under the trainer's weights, in nats.
            batch: the micro batch, as the loss takes it.
            step: the number of the step, where this is its last micro batch; else None.

        Returns:
            The metric of the step, after its last micro batch.
        """
        self.add(policy, batch["sampling_per_token_logps"], batch["completion_mask"])
        return {"sampling_logprob_difference": self.check(step)} if step is not None else {}

    def add(self, policy: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor) -> None:
        """Count a micro batch.

        Args:
            policy: (B, T) log-probabilities under the trainer's weights, in nats.
            sampled: (B, T) log-probabilities that the engine gave; NaN where it had none, which counts as no evidence.
            mask: (B, T), nonzero on the completion's tokens.
        """
        known = mask.bool() & ~sampled.isnan()
        self._parts = self._parts.to(policy.device) + masked_mean_parts((policy - sampled).abs(), known)

    def check(self, step: int) -> float:
        """The mean difference in nats a token over all processes.

        Raises:
            WeightSyncError: it is above the limit, or no number.
        """
        total, count = self._sum_over_processes(self._parts.clone()).tolist()
        difference = total / max(count, 1.0)
        if self._is_judged and not self._is_stale and not difference <= self._limit:
            raise WeightSyncError(
                f"rollout.max_logprob_difference={self._limit}: at step {step} the engine's log-probabilities are "
                f"{difference:.3f} nats a token off the trainer's; the engine samples from stale or wrong weights (a "
                "sync did not reach it, or this vLLM version takes weights differently); set "
                "rollout.engine=transformers to train without vLLM, or raise the limit if the model is that noisy in "
                f"{self._dtype}"
            )
        return difference
