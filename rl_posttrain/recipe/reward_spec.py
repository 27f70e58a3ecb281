"""A reward of a recipe: the function that it names, its checked arguments, and how it is called.

Worker processes load a reward through this module, so it imports no large library.
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

_LOCATIONS = {name: built_in.location for name, built_in in REWARDS.items()}
# Part of a reward's range that sums of floating-point numbers may miss its ends by.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RewardSpec:
    """One reward of a recipe.

    Attributes:
        name: under which it is logged.
        key: where the recipe says it, such as ``rewards.0``.
        fn: the function as the recipe names it.
        args: the function's arguments as the recipe says them; with `fn`, what a worker process loads it from.
        function: called with completions and columns; one number, or None, a completion.
        arguments: of every call, in the types that the function declares.
        weight: its factor in the weighted sum.
        on_error: ``stop`` or ``zero``.
        isolated: whether worker processes call it, one completion at a time.
        timeout_s: seconds that an isolated call may take.
        judges: whether full credit means a right ``answer`` or a completion in the right ``form``; None: neither.
        range: the lowest and the highest that it pays; None where the recipe does not say it.
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
    judges: Literal["answer", "form"] | None
    range: tuple[float, float] | None

    def gives_full_credit(self, value: float | None) -> bool:
        """Whether `value` is the top of the range; less is partial credit. Not for a reward without a range."""
        low, high = self.range
        return value is not None and value >= high - _ROUNDING * (high - low)

    def is_in_range(self, value: float | None) -> bool:
        """Whether the reward may pay `value`; anything, where it has no range."""
        if value is None or self.range is None:
            return True
        low, high = self.range
        room = _ROUNDING * (high - low)
        return low - room <= value <= high + room


def resolve_reward(section: RewardSection, key: str) -> RewardSpec:
    """Load a reward and check its arguments; whether the task's columns suit it shows with its rows.

    Args:
        key: where the recipe says it, such as ``rewards.0``.

    Raises:
        RecipeError: there is no such function, or it takes no such argument.
    """
    function, arguments = _load(section.fn, section.args, key)
    needed = required_columns(function, f"{key}.fn={section.fn}")
    # By name only: a reward takes **kwargs for columns that it does not need, which would swallow a mistyped argument.
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
        judges=section.judges,
        range=section.range,
    )


def _load(fn: str, args: dict[str, Any], key: str) -> tuple[Callable, dict[str, Any]]:
    """The function that `fn` names, and the arguments that every call gets.

    Raises:
        RecipeError: there is no such function, or a factory of TRL refuses its args.
    """
    function = load_object(fn, table=_LOCATIONS, key=f"{key}.fn")
    if not callable(function):
        raise RecipeError(f"{key}.fn={fn}: it is a {type(function).__name__}, no function; name a reward function")
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
