"""One verdict over several tasks, where the user asks for it.

Each task is judged by itself (judging.py), with its own reward range, pairs and failures. A score is a reward as a
share of its task's range, and the verdict is a t test of the mean over tasks of the differences on each (robust.py).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.study.equivalence import Comparison, estimate, judge_differences, no_verdict
from rl_posttrain.study.estimates import ALPHA, Estimate
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import Judgement, TaskResults, default_baseline, judge
from rl_posttrain.study.measures import MEASURES
from rl_posttrain.study.notices import what_it_cannot_exclude
from rl_posttrain.study.outcomes import Share
from rl_posttrain.study.robust import (
    improvement_interval,
    interquartile_interval,
    performance_profile,
    stratified,
)
from rl_posttrain.study.survival import times_to_threshold
from rl_posttrain.study.tasks import shown_value, task_keys
from rl_posttrain.study.terms import RewardRange, check_terms, range_of_recipes
from rl_posttrain.study.variants import variant_keys

_MARGIN, _THRESHOLD = 0.05, 0.5  # shares of a task's range


def judge_runs(collection: Collection, **terms: Any) -> Judgement:
    """`judge`, or `judge_tasks` where the runs are of several tasks."""
    return judge(collection, **terms) if len(collection.by_task) == 1 else judge_tasks(collection, **terms)


def judge_tasks(
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
    """As `judge`, over runs of several tasks.

    Args:
        margin, threshold: as shares of each task's reward range; by default 0.05 and 0.5.
        reward_range: of every task whose recipe has none.
        failed: what a failed run counts as: ``worst``, ``none``, or a share of the range.

    Raises:
        RunError: as `judge`; or a task's reward range is not known, or the baseline has no run on it.
    """
    check_terms(measure, margin, reward_range, failed, threshold)
    if baseline is None:
        baseline = default_baseline({name: runs[0].recipe for name, runs in collection.planned.items()})
    margin = _MARGIN if margin is None else margin
    share = _THRESHOLD if threshold is None else threshold
    ranges, judged = {}, {}
    for task, part in collection.by_task.items():
        ranges[task] = found = _range(task, part, reward_range)
        if baseline in collection.planned and baseline not in part.planned:
            raise RunError(
                f"--baseline={baseline}: it has no run on {task}; name a variant that has runs on every task"
            )
        judged[task] = judge(
            part,
            baseline=baseline,
            measure=measure,
            margin=margin * found.width,
            threshold=found.low + share * found.width,
            reward_range=(found.low, found.high),
            failed=failed if isinstance(failed, str) else found.low + failed * found.width,
            paired=paired,
            alpha=alpha,
        )
    estimates = {
        task: {variant: _scaled(one, ranges[task].width) for variant, one in found.differences.items()}
        for task, found in judged.items()
    }
    variants = [variant for variant in collection.planned if variant != baseline]
    differences = {variant: _over_tasks(variant, baseline, estimates) for variant in variants}
    comparisons = judge_differences(baseline, differences, margin, alpha)
    failures, collapses = (
        {
            variant: _sum(
                [getattr(found, name)[variant] for found in judged.values() if variant in getattr(found, name)]
            )
            for variant in collection.planned
        }
        for name in ("failed", "collapsed")
    )
    lost = {
        variant: Share(failures[variant].count + collapses[variant].count, failures[variant].number)
        for variant in failures
    }
    statistics = {
        name: values | {key: _score(values[key], ranges[task]) for key in MEASURES}
        for task, found in judged.items()
        for name, values in found.statistics.items()
    }
    listed = ", ".join(judged)
    return Judgement(
        collection=collection,
        statistics=statistics,
        counted={
            name: _score(value, ranges[task]) for task, found in judged.items() for name, value in found.counted.items()
        },
        failed=failures,
        collapsed=collapses,
        times=times_to_threshold(collection, statistics),
        measure=measure,
        margin=margin,
        threshold=share,
        baseline=baseline,
        along={},
        differences=differences,
        comparisons=[what_it_cannot_exclude(comparison, lost) for comparison in comparisons],
        notices=[
            *(f"left out: {reason}" for reason in collection.left_out),
            *collection.notices,
            *_alike_at_a_seed(comparisons, judged, ranges, alpha),
            *_other_differences(collection),
            *(f"{task}: {notice}" for task, found in judged.items() for notice in found.notices),
        ],
        checks=[f"{task}: {check}" for task, found in judged.items() for check in found.checks],
        terms=f"One verdict over {len(judged)} tasks: {listed}. Measure: {measure}, {MEASURES[measure]}, as a share of "
        f"the range of its task's reward. The difference is the mean of the differences on each task; runs of "
        f"different tasks are taken as independent, and nothing is said of other tasks. Margin: {margin:.3g} of the "
        f"range. Threshold: {share:.3g} of the range.",
        tasks=_results(judged, ranges, estimates, baseline),
    )


def _range(task: str, part: Collection, said: tuple[float, float] | None) -> RewardRange:
    if found := range_of_recipes(run.recipe for run in part.runs):
        return found
    if said is None:
        raise RunError(
            f"--range: the reward range of {task} is not known, so its scores cannot be put beside those of other "
            "tasks; set --range LOW,HIGH"
        )
    return RewardRange(*said, "as --range says")


def _scaled(one: Estimate | Comparison, width: float) -> Estimate | Comparison:
    if isinstance(one, Comparison):
        return one
    measured = None if one.measured is None else one.measured / width
    return dataclasses.replace(one, difference=one.difference / width, error=one.error / width, measured=measured)


def _over_tasks(
    variant: str, baseline: str, estimates: Mapping[str, Mapping[str, Estimate | Comparison]]
) -> Estimate | Comparison:
    found = []
    for task, by_variant in estimates.items():
        one = by_variant.get(variant)
        if one is None:
            return no_verdict(variant, baseline, 0, f"it has no run on {task}")
        if isinstance(one, Comparison):
            reason = one.sentence.removeprefix(f"{variant}: no verdict: ")
            return no_verdict(variant, baseline, one.num_pairs, f"on {task}: {reason}")
        found.append(one)
    return stratified(found)


def _results(
    judged: Mapping[str, Judgement],
    ranges: dict[str, RewardRange],
    estimates: dict[str, dict[str, Estimate | Comparison]],
    baseline: str,
) -> TaskResults:
    scores: dict[str, list[np.ndarray]] = {}
    for task, found in judged.items():
        for variant in found.failed:
            known = [_score(value, ranges[task]) for value in found.values(variant, found.measure)]
            if known and None not in known:
                scores.setdefault(variant, []).append(np.array(known))
    # A variant that lacks a task has no mean over the tasks.
    scores = {variant: by_task for variant, by_task in scores.items() if len(by_task) == len(judged)}
    every = [one for by_task in scores.values() for one in by_task]
    low, high = (min(0.0, *map(np.min, every)), max(1.0, *map(np.max, every))) if every else (0.0, 1.0)
    return TaskResults(
        judgements=dict(judged),
        ranges=ranges,
        estimates=estimates,
        middle={variant: interquartile_interval(by_task) for variant, by_task in scores.items()},
        improvement={
            variant: improvement_interval(by_task, scores[baseline])
            for variant, by_task in scores.items()
            if variant != baseline and baseline in scores
        },
        profiles={
            variant: performance_profile(by_task, float(low), float(high)) for variant, by_task in scores.items()
        },
    )


def _alike_at_a_seed(
    comparisons: Sequence[Comparison], judged: Mapping[str, Judgement], ranges: Mapping[str, RewardRange], alpha: float
) -> list[str]:
    """Differences that stand only where runs of one seed on different tasks are independent.

    One value for each seed, the mean over tasks of the differences at it, needs no such assumption.
    """
    found = []
    for one in comparisons:
        if one.word not in ("better", "worse"):
            continue
        by_task = []
        for task, part in judged.items():
            mine, theirs = (
                {run.seed: _score(part.counted[run.name], ranges[task]) for run in part.collection.planned[name]}
                for name in (one.variant, one.baseline)
            )
            by_task.append({seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs and seed is not None})
        seeds = [seed for seed in by_task[0] if all(seed in differences for differences in by_task)]
        means = [(seed, float(np.mean([differences[seed] for differences in by_task]))) for seed in seeds]
        at_seeds = estimate(one.variant, means, one.baseline, [(seed, 0.0) for seed in seeds], seeds)
        if isinstance(at_seeds, Comparison):
            continue
        p_value = at_seeds.p_different
        if p_value >= alpha:
            found.append(
                f"{one.variant} is {one.word} than {one.baseline} only if runs of one seed on different tasks are "
                f"independent: with one value for each of {len(seeds)} seeds, the mean over tasks, p = {p_value:.2g}"
            )
    return found


def _other_differences(collection: Collection) -> list[str]:
    """Keys in which runs of one variant differ between tasks, beside the task itself."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for run in collection.runs:
        own = {key: value for key, value in variant_keys(run.recipe).items() if key not in task_keys(run.recipe)}
        for key, value in own.items():
            found.setdefault(run.variant, {}).setdefault(key, {})[shown_value(value)] = None
    keys = sorted({key for by_key in found.values() for key, values in by_key.items() if len(values) > 1})
    return [f"runs of one variant differ between tasks in more than the task: {', '.join(keys)}"] if keys else []


def _score(value: float | None, found: RewardRange) -> float | None:
    return None if value is None else (value - found.low) / found.width


def _sum(shares: Sequence[Share]) -> Share:
    return Share(sum(share.count for share in shares), sum(share.number for share in shares))
