"""Correction for what the sampler's and the trainer's log-probabilities differ by (truncated or masked ratios)."""

import torch


def importance_ratio(
    trained: torch.Tensor,
    sampled: torch.Tensor,
    mask: torch.Tensor,
    *,
    mode: str,
    clip_min: float | None,
    clip_max: float | None,
) -> torch.Tensor:
    """How much more likely the trainer's policy finds what the engine sampled; TRL's loss multiplies by it.

    Args:
        trained: (B, T) log-probabilities under the trainer's weights before the update, in nats.
        sampled: (B, T) log-probabilities that the engine sampled with; NaN counts as no difference.
        mask: (B, T), nonzero on the completion's tokens.
        mode: ``token_truncate``, ``token_mask``, ``sequence_truncate`` or ``sequence_mask``: a ratio per token or
            completion; outside of the limits it is clamped, or set to zero.
        clip_min, clip_max: the limits; None for none.

    Returns:
        (B, T) for the token modes, (B, 1) for the sequence modes.
    """
    difference = ((trained - sampled) * mask).nan_to_num(nan=0.0)
    level, treatment = mode.split("_")
    ratio = (difference.sum(dim=-1, keepdim=True) if level == "sequence" else difference).exp()
    if treatment == "truncate":
        return ratio.clamp(min=clip_min, max=clip_max)
    low = -torch.inf if clip_min is None else clip_min
    high = torch.inf if clip_max is None else clip_max
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
