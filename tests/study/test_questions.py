"""Paired comparisons on the same questions: their intervals cover, and their verdicts are those of runs."""

import numpy as np
import pytest

from rl_posttrain.study.questions import compare_on_questions, differences, paired_estimate

NUM_PAIRS = 1_000


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("num_questions", [50, 200])
@pytest.mark.parametrize(("mean", "gain"), [(0.15, 0.0), (0.5, 0.1), (0.9, 0.05)])
def test_intervals_cover_the_true_difference_at_their_rate(num_questions, num_samples, mean, gain):
    """A thousand pairs of made-up models: the chance to be right differs from question to question."""
    rng = np.random.default_rng(num_questions + num_samples)
    chances = rng.beta(2 * mean, 2 * (1 - mean), 100_000)
    better = np.clip(chances + 2 * gain * rng.random(len(chances)), 0, 1)
    truth = (better - chances).mean()
    covered = 0
    for _ in range(NUM_PAIRS):
        asked = rng.integers(0, len(chances), num_questions)
        one, other = (rng.binomial(num_samples, chance[asked]) / num_samples for chance in (better, chances))
        low, high = paired_estimate(one, other, 1 / num_samples).interval()
        covered += low <= truth <= high
    # 0.95, less four standard errors of this simulation; a little more where values are few.
    assert 0.92 <= covered / NUM_PAIRS <= 0.99


def test_the_interval_of_zeros_and_ones_is_that_of_bonett_and_price():
    """12 questions that only the first model gets right, 4 that only the other does, of 60."""
    one, other = np.zeros(60), np.zeros(60)
    one[:12] = 1
    other[12:16] = 1
    estimate = paired_estimate(one, other, 1.0)
    first, second = (12 + 1) / (60 + 2), (4 + 1) / (60 + 2)
    assert estimate.difference == pytest.approx(first - second)
    assert estimate.error == pytest.approx(((first + second - (first - second) ** 2) / 62) ** 0.5)


def test_the_sentence_has_the_difference_that_was_measured():
    comparison = verdict([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0] * 10)
    assert comparison.difference == pytest.approx(0.3)
    assert "+0.3 (95 % CI" in comparison.sentence


def questions(values):
    return [{"metrics": {"accuracy": float(value), "length": 10.0 * value}} for value in values]


def verdict(one, other, margin=0.05):
    evaluations = {"mine": questions(one), "base": questions(other)}
    (comparison,) = compare_on_questions(evaluations, "base", num_samples=1, margin=margin)
    return comparison


def test_verdicts():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 400)
    assert verdict(np.ones(400), base).word == "better"
    assert verdict(base, np.ones(400)).word == "worse"
    assert verdict(base, base).word == "equivalent"
    few = verdict(base[:20], 1 - base[:20])
    assert few.word == "undecided"
    assert f"about {few.seeds_needed:,} questions would decide" in few.sentence or "more than" in few.sentence
    assert "20 questions" in few.sentence


def test_agreement_on_a_few_questions_proves_nothing():
    assert verdict(np.ones(12), np.ones(12)).word == "undecided"
    none = verdict(np.ones(9), np.ones(9))
    assert none.sentence == "mine: no verdict: there are 9 questions, and at least 10 are needed"


def test_differences_of_every_metric():
    found = differences(questions([1, 1, 0, 1]), questions([1, 0, 0, 0]), 1)
    assert found["accuracy"].difference == 0.5
    assert found["length"].difference == 5.0
    assert found["length"].low < 5.0 < found["length"].high
