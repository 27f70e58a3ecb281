"""Verdicts: every variant compared with the baseline, and every run that was planned counts.

A failed run counts as the worst reward that there is (terms.py). A variant of which a run still trains has no verdict.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rl_posttrain.study.along import Along, differences_along
from rl_posttrain.study.collapses import collapsed_runs
from rl_posttrain.study.equivalence import Comparison, check_baseline, estimate, judge_differences, no_verdict
from rl_posttrain.study.estimates import ALPHA, Estimate
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.measures import common_ruler, run_statistics
from rl_posttrain.study.monitor import Monitor
from rl_posttrain.study.notices import notices_of, what_it_cannot_exclude, why_no_verdict
from rl_posttrain.study.outcomes import Share
from rl_posttrain.study.pairs import pairing, pairs_with
from rl_posttrain.study.robust import Interval, Profile
from rl_posttrain.study.survival import TimeTo, times_to_threshold
from rl_posttrain.study.terms import RewardRange, Terms, check_terms, make_terms
from rl_posttrain.study.tuning import Tuned


@dataclass(frozen=True)
class TaskResults:
    """What several tasks say, each and together. Scores are shares of a task's reward range.

    Attributes:
        judgements: of each task by itself, in units of its reward.
        ranges: of each task's reward.
        estimates: by task and variant, the difference in scores from the baseline; a comparison where there is none.
        middle: by variant the interquartile mean of its scores.
        improvement: by variant the probability that one of its runs is better than one of the baseline's.
        profiles: by variant the share of its runs above each score.
    """

    judgements: dict[str, "Judgement"]
    ranges: dict[str, RewardRange]
    estimates: dict[str, dict[str, Estimate | Comparison]]
    middle: dict[str, Interval]
    improvement: dict[str, Interval]
    profiles: dict[str, Profile]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for ``--json``."""
        return {
            "ranges": {task: [found.low, found.high] for task, found in self.ranges.items()},
            "differences": {
                task: {
                    variant: {"difference": one.shown, "interval": one.interval()}
                    if isinstance(one, Estimate)
                    else None
                    for variant, one in found.items()
                }
                for task, found in self.estimates.items()
            },
            "along": {task: _plain(found.along) for task, found in self.judgements.items()},
            "interquartile_mean": _plain(self.middle),
            "probability_of_improvement": _plain(self.improvement),
            "performance_profile": _plain(self.profiles),
        }


