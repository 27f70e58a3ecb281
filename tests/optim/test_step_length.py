"""AdamS's steps are sqrt(10) times as long as AdamW's where gradients are noise, and as long where they agree."""

import sys
from pathlib import Path

import numpy
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "adams"))
import step_length as experiment

NUM_ELEMENTS, NUM_STEPS = 2_000, 200


def simulated(ratio: float) -> float:
    """AdamS's steps over AdamW's, from both rules in numpy and float64, with noise of its own."""
    draw = numpy.random.default_rng(1)
    momentum, average, second = (numpy.zeros(NUM_ELEMENTS) for _ in range(3))
    squares = numpy.zeros(2)
    for step in range(1, NUM_STEPS + 401):
        gradient = ratio + draw.standard_normal(NUM_ELEMENTS)
        nu = 0.95 * momentum**2 + 0.05 * gradient**2
        momentum = 0.9 * momentum + 0.1 * gradient
        average = 0.9 * average + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        if step > NUM_STEPS:
            adamw = average / (1 - 0.9**step) / numpy.sqrt(second / (1 - 0.999**step))
            squares += numpy.mean((momentum / numpy.sqrt(nu)) ** 2), numpy.mean(adamw**2)
    return (squares[0] / squares[1]) ** 0.5


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 10.0])
def test_the_classes_step_as_the_rules_and_the_derivation_say(ratio):
    adams, adamw = (
        experiment.step_length(name, betas, ratio, NUM_ELEMENTS, NUM_STEPS)
        for name, betas in (("adams", (0.9, 0.95)), ("adamw", (0.9, 0.999)))
    )
    assert adams / adamw == pytest.approx(simulated(ratio), rel=0.02)
    # The derivation takes the root of a mean for the mean of a root.
    assert adams / adamw == pytest.approx(experiment.predicted(ratio), rel=0.06)


def test_the_derivation_by_hand():
    assert experiment.predicted(0.0) == pytest.approx(10**0.5)  # 0.95 * 0.1 / 1.9 + 0.05 = 0.1
    assert experiment.predicted(1e6) == pytest.approx(1)
