"""Digests of weights: of tensors in memory, and of a model's files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.json")
_NUM_PIECES, _PIECE_BYTES = 256, 2**14


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


def folder_digest(folder: Path) -> str:
    """SHA-256 over a model folder's files, in hexadecimal: names, sizes, and evenly spread pieces of their content.

    Two checkpoints of one run differ in nearly every piece; reading only these takes no time for a model of any size.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _WEIGHT_FILES for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            num_pieces = min(_NUM_PIECES, -(-size // _PIECE_BYTES))
            for piece in range(num_pieces):
                # From the file's first bytes to its last; a file of few pieces is read whole.
                file.seek((size - _PIECE_BYTES) * piece // (num_pieces - 1) if num_pieces > 1 else 0)
                digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()