@dataclass(frozen=True)
class Judgement:
    """Runs, their statistics, and the verdicts.

    Of several tasks `counted`, the margin, final and area are shares of the range of each task's reward.

    Attributes:
        statistics: by run name, as `run_statistics` gives them; of absent runs nothing.
        counted: by run name, absent ones too, what the verdict counted; None where nothing can be.
        failed, collapsed: by variant, how many of its planned runs did so.
        times: by axis and variant, how long it took to the threshold.
        along: by variant, its difference from the baseline in each tenth of the steps; of several tasks nothing (each
            of them has its own).
        differences: by variant, what its comparison was made from.
        comparisons: one for each variant but the baseline.
        notices: what a reader must know before reading any number.
        checks: whether runs of one seed started equal, in sentences.
        terms: the measure, margin, threshold and the value of a failed run in words.
        tasks: what several tasks say, each and together; None where there is one.
        tuned: how the variants' values were chosen; None where nothing was tuned.
        monitor: the looks, where seeds were added until all was decided.
    """

    collection: Collection
    statistics: dict[str, dict[str, float | None]]
    counted: dict[str, float | None]
    failed: dict[str, Share]
    collapsed: dict[str, Share]
    times: dict[str, dict[str, TimeTo]]
    measure: str
    margin: float
    threshold: float
    baseline: str
    along: dict[str, Along]
    differences: dict[str, Estimate | Comparison]
    comparisons: list[Comparison]
    notices: list[str]
    checks: list[str]
    terms: str
    tasks: TaskResults | None = None
    tuned: Tuned | None = None
    monitor: Monitor | None = None

    def values(self, variant: str, key: str, *, with_failed: bool = False) -> list[float | None]:
        """A statistic of every run of a variant that counts.

        Of the measure, what was counted for each planned run. Of anything else, that of the finished runs,
        and of the failed ones too where `with_failed`.
        """
        if key == self.measure:
            return [self.counted[run.name] for run in self.collection.planned[variant] if not run.outcome.running]
        runs = self.collection.variants.get(variant, [])
        return [self.statistics[run.name][key] for run in runs if run.finished or (with_failed and run.outcome.failed)]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for ``--json``."""
        shares = {"failed": self.failed, "collapsed": self.collapsed}
        return {
            "measure": self.measure,
            "margin": self.margin,
            "threshold": self.threshold,
            "terms": self.terms,
            "baseline": self.baseline,
            "notices": self.notices,
            "checks": self.checks,
            "tuning": self.tuned.as_dict() if self.tuned else None,
            "sequential": self.monitor.as_dict() if self.monitor else None,
            "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
            "variants": [
                {"variant": variant, "runs": len(runs)}
                | {
                    name: {"count": share[variant].count, "interval": share[variant].interval()}
                    for name, share in shares.items()
                }
                for variant, runs in self.collection.planned.items()
            ],
            "time_to_threshold": {
                axis: {variant: dataclasses.asdict(found) for variant, found in by_variant.items()}
                for axis, by_variant in self.times.items()
            },
            "along": _plain(self.along),
            "tasks": None if self.tasks is None else self.tasks.as_dict(),
            "runs": [
                {
                    "run": run.name,
                    "variant": run.variant,
                    "task": run.task or None,
                    "seed": run.seed,
                    "finished": run.outcome.finished,
                    "outcome": run.outcome.word,
                    "reason": run.outcome.reason,
                    "counted": self.counted[run.name],
                }
                | self.statistics.get(run.name, {})
                for runs in self.collection.planned.values()
                for run in runs
            ],
        }


def judge(
    collection: Collection,
    *,
    baseline: str | None = None,
    measure: str = "final",
    margin: float | None = None,
    threshold: float | None = None,
    reward_range: tuple[float, float] | None = None,
    failed: str | float = "worst",
    paired: bool = False,
    alpha: float = ALPHA,
) -> Judgement:
    """Statistics of every run, and a comparison of every variant with the baseline.

    Args:
        baseline: a variant's name; by default adamw where there is one, else the first variant.
        measure: one of `MEASURES`.
        margin: smaller differences do not matter, in units of reward; by default 0.05 of the reward's range, or of the
            baseline's mean final reward where the range is not known.
        threshold: the reward up to which steps, tokens and seconds are counted; by default the middle of the range, or
            half-way from the baseline's first to its final reward.
        reward_range: the lowest and the highest reward; by default from the recipe.
        failed: what a failed run counts as: ``worst`` (the lowest reward of the range), ``none`` (it makes a verdict
            impossible), or a number.
        paired: whether runs of one seed are pairs, too, where nothing was recorded that could be checked.
        alpha: level of the tests, of all variants together.

    Raises:
        RunError: there is no such baseline or measure, or a term cannot be used.
    """
    check_terms(measure, margin, reward_range, failed, threshold)
    planned = collection.planned
    if baseline is None:
        baseline = default_baseline({name: runs[0].recipe for name, runs in planned.items()})
    check_baseline(baseline, planned)
    terms = make_terms(
        collection,
        baseline,
        measure=measure,
        margin=margin,
        threshold=threshold,
        reward_range=reward_range,
        failed=failed,
    )
    ruler = common_ruler(collection.runs)
    statistics = {run.name: run_statistics(run, terms.threshold, ruler) for run in collection.runs}
    counted = _counted(collection, statistics, terms)
    collapsed = collapsed_runs(collection, terms)
    failed_runs = {name: [run.name for run in runs if run.outcome.failed] for name, runs in planned.items()}
    lost = {name: Share(len(failed_runs[name]) + len(collapsed[name]), len(runs)) for name, runs in planned.items()}
    pairs = pairs_with(collection, baseline, assumed=paired)
    differences: dict[str, Estimate | Comparison] = {}
    for variant in planned:
        if variant == baseline:
            continue
        if reason := why_no_verdict(collection, variant, baseline, counted, terms):
            differences[variant] = no_verdict(variant, baseline, len(planned[variant]), reason)
            continue
        mine, theirs = ([(run.seed, counted[run.name]) for run in planned[name]] for name in (variant, baseline))
        differences[variant] = estimate(variant, mine, baseline, theirs, pairs.seeds[variant])
    return Judgement(
        collection=collection,
        statistics=statistics,
        counted=counted,
        failed={name: Share(len(failed_runs[name]), len(runs)) for name, runs in planned.items()},
        collapsed={name: Share(len(collapsed[name]), len(runs)) for name, runs in planned.items()},
        times=times_to_threshold(collection, statistics),
        measure=measure,
        margin=terms.margin,
        threshold=terms.threshold,
        baseline=baseline,
        along=differences_along(collection, baseline, pairs.seeds, terms.failed, ruler),
        differences=differences,
        comparisons=[
            what_it_cannot_exclude(comparison, lost)
            for comparison in judge_differences(baseline, differences, terms.margin, alpha)
        ],
        notices=[*notices_of(collection, statistics, counted, terms, ruler, collapsed), *pairs.notices],
        checks=pairing(collection),
        terms=terms.words,
    )


def _counted(
    collection: Collection, statistics: dict[str, dict[str, float | None]], terms: Terms
) -> dict[str, float | None]:
    """What the verdict counts of each run that was planned: its measure, or the value of a failed one."""
    counted = {}
    for runs in collection.planned.values():
        for run in runs:
            finished = run.outcome.finished
            counted[run.name] = statistics[run.name][terms.measure] if finished else None
            if run.outcome.failed:
                counted[run.name] = terms.failed
    return counted


def default_baseline(recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """The variant of AdamW with the shortest name, which has the fewest settings of its own; else the first variant.

    Args:
        recipes: by variant the recipe as plain data, empty for runs of other programs.
    """

    def is_adamw(name: str, recipe: Mapping[str, Any]) -> bool:
        optimizer = recipe.get("optimizer", {}).get("name")
        return optimizer == "adamw" or (optimizer is None and name.partition("-")[0] == "adamw")

    found = [name for name, recipe in recipes.items() if is_adamw(name, recipe)]
    return min(found, key=len, default=next(iter(recipes)))


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    return {variant: dataclasses.asdict(one) for variant, one in found.items()}
