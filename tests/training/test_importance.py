"""The importance ratio of sampler and trainer, by hand and as TRL's trainer makes it."""

import math

import pytest
import torch

from rl_posttrain.training.importance import importance_ratio

TRAINED = torch.log(torch.tensor([[0.5, 0.8, 0.9], [0.2, 0.3, 0.9]]))
SAMPLED = torch.log(torch.tensor([[0.25, 0.8, 0.1], [0.4, 0.1, 0.9]]))
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_truncate", [[2.0, 1.0, 1.0], [0.75, 2.5, 1.0]]),
        ("token_mask", [[2.0, 1.0, 1.0], [0.0, 0.0, 1.0]]),
        ("sequence_truncate", [[2.0], [1.5]]),
        ("sequence_mask", [[2.0], [1.5]]),
    ],
)
def test_ratios_by_hand(mode, expected):
    # Ratios a token: 2, 1 | 1/2, 3, 1; a completion: 2 and 3/2. Limits 0.75 and 2.5.
    found = importance_ratio(TRAINED, SAMPLED, MASK, mode=mode, clip_min=0.75, clip_max=2.5)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_limits_apply_to_whole_completions():
    kept = importance_ratio(TRAINED, SAMPLED, MASK, mode="sequence_mask", clip_min=None, clip_max=1.75)
    torch.testing.assert_close(kept, torch.tensor([[0.0], [1.5]]))
    cut = importance_ratio(TRAINED, SAMPLED, MASK, mode="sequence_truncate", clip_min=1.75, clip_max=None)
    torch.testing.assert_close(cut, torch.tensor([[2.0], [1.75]]))


def test_a_token_without_a_log_probability_counts_as_no_difference():
    sampled = SAMPLED.clone()
    sampled[1, 1] = math.nan
    found = importance_ratio(TRAINED, sampled, MASK, mode="token_mask", clip_min=None, clip_max=None)
    torch.testing.assert_close(found[1], torch.tensor([0.5, 1.0, 1.0]))
