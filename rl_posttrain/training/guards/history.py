"""Guards of a run's rows: the gradient's norm far over its history, entropy collapse, reward collapse.

Each is a function of the rows of metrics.jsonl, so that a resumed run sees what the whole run has seen.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.series import number, numbers, smooth
from rl_posttrain.training.guards.completions import LEARNED, changed
from rl_posttrain.training.guards.finding import Finding

Rows = Sequence[Mapping[str, Any]]
_WINDOW = 5  # steps in a mean of rewards
# By how many standard deviations of a step's reward it must have fallen: a mean of 5 falls by so much never by chance.
_DEVIATIONS = 4.0


def gradient_norm(recipe: Recipe, norm: float, rows: Rows) -> Finding | None:
    """The norm is far above the highest of the last steps, and above the limit of clipping."""
    limits, clipped_at = recipe.guards.gradient_norm, recipe.optimizer.max_grad_norm
    before = numbers([row for row in rows[-limits.window :] if not row.get("guards/gradient_norm")], "grad_norm")
    if len(before) < limits.after_steps or norm <= clipped_at or norm <= limits.factor * max(before):
        return None
    what = f"the gradient's norm is {norm:.3g}; the highest of the last {len(before)} steps was {max(before):.3g}"
    return Finding("gradient_norm", what, f"lower optimizer.lr={recipe.optimizer.lr:g}", lower_rate(recipe))


def entropy(recipe: Recipe, specs: Sequence[RewardSpec], rows: Rows) -> Finding | None:
    """The policy hardly explores any more, and has not learned the task."""
    limits, recent = recipe.guards.entropy, _since_the_last_return(rows)[-recipe.guards.entropy.steps :]
    found = numbers(recent, "entropy")
    if len(found) < limits.steps or (mean := sum(found) / len(found)) >= limits.min or has_learned(specs, rows):
        return None
    what = (
        f"the entropy is {mean:.2g} nats a token in the mean of {limits.steps} steps, and the reward "
        f"{_mean(recent, 'reward'):.2f}: the policy no longer explores, and has not learned the task"
    )
    fix = f"lower optimizer.lr={recipe.optimizer.lr:g}, raise rollout.temperature, or set algorithm.kl_coef"
    return Finding("entropy", what, fix, lower_rate(recipe), since=recent[0]["step"])


def reward_collapse(recipe: Recipe, rows: Rows) -> Finding | None:
    """The reward has lost most of what it had gained, and more than chance explains."""
    limits = recipe.guards.reward_collapse
    recent = _since_the_last_return(rows)[-limits.steps :]
    rewards = numbers(rows, "reward")
    if len(numbers(recent, "reward")) < limits.steps or len(rewards) < 2 * _WINDOW:
        return None
    best = max(smooth(rewards, _WINDOW)[_WINDOW - 1 :])
    low = min(0.0, min(rewards)) if best > 0 else min(rewards)
    now = _mean(recent, "reward")
    # Of a step's reward about its trend, from differences of neighbours.
    differences = [after - before for before, after in itertools.pairwise(rewards)]
    deviation = math.sqrt(statistics.fmean(difference**2 for difference in differences) / 2)
    if now >= low + limits.share * (best - low) or best - now <= _DEVIATIONS * deviation:
        return None
    what = f"the reward is {now:.3g} in the mean of {limits.steps} steps, and was {best:.3g} at its best"
    fix = f"lower optimizer.lr={recipe.optimizer.lr:g}, or set algorithm.kl_coef"
    return Finding("reward_collapse", what, fix, lower_rate(recipe), since=recent[0]["step"])


def has_learned(specs: Sequence[RewardSpec], rows: Rows) -> bool:
    """Whether the last rewards are about as high as they can be, as far as the recipe says how high that is.

    Where it does not say that, they are if they are the best so far, and better than at the start.
    """
    accuracies = numbers(rows[-_WINDOW:], "accuracy")
    if accuracies:
        return statistics.fmean(accuracies) >= LEARNED
    now = _mean(rows[-_WINDOW:], "reward")
    if all(spec.range is not None for spec in specs):
        ends = [sorted(spec.weight * end for end in spec.range) for spec in specs]
        low, high = (sum(end[place] for end in ends) for place in (0, 1))
        return now >= low + LEARNED * (high - low)
    means = smooth(numbers(rows, "reward"), _WINDOW)
    return bool(means) and now > means[min(_WINDOW, len(means)) - 1] and now >= max(means) - 0.1 * abs(max(means))


def lower_rate(recipe: Recipe) -> tuple[str, ...]:
    """What to add to a command, to go on with a tenth of the learning rate."""
    return changed("optimizer.lr", recipe.optimizer.lr / 10)


def _since_the_last_return(rows: Rows) -> Rows:
    """The rows after the last one in which the run went back to a checkpoint."""
    places = [place for place, row in enumerate(rows) if row.get("rolled_back_to") is not None]
    return rows[places[-1] + 1 :] if places else rows


def _mean(rows: Rows, key: str) -> float:
    found = [value for row in rows if (value := number(row, key)) is not None]
    return statistics.fmean(found) if found else math.nan
