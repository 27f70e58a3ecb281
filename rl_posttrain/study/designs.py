"""Judgements of comparisons that were tuned first, or looked at several times."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.monitor import SEQUENTIAL_FILE, Monitor, read_monitor
from rl_posttrain.study.notices import what_it_cannot_exclude
from rl_posttrain.study.outcomes import Share
from rl_posttrain.study.tuning import Tuned, read_tuned


def with_tuning(judgement: Judgement, tuned: Tuned) -> Judgement:
    """The judgement of the judging seeds, with how the variants' values were chosen."""
    return dataclasses.replace(
        judgement,
        tuned=tuned,
        notices=[*judgement.notices, *tuned.notices()],
        terms=f"{judgement.terms} {tuned.words()}",
    )


def with_looks(judgement: Judgement, monitor: Monitor) -> Judgement:
    """The judgement of all runs, with the verdicts of the looks in place of those of one look at the whole level."""
    lost = {
        name: Share(judgement.failed[name].count + judgement.collapsed[name].count, judgement.failed[name].number)
        for name in judgement.failed
    }
    plan, notices = monitor.plan, []
    if plan.seen:
        notices.append(
            f"a run at seed {', '.join(map(str, plan.seen))} was finished before the plan was made: the level of "
            f"{plan.alpha:g} holds only if nobody had judged it then"
        )
    return dataclasses.replace(
        judgement,
        monitor=monitor,
        comparisons=[what_it_cannot_exclude(comparison, lost) for comparison in monitor.comparisons()],
        notices=[*judgement.notices, *notices],
        terms=f"{judgement.terms} {plan.words()}",
    )


def as_compared(judgement: Judgement, paths: Sequence[Path]) -> Judgement:
    """The judgement of the runs at `paths`, with what the comparison that made them says of its tuning and its looks.

    Raises:
        RunError: a file of the comparison is damaged.
    """
    if len(paths) != 1:
        return judgement
    tuned, monitor = read_tuned(paths[0]), read_monitor(paths[0])
    variants = judgement.collection.planned
    if tuned is not None and tuned.measure == judgement.measure and any(v.chosen in variants for v in tuned.variants):
        judgement = with_tuning(judgement, tuned)
    if monitor is None:
        return judgement
    plan = monitor.plan
    if monitor.looks and (plan.measure, plan.baseline) == (judgement.measure, judgement.baseline):
        return with_looks(judgement, monitor)
    notice = (
        f"seeds were added by looks at {plan.measure} against {plan.baseline} ({SEQUENTIAL_FILE}); this verdict is "
        "another one, and claims too much where the number of seeds came of what was seen"
    )
    return dataclasses.replace(judgement, notices=[*judgement.notices, notice])
