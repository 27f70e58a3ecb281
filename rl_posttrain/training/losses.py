"""Pure tensor functions of the training loops."""

import torch


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
