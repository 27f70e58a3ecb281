"""Rule-based rewards, as plain TRL reward functions; one of your own has the same shape (docs/rewards.md).

A reward takes `completions` and the data set's columns by name, and returns one number a completion, or None where it
cannot judge. Importing this package loads no mathematics library; `math_accuracy` does so when an answer needs it.
"""

from rl_posttrain.rewards.accuracy import math_accuracy
from rl_posttrain.rewards.countdown import countdown_equation
from rl_posttrain.rewards.format import think_answer_format

__all__ = ["ACCURACY", "REWARDS", "WELL_FORMED", "countdown_equation", "math_accuracy", "think_answer_format"]

REWARDS = {
    "math_accuracy": "rl_posttrain.rewards.accuracy:math_accuracy",
    "countdown_equation": "rl_posttrain.rewards.countdown:countdown_equation",
    "think_answer_format": "rl_posttrain.rewards.format:think_answer_format",
}

# Which of them say that an answer is right (at 1.0; less is partial credit), and which judge its form.
ACCURACY = {"math_accuracy", "countdown_equation"}
WELL_FORMED = {"think_answer_format"}
