"""Guards of what was drawn: no group teaches, groups without variety, completions that are cut off.

They read the step's rollouts (`Completion.as_rollout`, of all processes, groups together) and the rows of earlier
steps, and so say the same in a resumed run.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.series import number, numbers
from rl_posttrain.scoring.judges import Judge
from rl_posttrain.scoring.shares import shares_of_full_credit
from rl_posttrain.training.guards.finding import Finding

Rollouts = Sequence[Mapping[str, Any]]
Rows = Sequence[Mapping[str, Any]]
# From here on a step is right often enough for a policy that has learned what there is.
LEARNED = 0.9
# Sampled at less, the completions of a prompt are about the same.
COLD = 0.1


def shares(rollouts: Rollouts, group_size: int, *, by_group: bool) -> dict[str, float | None]:
    """What the guards below need to know of a step, for its row of metrics.

    Args:
        by_group: whether the algorithm compares the completions of a prompt; if not, it compares all of a step.

    Returns:
        ``teaching_share``: share of groups whose completions got different rewards; where all are compared, 1 or 0.
        ``equal_share``: share of groups whose completions are all the same; None where a group has one completion.
    """
    groups = [rollouts[start : start + group_size] for start in range(0, len(rollouts), group_size)]
    compared = groups if by_group else [rollouts]
    teaching = [len({rollout["reward"] for rollout in group} - {None}) > 1 for group in compared]
    equal = [all(rollout["completion"] == group[0]["completion"] for rollout in group) for group in groups]
    return {
        "teaching_share": sum(teaching) / len(teaching),
        "equal_share": sum(equal) / len(equal) if group_size > 1 else None,
    }


def no_group_teaches(
    recipe: Recipe, rollouts: Rollouts, judges: tuple[Judge | None, Judge | None], rows: Rows, step: int
) -> Finding | None:
    """No group of the last steps had different rewards; it says why not, and looks at this step for that.

    Args:
        judges: of answers and of form, as `judging_rewards` gives them.
        rows: of the steps up to this one, whose row has `shares` at least.
        step: this one.
    """
    limits = recipe.guards.no_group_teaches
    num_steps = _steps_in_a_row(rows, lambda row: row.get("teaching_share") == 0)
    if num_steps != limits.warn_steps and num_steps < limits.steps:
        return None
    found = shares_of_full_credit([rollout["rewards"] for rollout in rollouts], *judges)
    accuracy, form = found.get("accuracy"), found.get("well_formed")
    cut = sum(rollout["finish_reason"] == "length" for rollout in rollouts) / len(rollouts)
    temperature = f"rollout.temperature={recipe.rollout.temperature:g}"
    learned = accuracy is not None and accuracy >= LEARNED
    if accuracy == 1:
        why, fix, override = "all are right", "set algorithm.stop_at, or train on harder questions", ()
    elif cut == 1 and not accuracy:
        limit = recipe.rollout.max_new_tokens
        why = f"all are cut at rollout.max_new_tokens={limit}"
        fix, override = "raise it", changed("rollout.max_new_tokens", 4 * limit)
    elif form == 0:
        why = "none has the form that is asked for"
        fix, override = "ask for it in task.template or task.system", allowed("task")
    elif accuracy == 0:
        why = "all are wrong"
        fix, override = "take easier questions, a larger model, or a larger algorithm.group_size", allowed("task")
    elif len({rollout["reward"] for rollout in rollouts}) == 1:
        why = f"every completion got the reward {_shown(rollouts[0]['reward'])}"
        fix, override = "see whether the reward tells good completions from bad ones", allowed("rewards")
    else:
        why = "in each group all got the same reward"
        fix, override = f"raise {temperature} or algorithm.group_size", allowed("rollout")
    what = f"no group has taught anything for {num_steps} steps, since {why}"
    if num_steps < limits.steps and not learned:
        fix = f"{fix}; after {limits.steps} such steps guards.no_group_teaches does as its policy says"
    return Finding(
        "no_group_teaches", what, fix, override, since=step - num_steps + 1,
        only_warns=num_steps < limits.steps or learned,
    )  # fmt: skip


def equal_completions(recipe: Recipe, accuracy: float | None, rows: Rows, step: int) -> Finding | None:
    """Most groups of the last steps had one completion, and the policy has not learned the task.

    Most, and not all: of two tokens that are equally probable, the coldest sampling takes now this one and now that.
    """
    limit, temperature = recipe.guards.equal_completions.steps, recipe.rollout.temperature
    is_cold = temperature < COLD

    def is_equal(row: Mapping[str, Any]) -> bool:
        return (row.get("equal_share") or 0) >= 0.5 and (is_cold or row.get("teaching_share") == 0)

    num_steps = _steps_in_a_row(rows, is_equal)
    if num_steps < limit or (accuracy is not None and accuracy >= LEARNED):
        return None
    what = f"for {num_steps} steps the completions of most prompts have all been the same"
    if is_cold:
        fix, override = f"raise rollout.temperature={temperature:g}", changed("rollout.temperature", 1.0)
    else:
        what += ", and no group has taught anything"
        lr = recipe.optimizer.lr
        fix = f"the policy has one reply to each prompt; lower optimizer.lr={lr:g}, from an earlier checkpoint"
        override = changed("optimizer.lr", lr / 10)
    return Finding("equal_completions", what, fix, override, since=step - num_steps + 1)


def truncation(recipe: Recipe, rows: Rows, step: int) -> Finding | None:
    """In the mean of the first steps too many completions were cut at the limit; said once a run."""
    limits = recipe.guards.truncation
    found = numbers(rows[: limits.steps], "truncated_share")
    if step != limits.steps or not found or (share := sum(found) / len(found)) < limits.share:
        return None
    tokens = recipe.rollout.max_new_tokens
    what = (
        f"in the first {limits.steps} steps {share:.0%} of the completions were cut at rollout.max_new_tokens={tokens}"
    )
    fix = "raise it, unless the task wants texts without an end"
    return Finding("truncation", what, fix, changed("rollout.max_new_tokens", 4 * tokens))


def too_cold(recipe: Recipe) -> str | None:
    """A line about a temperature at which all completions of a prompt are about the same; None if it is none."""
    temperature = recipe.rollout.temperature
    if temperature >= COLD or recipe.guards.equal_completions.policy == "off":
        return None
    return (
        f"rollout.temperature={temperature:g}: the completions of a prompt will be about the same, and so teach "
        "nothing; set about 1"
    )


def _steps_in_a_row(rows: Rows, condition: Callable[[Mapping[str, Any]], bool]) -> int:
    return sum(1 for _ in takewhile(condition, reversed(rows)))


def changed(key: str, value: float) -> tuple[str, ...]:
    """What to add to a command, to go on with another value of a key."""
    return f"{key}={value:g}", *allowed(key)


def allowed(section: str) -> tuple[str, ...]:
    """What to add to a command, to go on once the user has changed something in a section of the recipe."""
    return "--allow-change", section


def _shown(reward: float | None) -> str:
    return "None" if reward is None else f"{number({'reward': reward}, 'reward'):g}"
