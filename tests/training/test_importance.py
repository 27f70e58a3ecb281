"""The importance corrections by hand."""

import math

import pytest
import torch

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.study.plan import variant_recipe
from rl_posttrain.training.importance import CORRECTIONS, corrected, token_ratios

TRAINED = torch.log(torch.tensor([[0.5, 0.8, 0.9], [0.2, 0.3, 0.9]]))
SAMPLED = torch.log(torch.tensor([[0.25, 0.8, 0.1], [0.4, 0.1, 0.9]]))
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("tis", None, 2.5, [[2.0, 1.0, 1.0], [0.5, 2.5, 1.0]]),
        ("tis", 0.75, 1.5, [[1.5, 1.0, 1.0], [0.75, 1.5, 1.0]]),
        ("mis", None, 2.5, [[2.0, 1.0, 1.0], [0.5, 0.0, 1.0]]),
        ("icepop", 0.75, 2.5, [[2.0, 1.0, 1.0], [0.0, 0.0, 1.0]]),
        # Geometric means: sqrt(2 * 1) = 1.414, the third token being none; (1/2 * 3 * 1) ** (1/3) = 1.145.
        ("sequence_mask", 0.5, 1.2, [[0.0, 0.0, 0.0], [0.5, 3.0, 1.0]]),
        ("sequence_mask", 1.2, 1.42, [[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
    ],
)
def test_weights_by_hand(name, low, high, expected):
    # Ratios a token: 2, 1 | 1/2, 3, 1.
    found = CORRECTIONS[name](token_ratios(TRAINED, SAMPLED, MASK), MASK, low, high)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_ratio_at_a_limit_is_inside(name):
    """As in the papers, TRL, verl and OpenRLHF."""
    ratio = torch.tensor([[0.5, 0.5], [4.0, 4.0]])
    assert torch.equal(CORRECTIONS[name](ratio, torch.ones(2, 2), 0.5, 4.0), ratio)


def test_a_completions_mean_is_over_its_own_tokens_whatever_stands_outside_of_the_mask():
    # sqrt(4 * 1) = 2 over two tokens; over all four places it would be 4 ** (1/4) = 1.41, or 32 ** (1/4) = 2.38.
    ratio, mask = torch.tensor([[4.0, 1.0, 8.0, 1.0]]), torch.tensor([[1, 1, 0, 0]])
    found = CORRECTIONS["sequence_mask"](ratio, mask, 1.9, 2.1)
    assert found[0, :2].tolist() == [4.0, 1.0]


def test_the_corrected_share_and_the_mean_ratio_count_the_tokens_of_all_processes():
    """One process has ratios 2, 1 | 1/2, 3, 1, the other one token of ratio 4: 2 of 6 are above 2.5; 11.5 / 6."""
    section = load_recipe("quickstart", ["rollout.importance_correction=tis", "rollout.importance_max=2.5"]).rollout
    sums = []

    def alone(found):
        sums.append(found)
        return found

    other = torch.log(torch.tensor([[0.8]])), torch.log(torch.tensor([[0.2]])), torch.tensor([[1]])
    weights, metrics = corrected(section, *other, alone)
    torch.testing.assert_close(weights, torch.tensor([[2.5]]))
    assert metrics == pytest.approx({"corrected_share": 1.0, "importance_ratio": 4.0})
    weights, metrics = corrected(section, TRAINED, SAMPLED, MASK, lambda found: torch.cat([found, *sums]))
    torch.testing.assert_close(weights, torch.tensor([[2.0, 1.0, 1.0], [0.5, 2.5, 1.0]]))
    assert metrics == pytest.approx({"corrected_share": 2 / 6, "importance_ratio": 11.5 / 6})


def test_what_stands_outside_of_the_mask_is_not_counted():
    """A ratio there is 1, and the lower limit of 1.5 changes its weight, too."""
    limits = ["rollout.importance_correction=tis", "rollout.importance_min=1.5", "rollout.importance_max=4"]
    section = load_recipe("quickstart", limits).rollout
    mask = torch.tensor([[1, 0, 0], [1, 0, 1]])
    _, metrics = corrected(section, TRAINED, SAMPLED, mask, lambda found: found)
    # Ratios of the three tokens: 2, 1/2, 1.
    assert metrics == pytest.approx({"corrected_share": 2 / 3, "importance_ratio": 3.5 / 3})


@pytest.mark.parametrize("name", CORRECTIONS)
def test_without_a_difference_every_token_keeps_its_weight(name):
    ratio = token_ratios(TRAINED, TRAINED, MASK)
    assert torch.equal(CORRECTIONS[name](ratio, MASK, 0.5, 2.0), torch.ones(2, 3))


def test_a_token_without_a_log_probability_counts_as_no_difference():
    sampled = SAMPLED.clone()
    sampled[1, 1] = math.nan
    torch.testing.assert_close(token_ratios(TRAINED, sampled, MASK)[1], torch.tensor([0.5, 1.0, 1.0]))


def test_no_ratio_overflows():
    far = torch.full((1, 1), -1e4)
    assert token_ratios(-far, far, torch.ones(1, 1)).isfinite().all()


def test_defaults_go_by_staleness_and_by_the_correction():
    def said(*overrides):
        section = load_recipe("quickstart", overrides).rollout
        return section.importance_correction, section.importance_min, section.importance_max

    assert said() == ("none", None, None)
    assert said("rollout.max_staleness=1") == ("tis", None, 2.0)
    assert said("rollout.max_staleness=1", "rollout.importance_correction=none") == ("none", None, None)
    assert said("rollout.importance_correction=tis") == ("tis", None, 2.0)
    assert said("rollout.importance_correction=mis") == ("mis", None, 2.0)
    assert said("rollout.importance_correction=icepop", "rollout.importance_max=3") == ("icepop", 0.5, 3.0)
    assert said("rollout.importance_correction=sequence_mask") == ("sequence_mask", 0.5, 5.0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rollout.importance_max=3"], "rollout.importance_max=3.0: rollout.importance_correction=none has no limits"),
        (["rollout.importance_correction=mis", "rollout.importance_min=0.1"], "rollout.importance_min=0.1: mis has no"),
        (["rollout.importance_correction=icepop", "rollout.importance_min=6"], "rollout.importance_min=6"),
        (["rollout.importance_correction=tis", "rollout.engine=transformers"], "rollout.importance_correction=tis"),
        (["rollout.max_staleness=1", "rollout.engine=transformers"], "rollout.max_staleness=1: rollout.engine=trans"),
    ],
)
def test_limits_that_do_not_fit_are_refused(overrides, said):
    with pytest.raises(RecipeError) as error:
        load_recipe("quickstart", overrides)
    assert str(error.value).startswith(said)


def test_a_comparison_may_vary_the_staleness_and_each_variant_has_its_default():
    recipe = load_recipe("quickstart", ["compare={}"])
    found = [variant_recipe(recipe, "adams", {"rollout.max_staleness": number})[0].rollout for number in (0, 1)]
    assert [section.importance_correction for section in found] == ["none", "tis"]
    icepop = load_recipe("quickstart", ["rollout.importance_correction=icepop", "rollout.importance_max=3"])
    section = variant_recipe(icepop, "adams", {"rollout.max_staleness": 1})[0].rollout
    assert (section.importance_correction, section.importance_max) == ("icepop", 3.0)
