"""Starting the rewards' worker processes before the first batch needs them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.rewards import by_workers, math_accuracy, reasoning_gym, reasoning_gym_score
from rl_posttrain.rewards.accuracy import may_need_math_verify
from rl_posttrain.scoring import isolated
from rl_posttrain.scoring.golds import golds_of


def start_workers(specs: Sequence[RewardSpec], rows: Sequence[Mapping[str, Any]]) -> None:
    """Let the worker processes that rewards will need import their libraries, in the background.

    math-verify takes seconds to import. It is not started where all golds are numbers, words or letters, which this
    process compares itself.

    Args:
        rows: the task's, with `answer`.
    """
    for spec in specs:
        if spec.isolated:
            isolated.pool(spec).start()
        elif spec.function is reasoning_gym_score:
            reasoning_gym.pool().start()
        elif spec.function is math_accuracy and any(map(may_need_math_verify, golds_of(spec, rows))):
            by_workers.pool().start()
