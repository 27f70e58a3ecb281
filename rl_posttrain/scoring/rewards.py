"""The recipe's rewards, ready to be called: with their arguments, and with errors that name the reward and the row."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RecipeError, RewardError, did_you_mean, one_line
from rl_posttrain.plugins import signature_of
from rl_posttrain.recipe.reward_spec import RewardSpec, required_columns
from rl_posttrain.scoring.calling import Failed, call_all
from rl_posttrain.scoring.isolated import NOT_FOR_WORKERS, call_isolated
from rl_posttrain.scoring.returned import NotNumbers, numbers_of
from rl_posttrain.scoring.usable import Unusable, is_usable, what_is_wrong
from rl_posttrain.tasks.mixture import TASK_COLUMN
from rl_posttrain.users_code import contained, what_it_did

# The values; and for each row that failed, by place, the reason and the exception if there is one.
Scored = tuple[list[float | None], dict[int, tuple[str, Exception | None]]]
# The columns of each part of a mixture, by its label.
Parts = Mapping[str, Sequence[str]]
# Arguments of every reward besides the task's columns.
_FROM_TRAINER = ("prompts", "completions", "completion_ids", *NOT_FOR_WORKERS)


class Reward:
    """One reward of a recipe, called like the reward functions of TRL.

    Attributes:
        unusable: with ``collect``, of each value that was no finite number: reward, row and completion, in words.

    Args:
        if_unusable: what becomes of a value of which no advantage can be made, such as NaN.

    Raises:
        RewardError: the function raised, or would have ended the process, and `on_error` is not ``zero``; it did not
            return one number or None per completion; or a number is outside its range.
    """

    def __init__(self, spec: RewardSpec, if_unusable: Unusable = "refuse"):
        self.spec, self._if_unusable = spec, if_unusable
        self.unusable: list[str] = []
        self.__name__ = spec.name

    def __call__(self, completions: Sequence, **columns: Any) -> list[float | None]:
        return call_together([self], completions=completions, **columns)[0]

    def score(self, call: "Call", returned: Any) -> list[float | None]:
        """The rewards of a call's completions.

        Args:
            returned: by the function, or how it failed; None for an isolated reward, which is called here.
        """
        values, failed = self._in_workers(call) if self.spec.isolated else self._here(call, returned)
        self._check_values(values, failed, call.columns)
        if failed and self.spec.on_error == "stop":
            place, (reason, error) = next(iter(failed.items()))
            raise RewardError(
                f"{self._where}: {reason} on {_described(call.columns, place)}; a reward must accept any text: fix "
                f"it, or set {self.spec.key}.on_error=zero"
            ) from error
        if self.spec.on_error == "zero" and call.logs:
            call.logs["log_metric"]("errors", len(failed) / len(values))
        return values

    def _check_values(self, values: list[float | None], failed: Collection[int], columns: dict[str, Any]) -> None:
        for place, value in enumerate(values):
            if place in failed:
                continue
            if not is_usable(value) and self._if_unusable != "keep":
                said = f"{self._where}: returned {what_is_wrong(value)} on {_described(columns, place)}"
                if self._if_unusable == "refuse":
                    raise RewardError(f"{said}; fix the reward: it returns finite numbers or None")
                self.unusable.append(said)
                values[place] = None
            elif not self.spec.is_in_range(value):
                raise RewardError(
                    f"{self._where}: returned {value:g}, outside its range {list(self.spec.range)}, on "
                    f"{_described(columns, place)}; fix the reward, or set {self.spec.key}.range"
                )

    @property
    def _where(self) -> str:
        return f"{self.spec.key}.fn={self.__name__}"

    def _here(self, call: "Call", returned: Any) -> Scored:
        if not isinstance(returned, Failed):
            return self._numbers(returned, call.num_completions), {}
        return self._one_by_one(call, returned.error)

    def _one_by_one(self, call: "Call", batch_error: Exception) -> Scored:
        """Call the function row by row, to find the rows on which it fails. The other rows keep their rewards."""
        rows = [{name: [value] for name, value in row.items()} for row in _rows(call.columns)]
        values, failed = [], {}
        for place, got in enumerate(call_all([call.of(row) for row in rows])):
            if isinstance(got, Failed):
                failed[place] = what_it_did(got.error), got.error
                values.append(0.0)
            else:
                values += self._numbers(got, 1)
        if not failed and self.spec.on_error == "stop":
            raise RewardError(
                f"{self._where}: {what_it_did(batch_error)} on {len(values)} completions together, and on none of "
                "them alone; a reward must accept any text and return a number or None"
            ) from batch_error
        return values, failed

    def _in_workers(self, call: "Call") -> Scored:
        columns = {name: value for name, value in call.columns.items() if name not in NOT_FOR_WORKERS}
        values, failed = [], {}
        for place, outcome in enumerate(call_isolated(self.spec, list(_rows(columns)))):
            values.append(outcome.value if outcome.status == "done" else 0.0)
            if outcome.status == "timeout":
                failed[place] = f"took longer than timeout_s={self.spec.timeout_s:g}", None
            elif outcome.status == "died":
                failed[place] = "ended its worker process", None
            elif outcome.status == "failed":
                failed[place] = outcome.value, None
        return values, failed

    def _numbers(self, returned: Any, num_completions: int) -> list[float | None]:
        try:
            with contained():  # reading what was returned may run the user's code: a generator, a class of its own
                return numbers_of(returned, num_completions)
        except NotNumbers as error:
            raise RewardError(f"{self._where}: {error}") from error
        except Exception as error:
            raise RewardError(
                f"{self._where}: what it returned {what_it_did(error)}; return a list of floats"
            ) from error


class Call:
    """A reward's function with all arguments of one call.

    Attributes:
        columns: with `completions`, of the rows that the reward judges.
        logs: `log_metric`, which puts the reward's name in front; empty where nothing is logged.
    """

    def __init__(self, reward: Reward, columns: dict[str, Any], log_metric: Callable | None):
        self._spec = reward.spec
        self._num_rows, self._places = len(columns["completions"]), None
        if reward.spec.tasks is not None:
            self._places = [place for place, task in enumerate(columns[TASK_COLUMN]) if task in reward.spec.tasks]
            columns = _of_places(columns, self._places)
        self.columns, self.logs = columns, {}
        if log_metric is not None:
            # The reward's name comes first, so that metrics of two rewards never have the same name.
            prefix = f"{reward.__name__}/"
            self.logs["log_metric"] = lambda name, value: log_metric(prefix + name.removeprefix(prefix), value)

    @property
    def num_completions(self) -> int:
        return len(self.columns["completions"])

    def of(self, columns: Mapping[str, Any]) -> tuple[Callable, dict[str, Any]]:
        """The function, and its arguments for these columns."""
        return self._spec.function, {**columns, **self.logs, **self._spec.arguments}

    def of_all_rows(self, rewards: Sequence[float | None]) -> list[float | None]:
        """One reward a row: None for those that the reward does not judge."""
        if self._places is None:
            return list(rewards)
        found = dict(zip(self._places, rewards, strict=True))
        return [found.get(place) for place in range(self._num_rows)]


def call_together(
    rewards: Sequence[Reward], completions: Sequence, log_metric: Callable | None = None, **columns: Any
) -> list[list[float | None]]:
    """What each reward gives each completion. Async functions run at the same time, all others in their order.

    Raises:
        RewardError: as `Reward`.
    """
    columns["completions"] = completions
    calls = [Call(reward, dict(columns), log_metric) for reward in rewards]
    called = [place for place, call in enumerate(calls) if call.num_completions and not rewards[place].spec.isolated]
    returned = dict(zip(called, call_all([calls[place].of(calls[place].columns) for place in called]), strict=True))
    return [
        call.of_all_rows(reward.score(call, returned.get(place)) if call.num_completions else [])
        for place, (reward, call) in enumerate(zip(rewards, calls, strict=True))
    ]


def _of_places(columns: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The arguments of some of the completions; what a reward logs of each is None for the others."""
    num_rows = len(columns["completions"])
    part = {
        name: [values[place] for place in places] if _has_one_each(values, num_rows) else values
        for name, values in columns.items()
    }
    if (log_extra := columns.get("log_extra")) is not None:

        def log_extra_of_places(column: str, values: Sequence[Any]) -> None:
            found = dict(zip(places, values, strict=True))
            log_extra(column, [found.get(place) for place in range(num_rows)])

        part["log_extra"] = log_extra_of_places
    return part


