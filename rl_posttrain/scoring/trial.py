"""Golds tried before training: `math_accuracy` must pay for other writings of each, and must not for wrong answers."""

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from rl_posttrain.rewards.accuracy import TIMEOUT_S, unread_golds
from rl_posttrain.rewards.writings import Writing, near_misses, rewrites
from rl_posttrain.scoring.golds import judged_in_batches, kind_name

COUNTS = ("golds", "unread", "rewrites", "rewrites_paid", "near_misses", "near_misses_paid")


class Tried(NamedTuple):
    """One writing of a gold, whether it is right, and whether it was paid."""

    gold: str
    writing: Writing
    is_right: bool
    is_paid: bool


def try_golds(
    golds: Sequence[str], *, num: int, num_writings: int, seed: int = 0, show: int = 3, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """What `math_accuracy` pays for rewrites and near misses of golds, by kind.

    Args:
        golds: texts; each is tried once.
        num: the largest number of golds; of more, `seed` draws.
        num_writings: of each gold, as many rewrites and as many near misses, where it has so many.
        show: the largest number of failures listed of each kind.

    Returns:
        ``num_rows``, ``num_different`` and ``num_tried`` golds; ``kinds``, as `by_kind` gives them; ``total``: the
        `COUNTS` of all.
    """
    different = list(dict.fromkeys(golds))
    drawn = different if len(different) <= num else random.Random(seed).sample(different, num)
    unread = {gold for found in unread_golds(drawn, timeout_s=timeout_s) for gold in found}
    asked = [
        (gold, writing, is_right)
        for gold in drawn
        if gold not in unread
        for make, is_right in ((rewrites, True), (near_misses, False))
        for writing in make(gold, num_writings, seed)
    ]
    completions = [writing.completion for _, writing, _ in asked]
    verdicts = judged_in_batches(completions, [gold for gold, _, _ in asked], timeout_s=timeout_s)
    tried = [Tried(*case, is_paid=bool(verdict.reward)) for case, verdict in zip(asked, verdicts, strict=True)]
    kinds = by_kind(drawn, unread, tried, show)
    return {
        "num_rows": len(golds),
        "num_different": len(different),
        "num_tried": len(drawn),
        "kinds": kinds,
        "total": {name: sum(kind[name] for kind in kinds.values()) for name in COUNTS},
    }


def by_kind(golds: Sequence[str], unread: Collection[str], tried: Iterable[Tried], show: int) -> dict[str, Any]:
    """For each kind of gold, the largest first, its `COUNTS` and at most `show` failures.

    A failure has ``gold``, ``rule``, ``completion``, ``paid`` and ``should_be``. Wrong answers that are paid stand
    first: they are worse than right ones that are lost.
    """
    kinds: dict[str, dict[str, Any]] = {}
    name_of = {gold: kind_name(gold) for gold in golds}
    for gold, name in name_of.items():
        kind = kinds.setdefault(name, {**dict.fromkeys(COUNTS, 0), "failures": []})
        kind["golds"] += 1
        kind["unread"] += gold in unread
    for case in tried:
        kind, counted = kinds[name_of[case.gold]], "rewrites" if case.is_right else "near_misses"
        kind[counted] += 1
        kind[f"{counted}_paid"] += case.is_paid
        if case.is_paid != case.is_right:
            rule, completion = case.writing.rule, case.writing.completion
            failure = {"gold": case.gold, "rule": rule, "completion": completion}
            kind["failures"].append(failure | {"paid": float(case.is_paid), "should_be": float(case.is_right)})
    for kind in kinds.values():
        kind["failures"] = sorted(kind["failures"], key=lambda failure: failure["should_be"])[:show]
    return dict(sorted(kinds.items(), key=lambda item: -item[1]["golds"]))
