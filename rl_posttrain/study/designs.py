"""Judgements of comparisons that were tuned first, or looked at several times."""

import dataclasses

from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.monitor import Monitor
from rl_posttrain.study.notices import what_it_cannot_exclude
from rl_posttrain.study.outcomes import Share
from rl_posttrain.study.tuning import Tuned


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
