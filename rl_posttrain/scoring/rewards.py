"""The recipe's rewards as functions that TRL calls: named, with their arguments, and errors that say which failed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RecipeError, RewardError
from rl_posttrain.plugins import check_arguments, signature_of
from rl_posttrain.recipe.schema import Recipe, RewardSection
from rl_posttrain.rewards import ACCURACY, REWARDS, WELL_FORMED
from rl_posttrain.rewards.accuracy import TIMEOUT_S, unreadable_golds
from rl_posttrain.scoring.functions import FACTORIES, NOT_FOR_WORKERS, call_isolated, load_reward, required_columns

# Values, and for each place that failed the reason and, where there is one, the exception.
Scored = tuple[list[float | None], dict[int, tuple[str, Exception | None]]]
# What TRL passes to every reward beside the completions and the dataset's columns.
_FROM_TRAINER = ("prompts", "completions", "completion_ids", *NOT_FOR_WORKERS)


class Reward:
    """One reward of a recipe: its function with its arguments, called as the recipe says.

    Raises:
        RewardError: the function raised and the recipe does not say `on_error: zero`, or it did not return one number
            or None a completion.
    """

    def __init__(self, function: Callable, arguments: Mapping[str, Any], section: RewardSection, key: str):
        self.__name__ = section.name
        self._function, self._arguments, self._section, self._key = function, dict(arguments), section, key

    def __call__(self, completions: Sequence, log_metric: Callable | None = None, **columns: Any) -> list[float | None]:
        logs: dict[str, Callable] = {}
        if log_metric is not None:
            # A metric goes by the reward's name, so that it lands in its own place in metrics.jsonl.
            prefix = f"{self.__name__}/"
            logs["log_metric"] = lambda name, value: log_metric(prefix + name.removeprefix(prefix), value)
        columns["completions"] = completions
        score = self._in_workers if self._section.isolated else self._here
        values, failed = score(columns, logs)
        if failed and self._section.on_error == "stop":
            place, (reason, error) = next(iter(failed.items()))
            raise RewardError(
                f"{self._where}: {reason} on {_described(columns, place)}; a reward takes any text: mend it, or "
                f"set {self._key}.on_error=zero"
            ) from error
        if self._section.on_error == "zero" and logs:
            logs["log_metric"]("errors", len(failed) / len(completions))
        return values

    @property
    def _where(self) -> str:
        return f"{self._key}.fn={self.__name__}"

    def _here(self, columns: dict[str, Any], logs: dict[str, Callable]) -> Scored:
        try:
            values = self._function(**columns, **logs, **self._arguments)
        except Exception as error:
            return self._one_by_one(columns, logs, error)
        return self._checked(values, len(columns["completions"])), {}

    def _one_by_one(self, columns, logs, batch_error: Exception) -> Scored:
        """Find the rows at which the reward raises; the others get what they earn."""
        values, failed = [], {}
        for place, row in enumerate(_rows(columns)):
            try:
                got = self._function(**{name: [value] for name, value in row.items()}, **logs, **self._arguments)
            except Exception as error:
                failed[place] = _raised(error), error
                values.append(0.0)
            else:
                values += self._checked(got, 1)
        if not failed and self._section.on_error == "stop":
            raise RewardError(
                f"{self._where}: {_raised(batch_error)} on {len(values)} completions together, and on none of them "
                "alone; a reward takes any text and returns a number or None"
            ) from batch_error
        return values, failed

    def _in_workers(self, columns: dict[str, Any], logs) -> Scored:
        columns = {name: value for name, value in columns.items() if name not in NOT_FOR_WORKERS}
        outcomes = call_isolated(self._section, self._key, list(_rows(columns)), self._section.timeout_s or TIMEOUT_S)
        values, failed = [], {}
        for place, outcome in enumerate(outcomes):
            values.append(outcome.value if outcome.status == "done" else 0.0)
            if outcome.status == "timeout":
                failed[place] = f"took longer than timeout_s={self._section.timeout_s or TIMEOUT_S:g}", None
            elif outcome.status == "died":
                failed[place] = "ended its worker process", None
            elif outcome.status == "failed":
                failed[place] = f"raised {outcome.value}", None
        return values, failed

    def _checked(self, values: Any, num_completions: int) -> list[float | None]:
        if not isinstance(values, Sequence) or len(values) != num_completions:
            got = f"{len(values)} values" if isinstance(values, Sequence) else type(values).__name__
            raise RewardError(
                f"{self._where}: returned {got} for {num_completions} completions; return a list with one each"
            )
        try:
            return [None if value is None else float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"{self._where}: returned a value that is no number ({error}); return floats or None"
            ) from error


def _raised(error: Exception) -> str:
    return f"raised {type(error).__name__}: {' '.join(str(error).split())}"


def _rows(columns: Mapping[str, Any]):
    """What a reward is called with for each completion alone."""
    num_rows = len(columns["completions"])
    for place in range(num_rows):
        yield {
            name: values[place]
            for name, values in columns.items()
            if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == num_rows
        }


def _described(columns: Mapping[str, Any], place: int) -> str:
    """Row and completion, on one line and cut to a length that can be read."""

    def shown(value: Any) -> str:
        text = repr(value)
        return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"

    prompts = columns.get("prompts")
    row = f"row {place} of {len(columns['completions'])}"
    if prompts:
        row += f", prompt {shown(prompts[place])}"
    return f"{row}, completion {shown(columns['completions'][place])}"


def build_rewards(recipe: Recipe, columns: Sequence[str]) -> list[Reward]:
    """The recipe's rewards, checked against the columns of its task.

    Args:
        columns: what stands in a row of the task.

    Raises:
        RecipeError: a reward is not there, or cannot be called with what the trainer passes.
    """
    _check_groups(recipe)
    return [_build(section, f"rewards.{place}", columns) for place, section in enumerate(recipe.rewards)]


def judging_rewards(recipe: Recipe) -> tuple[str | None, str | None]:
    """The names of the recipe's first reward that judges answers, and of the first that judges their form."""

    def first(judges: set[str]) -> str | None:
        code = {REWARDS[name] for name in judges}
        return next((section.name for section in recipe.rewards if REWARDS.get(section.fn, section.fn) in code), None)

    return first(ACCURACY), first(WELL_FORMED)


