"""The loss of a micro batch: TRL's policy loss, the KL term, and the critic's loss."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.training.critic import Critic
from rl_posttrain.training.losses import MAX_LOG_RATIO, aggregated, kl_estimate, masked_mean_parts, value_loss


class Objective:
    """What the recipe's loss has beside TRL's policy loss, and its metrics.

    Args:
        critic: inside the policy, or None.
        sum_over_processes: a tensor to the tensor of its sums.
    """

    def __init__(
        self,
        recipe: Recipe,
        sizes: Sizes,
        critic: Critic | None,
        sum_over_processes: Callable[[torch.Tensor], torch.Tensor],
    ):
        self._recipe, self._sizes, self._critic = recipe, sizes, critic
        self._sum_over_processes = sum_over_processes
        self._parts: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(2))
        self._inputs: dict[str, Any] | None = None
        self._values: list[torch.Tensor] = []
        self.logprobs = torch.empty(0)

    @contextlib.contextmanager
    def watching(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Within it TRL computes its loss of the micro batch `inputs`, in one forward pass of the policy."""
        num_tokens = inputs["completion_ids"].size(1)
        self._inputs = inputs
        with self._critic.watching(num_tokens) if self._critic else contextlib.nullcontext([]) as self._values:
            yield
        self._inputs = None

    def clamped(self, logprobs: torch.Tensor) -> torch.Tensor:
        """The policy's log-probabilities (B, T), kept for the other terms.

        Inside `watching` they stay so near to those from before the update that their ratio cannot overflow.
        """
        old = (self._inputs or {}).get("old_per_token_logps")
        if old is not None:
            log_ratio = logprobs.detach() - old
            limit = old + log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
            logprobs = torch.where(log_ratio.abs() > MAX_LOG_RATIO, limit, logprobs)
        self.logprobs = logprobs
        return logprobs

    def whole(self, policy_loss: torch.Tensor, inputs: dict[str, Any], num_steps: int) -> torch.Tensor:
        """The loss of the micro batch that `watching` saw.

        Args:
            policy_loss: TRL's, a scalar.
            num_steps: steps made so far. In those of `critic.warmup_steps` the policy's part is 0.
        """
        loss = policy_loss + self.kl_term(self.logprobs, inputs)
        if self._critic is None:
            return loss
        is_warm = num_steps >= self._recipe.critic.warmup_steps
        return loss * float(is_warm) + self.critic_term(self._values[0][:, :-1], inputs)

    def kl_term(self, logprobs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor | float:
        """`algorithm.kl_coef` times the KL divergence from the reference model, where it belongs in the loss.

        With `kl_bias_correction`, k3 is weighted by the ratio of the new policy to the one that sampled, which carries
        a gradient of its own (DeepSeek-V3.2, arXiv:2512.02556; TRL's default).

        Args:
            logprobs: (B, T) of the policy, with gradient.
            inputs: the micro batch.
        """
        if "ref_per_token_logps" not in inputs:
            return 0.0
        mask, algorithm = inputs["completion_mask"], self._recipe.algorithm
        estimate = kl_estimate(logprobs, inputs["ref_per_token_logps"], algorithm.kl_estimator)
        if algorithm.kl_in == "reward":
            self._count("kl", estimate, mask)
            return 0.0
        if algorithm.kl_estimator == "k3" and algorithm.kl_bias_correction:
            old = inputs.get("old_per_token_logps", logprobs.detach())
            estimate = estimate * (logprobs - old).exp()
        self._count("kl", estimate, mask)
        return algorithm.kl_coef * self._sum(estimate, mask, algorithm.loss, inputs)

    def critic_term(self, values: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """`critic.value_coef` times the mean of the clipped value loss over the tokens of the update.

        Args:
            values: (B, T) float32 of the critic, with gradient.
            inputs: the micro batch, with `old_values` and `returns`, (B, T) each.
        """
        mask, section = inputs["completion_mask"], self._recipe.critic
        losses, is_clipped = value_loss(values, inputs["old_values"], inputs["returns"], clip=section.value_clip)
        self._count("value_loss", losses, mask)
        self._count("clip_share/value", is_clipped, mask)
        return section.value_coef * self._sum(losses, mask, "dapo", inputs)

    def take_metrics(self) -> dict[str, float]:
        """Means over the tokens of all micro batches and processes since the last call; all processes call it."""
        names = sorted(self._parts)
        sums = [self._sum_over_processes(self._parts[name]).tolist() for name in names]
        self._parts.clear()
        return {name: total / max(count, 1.0) for name, (total, count) in zip(names, sums, strict=True)}

    def _sum(self, token_losses: torch.Tensor, mask: torch.Tensor, loss: str, inputs: dict[str, Any]) -> torch.Tensor:
        sizes, recipe = self._sizes, self._recipe
        # Tokens of the whole step, of which an update has an equal share.
        per_process = inputs["num_items_in_batch"].clamp(min=1) / sizes.num_processes
        return aggregated(
            token_losses,
            mask,
            loss,
            max_tokens=recipe.rollout.max_new_tokens,
            num_tokens=per_process / recipe.algorithm.num_mini_batches,
            accumulation=sizes.gradient_accumulation,
        )

    def _count(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        parts = masked_mean_parts(values.detach(), mask.bool())
        self._parts[name] = self._parts[name].to(parts.device) + parts
