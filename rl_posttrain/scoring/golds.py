"""The gold answers before a run: of which kinds they are, and whether `math_accuracy` can pay an answer to them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.rewards import math_accuracy
from rl_posttrain.rewards.accuracy import GOLDS_TIMEOUT_S, TIMEOUT_S, UnreadGolds, Verdict, judge, unread_golds
from rl_posttrain.rewards.answers import kind_of
from rl_posttrain.rewards.golds import gold_of
from rl_posttrain.rewards.writings import plain_text
from rl_posttrain.tasks.mixture import TASK_COLUMN

_NUM_NAMED = 5
_LONGEST = 60
_BATCH = 64


class GoldsOfAKind(NamedTuple):
    """The golds of one kind, counted by rows.

    Attributes:
        num_unread: rows whose gold cannot be read, or not in time.
        num_unpaid: rows whose gold can be read, and whose plainest writing is not paid.
    """

    kind: str
    num_golds: int
    num_unread: int
    num_unpaid: int


@dataclass(frozen=True)
class GoldCheck:
    """What is known of the golds of a task.

    Attributes:
        num_rows: rows with each gold.
        unread: golds that were not read, each once.
        unpaid: golds that can be read, and the plainest writing of each, which is not paid.
    """

    num_rows: Mapping[str, int]
    unread: UnreadGolds
    unpaid: Mapping[str, str]

    @property
    def kinds(self) -> list[GoldsOfAKind]:
        """The golds by kind, the largest first."""
        kind = {gold: kind_name(gold) for gold in self.num_rows}

        def by_kind(golds: Iterable[str]) -> Counter[str]:
            counted: Counter[str] = Counter()
            for gold in golds:
                counted[kind[gold]] += self.num_rows[gold]
            return counted

        unread, unpaid = by_kind(self._not_read), by_kind(self.unpaid)
        return [
            GoldsOfAKind(name, count, unread[name], unpaid[name])
            for name, count in by_kind(self.num_rows).most_common()
        ]

    @property
    def share(self) -> float:
        """The share of the rows whose gold is not read or not paid."""
        return self._rows_of([*self._not_read, *self.unpaid]) / sum(self.num_rows.values())

    @property
    def warning(self) -> str | None:
        """What goes wrong with how many golds, what it costs, and which kinds are the worst; None where all is well."""
        faults = self._faults()
        said = [f"{fault}; {cost}" for fault, cost in faults.items()]
        if self.unread.unchecked:
            said.append(self._said(self.unread.unchecked, f"could not be checked within {GOLDS_TIMEOUT_S:g} s"))
        return "; ".join([*said, *([self._worst()] if faults else [])]) or None

    def refusal(self) -> str:
        """The same as `warning` without what it costs."""
        return "; ".join([*self._faults(), self._worst()])

    @property
    def _not_read(self) -> list[str]:
        return self.unread.unreadable + self.unread.too_slow

    def _faults(self) -> dict[str, str]:
        found = {}
        if self.unread.unreadable:
            found[self._said(self.unread.unreadable, "cannot be read")] = "their completions get no reward"
        if self.unread.too_slow:
            found[self._said(self.unread.too_slow, "take too long to read")] = "no other writing of them is paid"
        if self.unpaid:
            said = self._said(self.unpaid, "are not paid where they are written plainly", self.unpaid)
            found[said] = "a right answer to them may get 0"
        return found

    def _said(self, golds: Iterable[str], what: str, plain: Mapping[str, str] | None = None) -> str:
        golds = sorted(golds)
        named = [_shown(gold) + (f" as {_shown(plain[gold])}" if plain else "") for gold in golds[:_NUM_NAMED]]
        more = ", ..." if len(golds) > _NUM_NAMED else ""
        return f"{self._rows_of(golds)} of {sum(self.num_rows.values())} golds {what}: {', '.join(named)}{more}"

    def _rows_of(self, golds: Iterable[str]) -> int:
        return sum(self.num_rows[gold] for gold in golds)

    def _worst(self) -> str:
        failing = {kind: kind.num_unread + kind.num_unpaid for kind in self.kinds}
        worst = sorted(failing, key=lambda kind: failing[kind] / kind.num_golds, reverse=True)[:3]
        counted = [f"{kind.kind} {failing[kind]} of {kind.num_golds}" for kind in worst if failing[kind]]
        return f"by kind: {', '.join(counted)}"


def check_golds(
    specs: Sequence[RewardSpec], rows: Sequence[Mapping[str, Any]], max_unreadable: float
) -> GoldCheck | None:
    """Whether `math_accuracy` can read the golds of a task, and pays each in its plainest writing.

    Args:
        max_unreadable: the largest allowed share of rows whose gold cannot be read, takes too long, or is not paid.

    Returns:
        None where the rewards do not use golds, or no row has one.

    Raises:
        RecipeError: the share is larger.
    """
    accuracy = next((spec for spec in specs if spec.function is math_accuracy), None)
    golds = [] if accuracy is None else golds_of(accuracy, rows)
    if not golds:
        return None
    found = tried_plainly(golds, timeout_s=accuracy.arguments.get("timeout_s", TIMEOUT_S))
    if found.share > max_unreadable:
        raise RecipeError(
            f"task.max_unreadable_golds={max_unreadable}: {found.refusal()}; write only the answer, such as 7 or "
            "\\sqrt{2}, or raise the share"
        )
    return found


def golds_of(spec: RewardSpec, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The golds of the rows that a reward judges, as `math_accuracy` reads them, without those that have none."""
    answers = (row.get("answer") for row in rows if spec.tasks is None or row[TASK_COLUMN] in spec.tasks)
    return [gold for gold in map(gold_of, answers) if gold is not None]


def tried_plainly(golds: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> GoldCheck:
    """Golds read, and judged in their plainest writing.

    Args:
        golds: of every row, stripped and not blank.
        timeout_s: of math-verify, for one gold or one answer.
    """
    num_rows = Counter(golds)
    unread = unread_golds(list(num_rows), timeout_s=timeout_s)
    not_read = {gold for found in unread for gold in found}
    plain = {gold: plain_text(gold) for gold in num_rows if gold not in not_read}
    verdicts = judged_in_batches([rf"\boxed{{{text}}}" for text in plain.values()], list(plain), timeout_s=timeout_s)
    lost = [not verdict.reward and verdict.decided != "timeout" for verdict in verdicts]
    unpaid = {gold: text for (gold, text), is_lost in zip(plain.items(), lost, strict=True) if is_lost}
    return GoldCheck(num_rows, unread, unpaid)


def judged_in_batches(completions: Sequence[str], golds: Sequence[str], *, timeout_s: float) -> list[Verdict]:
    """The verdicts of `math_accuracy`, asked as a run asks it: the time that it takes is limited for each batch."""
    return [
        verdict
        for start in range(0, len(golds), _BATCH)
        for verdict in judge(completions[start : start + _BATCH], golds[start : start + _BATCH], timeout_s=timeout_s)
    ]


def kind_name(gold: str) -> str:
    """The kind of a gold, for tables: of one that only math-verify may read, "other"."""
    kind = kind_of(gold)
    return "other" if kind == "unread" else kind


def _shown(text: str) -> str:
    return repr(text[:_LONGEST])
