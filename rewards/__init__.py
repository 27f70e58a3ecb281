"""Rule-based reward functions. They are plain TRL reward functions, and so is a reward of your own (docs/rewards.md).

A reward takes `completions` and, by name, columns of the data set. It returns one number for each completion, or None
where it cannot judge. Importing this package loads no mathematics library: only worker processes do, when
`math_accuracy` needs one.
"""

from dataclasses import dataclass
from typing import Literal

from rl_posttrain.rewards.accuracy import math_accuracy
from rl_posttrain.rewards.countdown import countdown_equation
from rl_posttrain.rewards.format import think_answer_format
from rl_posttrain.rewards.reasoning_gym import reasoning_gym_score

__all__ = [
    "REWARDS",
    "BuiltIn",
    "countdown_equation",
    "math_accuracy",
    "reasoning_gym_score",
    "think_answer_format",
]


@dataclass(frozen=True)
class BuiltIn:
    """What a recipe gets under a short name.

    Attributes:
        location: of the function, as ``package.module:name``.
        judges: whether full credit means a right ``answer`` or a completion in the right ``form``; None for a reward
            that only shapes.
        range: the lowest and the highest that it pays; None where its arguments decide that.
        is_factory: whether the function makes the reward from the recipe's `args`, as TRL's do.
        reader: of a reward that judges answers: ``package.module:name`` of the function that takes a completion and
            returns the answer in it, or None; maj@k votes by it. None: `accuracy.final_answer`.
    """

    location: str
    judges: Literal["answer", "form"] | None = None
    range: tuple[float, float] | None = None
    is_factory: bool = False
    reader: str | None = None


REWARDS = {
    "math_accuracy": BuiltIn("rl_posttrain.rewards.accuracy:math_accuracy", judges="answer", range=(0.0, 1.0)),
    "countdown_equation": BuiltIn(
        "rl_posttrain.rewards.countdown:countdown_equation",
        judges="answer",
        range=(0.0, 1.0),
        reader="rl_posttrain.rewards.countdown:stated_equation",
    ),
    "reasoning_gym_score": BuiltIn(
        "rl_posttrain.rewards.reasoning_gym:reasoning_gym_score",
        judges="answer",
        range=(0.0, 1.0),
        reader="rl_posttrain.rewards.reasoning_gym:stated_answer",
    ),
    "think_answer_format": BuiltIn("rl_posttrain.rewards.format:think_answer_format", judges="form", range=(0.0, 1.0)),
    "repetition_penalty": BuiltIn("trl.rewards:get_repetition_penalty_reward", is_factory=True),
    "soft_overlong": BuiltIn("trl.rewards:get_soft_overlong_punishment", range=(-1.0, 0.0), is_factory=True),
    "cosine_scaled": BuiltIn("trl.rewards:get_cosine_scaled_reward", is_factory=True),
}