def _has_one_each(values: Any, num_rows: int) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and len(values) == num_rows


def _rows(columns: Mapping[str, Any]):
    """The arguments of each completion alone, by name."""
    num_rows = len(columns["completions"])
    for place in range(num_rows):
        yield {name: values[place] for name, values in columns.items() if _has_one_each(values, num_rows)}


def _described(columns: Mapping[str, Any], place: int) -> str:
    """Row, prompt and completion on one line, shortened."""

    def shown(value: Any) -> str:
        text = repr(value)
        return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"

    prompts = columns.get("prompts")
    row = f"row {place} of {len(columns['completions'])}"
    if prompts:
        row += f", prompt {shown(prompts[place])}"
    return f"{row}, completion {shown(columns['completions'][place])}"


def build_rewards(
    specs: Sequence[RewardSpec],
    columns: Sequence[str],
    parts: Parts | None = None,
    if_unusable: Unusable = "refuse",
) -> list[Reward]:
    """The rewards, checked against the columns of the task.

    Args:
        columns: names of a row of the task.
        parts: `TaskRows.parts` of a mixture.
        if_unusable: as of `Reward`.

    Raises:
        RecipeError: a reward cannot be called with the arguments that the trainer passes; or it needs a column that
            rows of a part which it judges do not have.
    """
    for spec in specs:
        _check_call(spec, columns)
        _check_parts(spec, parts or {})
    return [Reward(spec, if_unusable) for spec in specs]


