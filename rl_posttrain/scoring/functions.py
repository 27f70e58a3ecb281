"""The function that a recipe's reward names, ready to be called; here, or in a worker process when it is isolated."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import check_arguments, load_object, signature_of
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards import REWARDS
from rl_posttrain.rewards.workers import Outcome, pool_for

# TRL's own: functions that make a reward from the recipe's args.
FACTORIES = {
    "repetition_penalty": "trl.rewards:get_repetition_penalty_reward",
    "soft_overlong": "trl.rewards:get_soft_overlong_punishment",
    "cosine_scaled": "trl.rewards:get_cosine_scaled_reward",
}
# What cannot leave the trainer's process.
NOT_FOR_WORKERS = ("trainer_state", "log_extra", "log_metric")
_WORKER_MEMORY_BYTES = 4 * 2**30


def load_reward(section: RewardSection, key: str) -> tuple[Callable, dict[str, Any]]:
    """A reward's function and the arguments of the recipe that every call gets.

    Raises:
        RecipeError: there is no such function, or a factory of TRL refuses its args.
    """
    function = load_object(section.fn, table=REWARDS | FACTORIES, key=f"{key}.fn")
    if not callable(function):
        raise RecipeError(
            f"{key}.fn={section.fn}: it is a {type(function).__name__}, no function; name a reward function"
        )
    if section.fn not in FACTORIES:
        return function, dict(section.args)
    arguments = check_arguments(function, section.args, key=f"{key}.args")
    try:
        made = function(**arguments)
    except ValueError as error:
        raise RecipeError(f"{key}.args={section.args}: {error}; see TRL's documentation of rewards") from error
    return (functools.partial(_with_solutions, made) if section.fn == "cosine_scaled" else made), {}


def _with_solutions(
    function: Callable,
    completions: Sequence[str | list[dict[str, Any]]],
    answer: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    **columns: Any,
) -> list[float | None]:
    """TRL's cosine reward judges answers itself: it wants chat messages, and golds as LaTeX under the name solution."""
    chats = [
        [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        for completion in completions
    ]
    return function(completions=chats, solution=[f"${gold}$" for gold in answer], completion_ids=completion_ids)


def required_columns(function: Callable, key: str) -> list[str]:
    """Parameters without a default: what the task's rows, the trainer or the args have to give."""
    parameters = signature_of(function, key).parameters.items()
    return [
        name
        for name, parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def call_isolated(
    section: RewardSection, key: str, rows: Sequence[Mapping[str, Any]], timeout_s: float
) -> list[Outcome]:
    """Call a reward in worker processes, on one completion at a time.

    Args:
        rows: of each completion, the arguments by name: the completion itself, its prompt, its columns.
        timeout_s: seconds for each; the worker that exceeds them is killed.

    Returns:
        An outcome a row; its value is what the reward returned for the row.
    """
    pool = pool_for(f"{__name__}:score_row", memory_bytes=_WORKER_MEMORY_BYTES)
    named = json.dumps({"fn": section.fn, "args": section.args})
    return pool.run([(named, key, dict(row)) for row in rows], timeout_s=timeout_s)


def score_row(named: str, key: str, row: dict[str, Any]) -> Any:
    """In the worker: one row's reward, as JSON has it."""
    function, arguments = _loaded(named, key)
    values = function(**{name: [value] for name, value in row.items()}, **arguments)
    if not isinstance(values, Sequence) or len(values) != 1:
        raise TypeError(f"returned {values!r} for 1 completion; return a list with one number")
    return None if values[0] is None else float(values[0])


@functools.lru_cache(maxsize=64)
def _loaded(named: str, key: str) -> tuple[Callable, dict[str, Any]]:
    return load_reward(RewardSection(**json.loads(named)), key)
