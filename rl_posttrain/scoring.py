"""The recipe's rewards as functions that TRL calls: named, with their arguments, and errors that say which failed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RecipeError, RewardError
from rl_posttrain.plugins import check_arguments, load_object, signature_of
from rl_posttrain.rewards import ACCURACY, REWARDS, WELL_FORMED
from rl_posttrain.schema import Recipe, RewardSection

# What TRL passes to every reward beside the completions and the dataset's columns.
_FROM_TRAINER = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


class Reward:
    """One reward of a recipe: its function with its arguments.

    Raises:
        RewardError: the function raised, or did not return one number or None a completion.
    """

    def __init__(self, function: Callable, arguments: Mapping[str, Any], name: str, key: str):
        self.__name__ = name
        self._function, self._arguments, self._key = function, dict(arguments), key

    def __call__(self, completions: Sequence, **columns: Any) -> list[float | None]:
        where = f"{self._key}={self.__name__}"
        try:
            values = self._function(completions=completions, **columns, **self._arguments)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise RewardError(
                f"{where}: raised {reason}; a reward takes any text and returns a number or None"
            ) from error
        if not isinstance(values, Sequence) or len(values) != len(completions):
            got = f"{len(values)} values" if isinstance(values, Sequence) else type(values).__name__
            raise RewardError(
                f"{where}: returned {got} for {len(completions)} completions; return a list with one each"
            )
        try:
            return [None if value is None else float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"{where}: returned a value that is no number ({error}); return floats or None"
            ) from error


def build_rewards(recipe: Recipe, columns: Sequence[str]) -> list[Reward]:
    """The recipe's rewards, checked against the columns of its task.

    Args:
        columns: what stands in a row of the task.

    Raises:
        RecipeError: a reward is not there, or cannot be called with what the trainer passes.
    """
    return [_build(section, f"rewards.{place}", columns) for place, section in enumerate(recipe.rewards)]


def judging_rewards(recipe: Recipe) -> tuple[str | None, str | None]:
    """The names of the recipe's first reward that judges answers, and of the first that judges their form."""

    def first(judges: set[str]) -> str | None:
        code = {REWARDS[name] for name in judges}
        return next((section.name for section in recipe.rewards if REWARDS.get(section.fn, section.fn) in code), None)

    return first(ACCURACY), first(WELL_FORMED)


def check_rewards(recipe: Recipe) -> None:
    """Fail unless every reward is there and knows its args; whether the task's columns suit it shows with its rows.

    Raises:
        RecipeError: a reward is not there, or takes no such argument.
    """
    for place, section in enumerate(recipe.rewards):
        key = f"rewards.{place}"
        function = _load(section, key)
        parameters = signature_of(function, f"{key}.fn={section.fn}").parameters.items()
        columns = [name for name, parameter in parameters if parameter.default is parameter.empty]
        check_arguments(
            function, section.args, key=f"{key}.args", supplied=set(columns) - set(section.args), named_only=True
        )


def _load(section: RewardSection, key: str) -> Callable:
    function = load_object(section.fn, table=REWARDS, key=f"{key}.fn")
    if not callable(function):
        raise RecipeError(
            f"{key}.fn={section.fn}: it is a {type(function).__name__}, no function; name a reward function"
        )
    return function


def _build(section: RewardSection, key: str, columns: Sequence[str]) -> Reward:
    function = _load(section, key)
    passed = dict.fromkeys((*_FROM_TRAINER, *columns))
    doubled = next((name for name in section.args if name in passed), None)
    if doubled:
        raise RecipeError(f"{key}.args.{doubled}: the trainer passes {doubled!r} itself; leave it out")
    # By name only: a reward takes **kwargs for columns that it does not need, which would swallow a mistyped argument.
    arguments = check_arguments(
        function,
        section.args,
        key=f"{key}.args",
        supplied=_needed(function, passed, section, key),
        named_only=True,
    )
    return Reward(function, arguments, section.name, f"{key}.fn")


def _needed(function: Callable, passed: dict, section: RewardSection, key: str) -> list[str]:
    """The arguments that the trainer supplies; an error when the function cannot take what it is passed."""
    signature = signature_of(function, f"{key}.fn={section.fn}")
    parameters = signature.parameters
    try:
        signature.bind(**passed, **section.args)
    except TypeError as error:
        missing = [
            name
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and name not in passed
            and name not in section.args
        ]
        if missing:
            here = ", ".join(name for name in passed if name not in _FROM_TRAINER)
            reason = f"it needs {missing[0]!r}, which is no column of the task ({here}) and not in args"
            fix = f"name a column, or set {key}.args.{missing[0]}"
        else:
            reason = f"it cannot be called as the trainer does ({error})"
            fix = "write it as def reward(completions, answer, **kwargs) -> list[float]"
        raise RecipeError(f"{key}.fn={section.fn}: {reason}; {fix}") from None
    return [name for name in passed if name in parameters]
