"""A digest of a model's weights: two runs that start from the same model have the same."""

import hashlib
from collections.abc import Iterable

import torch


def weights_digest(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over the names and bytes of `weights`: two runs that start from the same model have the same."""
    digest = hashlib.sha256()
    for name, tensor in weights:
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()
