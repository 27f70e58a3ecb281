"""Rewards and algorithms that go wrong at a step: a recipe names them by file.

The reward knows the step from TRL's state, which a resumed run has, too.
"""

import torch

from rl_posttrain.training.algorithms.algorithm import Advantages, Scored
from rl_posttrain.training.algorithms.grpo import GRPO

_step = 0


def digit_share(completions, trainer_state=None, log_metric=None, value=None, at=0, **columns):
    """Pays for digits; in step `at` it pays the third completion of each call `value`, which may be any number."""
    global _step
    if trainer_state is not None:
        _step = trainer_state.global_step + 1
    paid = [sum(character.isdigit() for character in text) / max(1, len(text)) for text in completions]
    if value is not None and at == _step:
        paid[2] = 10**400 if value == "10**400" else float(value)
    return paid


def same(completions, **columns):
    return [0.5] * len(completions)


class _At3(GRPO):
    """Changes the advantages of step 3."""

    def advantages(self, scored: Scored) -> Advantages:
        found = super().advantages(scored)
        return Advantages(self.changed(found.values.clone()) if _step == 3 else found.values, found.metrics)


class NaN(_At3):
    def changed(self, values: torch.Tensor) -> torch.Tensor:
        values[0] = torch.nan
        return values


class Large(_At3):
    def changed(self, values: torch.Tensor) -> torch.Tensor:
        return values * 1e6


class NaNFrom3(GRPO):
    def advantages(self, scored: Scored) -> Advantages:
        found = super().advantages(scored)
        return Advantages(found.values * (torch.nan if _step >= 3 else 1.0), found.metrics)
