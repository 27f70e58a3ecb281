"""The drift check by hand: what counts, when it fails, and where it only records."""

import math

import pytest
import torch

from rl_posttrain.errors import WeightSyncError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.training.drift import DriftCheck

WHOLE = Sampling(max_tokens=4)


def drift_check(limit=0.15, sampling=WHOLE, processes=1):
    recipe = load_recipe("quickstart", [f"rollout.max_logprob_difference={limit}"])
    return DriftCheck(recipe, sampling, lambda parts: parts * processes)


def test_the_mean_is_over_the_completions_tokens_and_over_micro_batches():
    check = drift_check(limit=0.2)
    check.add(torch.tensor([[-1.0, -9.0]]), torch.tensor([[-1.1, -5.0]]), torch.tensor([[1, 0]]))
    check.add(torch.tensor([[-2.0, -3.0]]), torch.tensor([[-2.2, math.nan]]), torch.tensor([[1, 1]]))
    assert check.check(3) == pytest.approx((0.1 + 0.2) / 2)
    check.start()
    check.add(torch.tensor([[-1.0]]), torch.tensor([[-1.0]]), torch.tensor([[1]]))
    assert check.check(4) == 0.0


@pytest.mark.parametrize("value", [0.16, math.inf])
def test_a_difference_above_the_limit_fails_and_names_step_and_key(value):
    check = drift_check()
    check.add(torch.tensor([[-1.0]]), torch.tensor([[-1.0 - value]]), torch.tensor([[1]]))
    with pytest.raises(WeightSyncError, match=r"rollout.max_logprob_difference=0.15: at step 7"):
        check.check(7)


@pytest.mark.parametrize("reshaped", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.1}])
def test_a_reshaped_distribution_is_recorded_and_not_judged(reshaped):
    check = drift_check(sampling=Sampling(max_tokens=4, **reshaped))
    check.add(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), torch.tensor([[1]]))
    assert check.check(1) == 1.0