def _check_parts(spec: RewardSpec, parts: Parts) -> None:
    """Fail if the reward is for parts that are not there, or needs a column that rows of a part do not have."""
    for name in spec.tasks or ():
        if name not in parts:
            fix = did_you_mean(name, parts) if parts else "the task is no mixture; leave it out"
            raise RecipeError(f"{spec.key}.tasks={list(spec.tasks)}: there is no part {name!r}; {fix}")
    key = f"{spec.key}.fn={spec.fn}"
    needed = set(required_columns(spec.function, key)) - set(_FROM_TRAINER) - set(spec.arguments)
    can = [label for label, columns in parts.items() if needed <= set(columns)]
    for label in spec.tasks or parts:
        if missing := sorted(needed - set(parts[label])):
            fix = f"set {spec.key}.tasks to those that have it: [{', '.join(can)}]"
            raise RecipeError(f"{key}: it needs {missing[0]!r}, which rows of {label} do not have; {fix}")


def _check_call(spec: RewardSpec, columns: Sequence[str]) -> None:
    """Fail if the function cannot take the arguments that the trainer passes."""
    from_trainer = [name for name in _FROM_TRAINER if not (spec.isolated and name in NOT_FOR_WORKERS)]
    passed = dict.fromkeys((*from_trainer, *columns))
    doubled = next((name for name in spec.arguments if name in passed), None)
    if doubled:
        raise RecipeError(f"{spec.key}.args.{doubled}: the trainer passes {doubled!r} itself; leave it out")
    key = f"{spec.key}.fn={spec.fn}"
    try:
        signature_of(spec.function, key).bind(**passed, **spec.arguments)
    except TypeError as error:
        needed = required_columns(spec.function, key)
        missing = [name for name in needed if name not in passed and name not in spec.arguments]
        if missing:
            here = ", ".join(name for name in passed if name not in _FROM_TRAINER)
            reason = f"it needs {missing[0]!r}, which is neither a column of the task ({here}) nor in args"
            fix = f"name a column, or set {spec.key}.args.{missing[0]}"
        else:
            reason = f"it cannot be called as the trainer does ({one_line(error)})"
            fix = "write it as def reward(completions, answer, **kwargs) -> list[float]"
        raise RecipeError(f"{key}: {reason}; {fix}") from None
