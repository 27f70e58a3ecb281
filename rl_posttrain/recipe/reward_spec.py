"""A reward of a recipe: its function, its checked arguments, and how it is called.

Worker processes load rewards with this module, so it imports no large library.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.plugins import check_arguments, load_object, signature_of
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards import REWARDS
from rl_posttrain.rewards.accuracy import TIMEOUT_S
from rl_posttrain.rewards.processes import START_LIMIT_S

_LOCATIONS = {name: built_in.location for name, built_in in REWARDS.items()}
# How far from an end of its range a value may be by rounding errors, as a part of the range's width.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RewardSpec:
    """One reward of a recipe.

    Attributes:
        name: the name under which it is logged.
        key: its place in the recipe, such as ``rewards.0``, for errors.
        fn: the function's name in the recipe.
        args: the arguments as written in the recipe. Worker processes load the function from `fn` and `args`.
        function: takes completions and columns; returns one number, or None, per completion.
        arguments: of every call, converted to the types that the function declares.
        weight: factor in the weighted sum.
        on_error: ``stop`` or ``zero``.
        isolated: whether worker processes call it, one completion at a time.
        timeout_s: time limit of one isolated call.
        import_timeout_s: time limit for importing an isolated reward's file in the process that makes its workers.
        tasks: labels of the parts of a mixture whose rows it judges; None: all rows.
        judges: what full credit means: the ``answer`` is right, or the ``form`` of the completion; None: neither.
        range: lowest and highest value; None if it is not known.
    """

    name: str
    key: str
    fn: str
    args: dict[str, Any]
    function: Callable[..., Sequence[float | None]]
    arguments: dict[str, Any]
    weight: float
    on_error: str
    isolated: bool
    timeout_s: float
    import_timeout_s: float
    tasks: tuple[str, ...] | None
    judges: Literal["answer", "form"] | None
    range: tuple[float, float] | None

    def gives_full_credit(self, value: float | None) -> bool:
        """Whether `value` is the highest of the range. Only for a reward that judges: it always has a range."""
        low, high = self.range
        return value is not None and value >= high - _ROUNDING * (high - low)

    def is_in_range(self, value: float | None) -> bool:
        """Whether `value` is within the range. Always true for None, and for a reward without a range."""
        if value is None or self.range is None:
            return True
        low, high = self.range
        room = _ROUNDING * (high - low)
        return low - room <= value <= high + room


def resolve_reward(section: RewardSection, key: str) -> RewardSpec:
    """Load a reward and check its arguments. The columns of the task are checked later, by `build_rewards`.

    Args:
        key: its place in the recipe, such as ``rewards.0``.

    Raises:
        RecipeError: there is no such function, or it has no such argument.
    """
    function, arguments = _load(section.fn, section.args, key)
    needed = required_columns(function, f"{key}.fn={section.fn}")
    # By name only: rewards take **kwargs for columns that they do not need, and would accept a mistyped argument there.
    arguments = check_arguments(
        function, arguments, key=f"{key}.args", supplied=set(needed) - set(section.args), named_only=True
    )
    return RewardSpec(
        name=section.name,
        key=key,
        fn=section.fn,
        args=section.args,
        function=function,
        arguments=arguments,
        weight=section.weight,
        on_error=section.on_error,
        isolated=section.isolated,
        timeout_s=TIMEOUT_S if section.timeout_s is None else section.timeout_s,
        import_timeout_s=START_LIMIT_S if section.import_timeout_s is None else section.import_timeout_s,
        tasks=section.tasks,
        judges=section.judges,
        range=section.range,
    )


def _load(fn: str, args: dict[str, Any], key: str) -> tuple[Callable, dict[str, Any]]:
    """The function that `fn` names, and the arguments of every call.

    Raises:
        RecipeError: there is no such function, or a factory of TRL refuses its args.
    """
    function = load_object(fn, table=_LOCATIONS, key=f"{key}.fn")
    if not callable(function):
        raise RecipeError(f"{key}.fn={fn}: it is of type {type(function).__name__}; name a function")
    if not (fn in REWARDS and REWARDS[fn].is_factory):
        return function, dict(args)
    arguments = check_arguments(function, args, key=f"{key}.args")
    try:
        made = function(**arguments)
    except ValueError as error:
        raise RecipeError(f"{key}.args={args}: {one_line(error)}; see TRL's documentation of rewards") from error
    return (functools.partial(_with_solutions, made) if fn == "cosine_scaled" else made), {}


def _with_solutions(
    function: Callable,
    completions: Sequence[str | list[dict[str, Any]]],
    answer: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    **columns: Any,
) -> list[float | None]:
    """TRL's cosine reward compares answers itself. It needs chat messages, and golds as LaTeX, called solution."""
    chats = [
        [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        for completion in completions
    ]
    return function(completions=chats, solution=[f"${gold}$" for gold in answer], completion_ids=completion_ids)


def required_columns(function: Callable, key: str) -> list[str]:
    """The parameters without a default: they must come from the task's rows, the trainer or `args`."""
    parameters = signature_of(function, key).parameters.items()
    return [
        name
        for name, parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
