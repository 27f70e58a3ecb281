"""Generalized advantage estimates against a plain loop over tokens in Python's floats, which are float64."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_posttrain.training.algorithms.ppo import gae, length_adaptive_lambda

GAMMAS = (0.25, 0.9, 0.99, 1.0)


def by_hand(rewards, values, mask, gamma, lambda_, bootstrap):
    """One row: the sum of the later one-step errors of the tokens in the mask, written out for each token."""
    places = [t for t, counts in enumerate(mask) if counts]
    after = values[places[-1] + 1] if places and bootstrap else 0.0
    expected = [0.0] * len(mask)
    for first, t in enumerate(places):
        for distance, place in enumerate(places[first:]):
            is_last = place == places[-1]
            follows = after if is_last else values[places[first + distance + 1]]
            error = rewards[place] + gamma * follows - values[place]
            expected[t] += (gamma * lambda_) ** distance * error
    return expected


@st.composite
def batches(draw):
    """Rows of unequal lengths, with holes, some without any token; each with a lambda and an end of its own."""
    num_rows, num_tokens = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    random_ = random.Random(draw(st.integers(0, 2**32)))
    mask = [draw(st.lists(st.integers(0, 1), min_size=num_tokens, max_size=num_tokens)) for _ in range(num_rows)]
    rewards = [[counts * random_.gauss(0, 1) for counts in row] for row in mask]
    values = [[random_.gauss(0, 1) for _ in range(num_tokens + 1)] for _ in range(num_rows)]
    lambdas = [draw(st.sampled_from((0.0, 0.5, 0.95, 1.0))) for _ in range(num_rows)]
    bootstrap = [draw(st.booleans()) for _ in range(num_rows)]
    return rewards, values, mask, lambdas, bootstrap


def estimates(batch, gamma, dtype=torch.float64):
    rewards, values, mask, lambdas, bootstrap = batch
    return gae(
        torch.tensor(rewards, dtype=dtype), torch.tensor(values, dtype=dtype), torch.tensor(mask),
        gamma=gamma, lambda_=torch.tensor(lambdas, dtype=dtype), bootstrap=torch.tensor(bootstrap),
    )  # fmt: skip


@given(batches(), st.sampled_from(GAMMAS))
def test_estimates_are_those_of_a_plain_loop(batch, gamma):
    expected = [by_hand(*row[:3], gamma, *row[3:]) for row in zip(*batch, strict=True)]
    torch.testing.assert_close(
        estimates(batch, gamma), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    single = estimates(batch, gamma, torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), estimates(batch, gamma), rtol=1e-4, atol=1e-4)


@given(batches())
def test_at_gamma_and_lambda_1_it_is_the_return_less_the_value(batch):
    rewards, values, mask, lambdas, _ = batch
    found = estimates((rewards, values, mask, [1.0] * len(lambdas), [False] * len(lambdas)), 1.0)
    for row, (paid, expects, counts) in enumerate(zip(rewards, values, mask, strict=True)):
        for t in range(len(counts)):
            assert found[row, t].item() == pytest.approx(counts[t] * (sum(paid[t:]) - expects[t]), abs=1e-12)


@given(batches(), st.sampled_from(GAMMAS))
def test_at_lambda_0_it_is_the_error_of_one_step(batch, gamma):
    rewards, values, mask, lambdas, bootstrap = batch
    found = estimates((rewards, values, mask, [0.0] * len(lambdas), bootstrap), gamma)
    for row, (paid, expects, counts) in enumerate(zip(rewards, values, mask, strict=True)):
        places = [t for t, is_there in enumerate(counts) if is_there]
        ends = expects[places[-1] + 1] if places and bootstrap[row] else 0.0
        follows = dict(zip(places, [*(expects[t] for t in places[1:]), ends], strict=False))
        for t in range(len(counts)):
            error = paid[t] + gamma * follows[t] - expects[t] if counts[t] else 0.0
            assert found[row, t].item() == pytest.approx(error, abs=1e-12)


@given(batches(), st.sampled_from(GAMMAS), st.integers(0, 3))
def test_padding_changes_nothing_and_is_not_read(batch, gamma, width):
    """What stands where the mask is 0 can be anything, on the right of a completion and on its left."""
    rewards, values, mask, lambdas, bootstrap = batch
    plain = estimates(batch, gamma)
    wider = (
        [[0.0] * width + row + [0.0] * width for row in rewards],
        [[7.0] * width + row + [9.0] * width for row in values],
        [[0] * width + row + [0] * width for row in mask],
        lambdas, bootstrap,
    )  # fmt: skip
    found = estimates(wider, gamma)
    assert torch.equal(found[:, width : width + plain.size(1)], plain)
    assert found.count_nonzero() == plain.count_nonzero()


def test_a_lambda_grows_with_the_length_up_to_1():
    lengths = torch.tensor([0, 1, 20, 40, 400, 20_000])
    # 1 - 1 / (0.05 length): below 0 up to 20 tokens.
    expected = [0.0, 0.0, 0.0, 0.5, 0.95, 0.999]
    assert length_adaptive_lambda(lengths, 0.05).tolist() == pytest.approx(expected, abs=1e-6)
