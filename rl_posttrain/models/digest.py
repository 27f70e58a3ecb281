"""A digest of a model's weights, to see whether two runs start from the same model."""

import hashlib
from collections.abc import Iterable

import torch


def weights_digest(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over the names and bytes of `weights`, in hexadecimal.

    Args:
        weights: names and tensors of any shape, dtype and device; their order counts.
    """
    digest = hashlib.sha256()
    for name, tensor in weights:
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()
