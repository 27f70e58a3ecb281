"""Pure tensor functions of the training loops."""

import torch

# Log-ratios beyond it are clamped: exp(20) is 5e8, far outside of any clip range, and exp(89) overflows in fp32.
MAX_LOG_RATIO = 20.0


def masked_mean_parts(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum and count of the values that count; two numbers that add up over micro batches and processes.

    Args:
        values: (B, T) float; what stands where the mask is False is never read, NaN included.
        mask: (B, T) bool.

    Returns:
        (2,) float32: the sum of the masked values, and how many there are.
    """
    kept = torch.where(mask, values, torch.zeros_like(values)).float()
    return torch.stack([kept.sum(), mask.sum().float()])


def kl_estimate(policy: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """An estimate of KL(policy || reference) from tokens that the policy sampled (http://joschu.net/blog/kl-approx.html).

    With x = log policy - log reference, clamped to +-20:

    ====  ==================  =========================================================================
    k1    x                   unbiased, often negative; its gradient as a loss is 0 in expectation
    k2    x^2 / 2             biased; its gradient as a loss is that of the KL divergence
    k3    exp(-x) - 1 + x     unbiased and never negative; its gradient as a loss is that of the forward KL
    ====  ==================  =========================================================================

    >>> x = torch.tensor([0.5, -0.5])
    >>> [[round(value, 4) for value in kl_estimate(x, torch.zeros(2), name).tolist()] for name in ("k1", "k2", "k3")]
    [[0.5, -0.5], [0.125, 0.125], [0.1065, 0.1487]]

    Args:
        policy, reference: (B, T) float, log-probabilities of the sampled tokens in nats. A gradient goes to both.

    Returns:
        (B, T) in nats.
    """
    x = (policy - reference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return x
    return x.square() / 2 if estimator == "k2" else torch.exp(-x) - 1 + x


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, *, clip: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error of each value, clipped as PPO's policy loss is: the larger of two errors counts.

    One is that of the value, the other that of the value kept within `clip` of the old one (PPO's reference code).

    >>> values, old, returns = torch.tensor([0.5, 0.9]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    >>> [part.tolist() for part in value_loss(values, old, returns, clip=0.25)]
    [[0.28125, 0.28125], [True, True]]
    >>> value_loss(values, old, returns, clip=None)[0].tolist()[0]
    0.125

    Args:
        values: (B, T) float; carries the gradient.
        old_values: (B, T), from before the step's first update.
        returns: (B, T), the targets.
        clip: half the width of the range around the old values; None for no clipping.

    Returns:
        (B, T) losses, in squared units of the reward; and (B, T) bool, where the clipped error is the one that counts,
        which has no gradient.
    """
    losses = (values - returns).square() / 2
    if clip is None:
        return losses, torch.zeros_like(losses, dtype=torch.bool)
    kept = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    clipped = (kept - returns).square() / 2
    return torch.maximum(losses, clipped), clipped > losses


def aggregated(
    token_losses: torch.Tensor,
    mask: torch.Tensor,
    loss: str,
    *,
    max_tokens: int,
    num_tokens: torch.Tensor | float,
    accumulation: int,
) -> torch.Tensor:
    """Token losses as one number, divided as `algorithm.loss` says; as TRL does for the policy's own.

    Args:
        token_losses: (B, T) float of one micro batch.
        mask: (B, T), 1 on tokens that count.
        loss: a value of `algorithm.loss`.
        max_tokens: `rollout.max_new_tokens`, by which ``dr_grpo`` divides.
        num_tokens: tokens of one update and process, by which ``dapo``, ``cispo`` and ``vespo`` divide.
        accumulation: micro batches of one update, over which the others take the mean.

    Returns:
        Scalar; the sum over the micro batches of an update is the update's loss.
    """
    kept = token_losses * mask
    if loss in ("dapo", "cispo", "vespo"):
        return kept.sum() / num_tokens
    if loss == "dr_grpo":
        return kept.sum() / (len(kept) * max_tokens) / accumulation
    if loss == "bnpo":
        return kept.sum() / mask.sum().clamp(min=1) / accumulation
    sums = kept.sum(dim=1)
    return (sums if loss == "luspo" else sums / mask.sum(dim=1).clamp(min=1)).mean() / accumulation
