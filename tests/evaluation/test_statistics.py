"""pass@k, maj@k and standard errors, against counting, against values by hand, and against a bootstrap."""

import itertools
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from rl_posttrain.evaluation.statistics import majority_at_k, mean_over_questions, pass_at_k


@pytest.mark.parametrize("num_samples", [1, 4, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(num_samples):
    for num_correct in range(num_samples + 1):
        for k in range(1, num_samples + 1):
            draws = list(itertools.combinations([True] * num_correct + [False] * (num_samples - num_correct), k))
            by_counting = Fraction(sum(map(any, draws)), len(draws))
            assert pass_at_k(num_samples, num_correct, k) == pytest.approx(float(by_counting), abs=1e-12)


def test_pass_at_k_by_hand_and_with_large_numbers():
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(200, 3, 100) == pytest.approx(1 - (100 * 99 * 98) / (200 * 199 * 198))


def votes_won(votes: list[str | None], k: int) -> Fraction:
    """The share of subsets of k votes that "right" wins, counted one by one; a tie counts in parts."""
    won, subsets = Fraction(0), list(itertools.combinations(votes, k))
    for subset in subsets:
        counts = Counter(vote for vote in subset if vote is not None)
        first = [vote for vote in counts if counts[vote] == max(counts.values())]
        won += Fraction("right" in first, max(len(first), 1))
    return won / len(subsets)


def test_maj_at_k_is_the_share_of_votes_that_the_right_answer_wins():
    rng = random.Random(0)
    for _ in range(300):
        votes = [rng.choice(["right", "a", "b", "c", "d", None]) for _ in range(rng.randint(1, 9))]
        k = rng.randint(1, len(votes))
        counts = Counter(votes)
        unreadable, num_right = counts.pop(None, 0), counts.pop("right", 0)
        found = majority_at_k(num_right, list(counts.values()), unreadable, k)
        assert found == pytest.approx(float(votes_won(votes, k)), abs=1e-12), (votes, k)


@pytest.mark.parametrize(
    ("num_right", "wrong", "unreadable", "k", "chance"),
    [
        (1, [], 3, 4, 1.0),  # three unreadable answers do not outvote a right one
        (0, [], 4, 4, 0.0),  # and nothing wins where all are unreadable
        (2, [2], 0, 4, 1 / 2),  # a tie of two
        (1, [1, 1], 1, 4, 1 / 3),  # a tie of three
        (2, [3], 3, 8, 0.0),
        (3, [1], 0, 1, 3 / 4),  # k = 1 is the accuracy
        (2, [1], 0, 2, 1 / 3 + 2 / 3 / 2),  # both right, or one of each and a tie
        (40, [24], 0, 64, 1.0),
    ],
)
def test_maj_at_k_by_hand(num_right, wrong, unreadable, k, chance):
    assert majority_at_k(num_right, wrong, unreadable, k) == pytest.approx(chance, abs=1e-12)


def test_standard_errors_are_those_of_a_bootstrap_over_questions():
    rng = np.random.default_rng(0)
    for values in (rng.binomial(4, rng.beta(0.5, 0.5, 200)) / 4, rng.exponential(50, 120), rng.integers(0, 2, 80)):
        drawn = rng.choice(values, (4000, len(values))).mean(axis=1)
        estimate = mean_over_questions(values.tolist())
        assert estimate.value == pytest.approx(values.mean())
        assert estimate.error == pytest.approx(drawn.std(), rel=0.05)


def test_questions_without_a_value_are_left_out_and_one_alone_has_no_error():
    assert mean_over_questions([1.0, None, 0.0]).value == 0.5
    assert mean_over_questions([1.0, None, 0.0]).error == pytest.approx(0.5)  # sqrt(0.5) / sqrt(2)
    assert mean_over_questions([0.25]).error is None
    assert mean_over_questions([None]).value is None


def test_a_vote_among_thousands_of_samples_has_a_chance():
    """The right answer has as many samples as the only other one, so it wins half of the votes."""
    assert majority_at_k(1_500, [1_500], 0, 301) == pytest.approx(0.5)