def check_golds(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A word on golds that `math_accuracy` cannot read; None where it reads all of them, or does not judge.

    Raises:
        RecipeError: there are more of them than `task.max_unreadable_golds` allows.
    """
    places = {section.name: place for place, section in enumerate(recipe.rewards)}
    judge = judging_rewards(recipe)[0]
    if judge != "math_accuracy":
        return None
    golds = [str(row["answer"]).strip() for row in rows if row.get("answer") is not None]
    unreadable = set(unreadable_golds(golds, timeout_s=recipe.rewards[places[judge]].args.get("timeout_s", TIMEOUT_S)))
    num_rows = sum(gold in unreadable for gold in golds)
    if not num_rows:
        return None
    named = ", ".join(repr(gold[:60]) for gold in sorted(unreadable)[:5])
    said = f"{num_rows} of {len(golds)} golds cannot be read: {named}{', ...' if len(unreadable) > 5 else ''}"
    limit = recipe.task.max_unreadable_golds
    if num_rows > limit * len(golds):
        raise RecipeError(
            f"task.max_unreadable_golds={limit}: {said}; write each as the answer alone, such as 7 or \\sqrt{{2}}, "
            "or raise the share that may go without a reward"
        )
    return f"{said}; what answers them gets no reward"


def check_rewards(recipe: Recipe) -> None:
    """Fail unless every reward is there and knows its args; whether the task's columns suit it shows with its rows.

    Raises:
        RecipeError: a reward is not there, or takes no such argument.
    """
    _check_groups(recipe)
    for place, section in enumerate(recipe.rewards):
        key = f"rewards.{place}"
        function, arguments = load_reward(section, key)
        needed = required_columns(function, f"{key}.fn={section.fn}")
        check_arguments(
            function, arguments, key=f"{key}.args", supplied=set(needed) - set(section.args), named_only=True
        )


def _check_groups(recipe: Recipe) -> None:
    choice = recipe.algorithm.zero_variance_groups
    if choice != "keep" and judging_rewards(recipe)[0] is None:
        raise RecipeError(
            f"algorithm.zero_variance_groups={choice}: it goes by whether answers are right, and no reward here judges "
            f"that; add one of {', '.join(sorted(ACCURACY))}, or set keep"
        )


def _build(section: RewardSection, key: str, columns: Sequence[str]) -> Reward:
    function, arguments = load_reward(section, key)
    from_trainer = [name for name in _FROM_TRAINER if not (section.isolated and name in NOT_FOR_WORKERS)]
    passed = dict.fromkeys((*from_trainer, *columns))
    doubled = next((name for name in section.args if name in passed), None)
    if doubled:
        raise RecipeError(f"{key}.args.{doubled}: the trainer passes {doubled!r} itself; leave it out")
    # By name only: a reward takes **kwargs for columns that it does not need, which would swallow a mistyped argument.
    arguments = check_arguments(
        function,
        arguments,
        key=f"{key}.args",
        supplied=_needed(function, passed, section, key),
        named_only=True,
    )
    return Reward(function, arguments, section, key)


def _needed(function: Callable, passed: dict, section: RewardSection, key: str) -> list[str]:
    """The arguments that the trainer supplies; an error when the function cannot take what it is passed."""
    signature = signature_of(function, f"{key}.fn={section.fn}")
    arguments = {} if section.fn in FACTORIES else section.args
    try:
        signature.bind(**passed, **arguments)
    except TypeError as error:
        needed = required_columns(function, f"{key}.fn={section.fn}")
        missing = [name for name in needed if name not in passed and name not in arguments]
        if missing:
            here = ", ".join(name for name in passed if name not in _FROM_TRAINER)
            reason = f"it needs {missing[0]!r}, which is no column of the task ({here}) and not in args"
            fix = f"name a column, or set {key}.args.{missing[0]}"
        else:
            reason = f"it cannot be called as the trainer does ({error})"
            fix = "write it as def reward(completions, answer, **kwargs) -> list[float]"
        raise RecipeError(f"{key}.fn={section.fn}: {reason}; {fix}") from None
    return [name for name in passed if name in signature.parameters]
