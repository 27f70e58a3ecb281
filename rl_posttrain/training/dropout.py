"""Dropout belongs to the loss alone: what is sampled, and log-probabilities to compare with, are the policy's own."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Inside, `model` leaves nothing out, whether it is in training or not."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
