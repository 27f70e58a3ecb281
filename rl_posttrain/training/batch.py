"""Completions as the tensors that TRL's loss takes."""

from collections.abc import Sequence
from typing import Any

import torch

from rl_posttrain.rollout.completion import Completion


def loss_inputs(
    completions: Sequence[Completion],
    *,
    pad_token_id: int,
    device: torch.device,
    multiple_of: int | None = None,
    mask_truncated: bool = False,
) -> dict[str, torch.Tensor]:
    """Token ids and masks of B completions, under TRL's names.

    Args:
        multiple_of: pad lengths to a multiple of it.
        mask_truncated: leave completions that were cut at the token limit out of the loss.

    Returns:
        ``prompt_ids`` and ``prompt_mask`` (B, P) int64, padded on the left; ``completion_ids`` and ``completion_mask``
        (B, T) int64, padded on the right; ``sampling_per_token_logps`` (B, T) float32 in nats where the engine gave
        log-probabilities, NaN for a token it could not score.
    """
    prompts = [torch.tensor(completion.prompt_ids) for completion in completions]
    tokens = [torch.tensor(completion.token_ids) for completion in completions]
    kept = [
        torch.full_like(ids, int(not (mask_truncated and completion.finish_reason == "length")))
        for ids, completion in zip(tokens, completions, strict=True)
    ]
    inputs: dict[str, Any] = {
        "prompt_ids": _pad(prompts, pad_token_id, multiple_of, left=True),
        "prompt_mask": _pad([torch.ones_like(ids) for ids in prompts], 0, multiple_of, left=True),
        "completion_ids": _pad(tokens, pad_token_id, multiple_of),
        "completion_mask": _pad(kept, 0, multiple_of),
    }
    if completions[0].logprobs is not None:
        sampled = [
            torch.tensor([torch.nan if value is None else value for value in completion.logprobs])
            for completion in completions
        ]
        inputs["sampling_per_token_logps"] = _pad(sampled, 0.0, multiple_of)
    return {name: value.to(device) for name, value in inputs.items()}


def reward_matrix(completions: Sequence[Completion], names: Sequence[str]) -> torch.Tensor:
    """(B, R) float32: a row a completion, a column a reward of `names`; NaN where a reward gave none."""
    values = [[completion.rewards[name] for name in names] for completion in completions]
    return torch.tensor([[torch.nan if value is None else value for value in row] for row in values])


def set_advantages(completions: Sequence[Completion], values: torch.Tensor, mask: torch.Tensor) -> None:
    """Fill the record of each completion.

    Args:
        values: (B,) advantages, or (B, T), of which the mean over the completion's tokens is recorded.
        mask: (B, T), nonzero on the completion's tokens.
    """
    if values.dim() == 2:
        values = (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    for completion, value in zip(completions, values.tolist(), strict=True):
        completion.advantage = value


def _pad(sequences: Sequence[torch.Tensor], value: float, multiple_of: int | None, left: bool = False) -> torch.Tensor:
    """(B, longest) from B one-dimensional tensors."""
    length = max(map(len, sequences))
    if multiple_of:
        length = -(-length // multiple_of) * multiple_of
    padded = torch.full((len(sequences), length), value, dtype=sequences[0].dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        row[length - len(sequence) if left else 0 : length if left else len(sequence)] = sequence
    return padded
