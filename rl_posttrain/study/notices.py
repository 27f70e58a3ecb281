"""What a reader must know beside a verdict: which runs count and how, why there is none, and what it cannot exclude."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rl_posttrain.study.equivalence import Comparison
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.measures import Ruler
from rl_posttrain.study.outcomes import Share, listed, percent, usual_distance
from rl_posttrain.study.terms import Terms

_NEAR_SHARE = 0.5  # of the margin: runs so near to the end of the range are at it


def why_no_verdict(
    collection: Collection, variant: str, baseline: str, counted: Mapping[str, float | None], terms: Terms
) -> str:
    """Why the variant cannot be compared with the baseline; empty where it can."""
    both = {name: collection.planned[name] for name in (variant, baseline)}
    runs = [run for found in both.values() for run in found]
    if running := [f"{run.name} ({run.outcome.reason})" for run in runs if run.outcome.running]:
        return f"still training: {listed(running)}"
    for name in both:
        if short := _all_end_short(collection.variants.get(name, [])):
            end, planned = short
            return (
                f"all runs of {name} end at step {end:g}, and others at {planned}; set --planned-steps {planned} if "
                f"they were cut short, or {end:g} to compare the first {end:g} steps of all"
            )
    if any(run.outcome.failed for run in runs) and terms.failed is None:
        counts = {name: Share(sum(run.outcome.failed for run in found), len(found)) for name, found in both.items()}
        said = " and ".join(f"{share.count} of {share.number} runs of {name}" for name, share in counts.items())
        unknown = (
            "--failed says so" if terms.range else "the lowest reward is not known: set --range LOW,HIGH, or --failed"
        )
        return f"{said} failed, and count as nothing, for {unknown}"
    values = [counted[run.name] for run in runs]
    if len(set(values)) == 1:
        where = f"all runs are at {values[0]:.4g}{_which_end(values, terms, 1e-9)}"
        if _never_moves(collection, both):
            return f"{where}, at every step: no measure can tell them apart; make the task easier, or train longer"
        return f"{where}: {_cannot_tell(terms)}"
    return ""


def _never_moves(collection: Collection, variants: Iterable[str]) -> bool:
    """Whether every run has the same reward at each of its steps."""
    rewards = [run.points("reward")[1] for name in variants for run in collection.variants.get(name, [])]
    return len(np.unique(np.concatenate([*rewards, []]))) == 1


def what_it_cannot_exclude(comparison: Comparison, lost: Mapping[str, Share]) -> Comparison:
    """A verdict with the share of failures and collapses that its few seeds leave possible.

    Args:
        lost: by variant, how many of its runs failed or collapsed.
    """
    if comparison.word not in ("better", "worse", "equivalent"):
        return comparison
    one, other = lost[comparison.variant], lost[comparison.baseline]
    if one == other and one.count == 0:
        text = (
            f"0 of {one.number} runs of each failed or collapsed, which still allows {percent(one.interval()[1])} "
            "(one-sided 95 % bound)"
        )
    else:
        text = f"failed or collapsed: {one.words()} of {comparison.variant}, {other.words()} of {comparison.baseline}"
    return dataclasses.replace(comparison, cannot_exclude=text, sentence=f"{comparison.sentence}; {text}")


def short_last_tenth(num_steps: int) -> str:
    """What to know of `final` where the last tenth of the steps is one step or two; empty where it has more."""
    tenth = math.ceil(num_steps / 10)
    if tenth > 2:
        return ""
    return (
        f"final is the mean of {'one step' if tenth == 1 else 'two steps'}, the last tenth of {num_steps}: a lucky "
        "step decides; make more steps, or set --measure auc"
    )


def notices_of(
    collection: Collection,
    statistics: Mapping[str, Mapping[str, float | None]],
    counted: Mapping[str, float | None],
    terms: Terms,
    ruler: Ruler,
    collapsed: Mapping[str, Sequence[str]],
) -> list[str]:
    """What a reader must know before reading any number, in sentences.

    Args:
        statistics: by run, as `run_statistics` gives them.
        counted: by run, what the verdict counts.
        collapsed: by variant, the names of its runs that collapsed.
    """
    everything = [run for runs in collection.planned.values() for run in runs]
    found = [*(f"left out: {reason}" for reason in collection.left_out), *collection.notices]
    if running := [f"{run.name} ({run.outcome.reason})" for run in everything if run.outcome.running]:
        found.append(f"still training, so its variant has no verdict yet: {listed(running)}")
    if failed := [f"{run.name} ({run.outcome.reason})" for run in everything if run.outcome.failed]:
        value = "for nothing, so there is no verdict" if terms.failed is None else f"as {terms.failed:.3g}"
        found.append(f"{len(failed)} of {len(everything)} runs failed, and each counts {value}: {listed(failed)}")
        found += _of_the_value_of_failures(collection.runs, counted, terms)
    if any(collapsed.values()):
        names = [name for runs in collapsed.values() for name in runs]
        found.append(
            f"collapsed, so that they end far below what they or their other seeds had reached: {listed(names)}"
        )
    found += _of_values(collection.runs, statistics, counted, terms)
    found += _of_copies(collection)
    found += _of_lengths(collection.runs, ruler)
    return found + terms.notices


def _of_the_value_of_failures(runs: Sequence[History], counted: Mapping[str, float | None], terms: Terms) -> list[str]:
    finished = [counted[run.name] for run in runs if run.finished and counted[run.name] is not None]
    below = sum(terms.failed is not None and value < terms.failed for value in finished)
    if not below:
        return []
    return [
        f"a failed run counts as {terms.failed:.3g}, and {below} of {len(finished)} finished runs have less, so "
        "failing looks better than training; set --failed to the lowest reward"
    ]


def _of_copies(collection: Collection) -> list[str]:
    """Runs of one variant whose rewards are the same at every step, and are not all one value."""
    copies = []
    for runs in collection.variants.values():
        seen: dict[bytes, str] = {}
        for run in runs:
            rewards = run.points("reward")[1]
            if len(rewards) > 2 and np.ptp(rewards) > 0:
                first = seen.setdefault(hashlib.sha256(rewards.tobytes()).digest(), run.name)
                if first != run.name:
                    copies.append(f"{run.name} and {first}")
    if not copies:
        return []
    return [
        f"the same rewards at every step, as copies of one run have, though each counts by itself: {listed(copies)}"
    ]


def _of_values(
    runs: Sequence[History],
    statistics: Mapping[str, Mapping[str, float | None]],
    counted: Mapping[str, float | None],
    terms: Terms,
) -> list[str]:
    found = []
    recovered = [
        f"{run.name} ({number:.0f} step{'' if number == 1 else 's'})"
        for run in runs
        if run.finished and (number := statistics[run.name]["non_finite"])
    ]
    if recovered:
        found.append(f"a reward, loss or gradient norm was not finite, and the run recovered: {listed(recovered)}")
    if terms.range and (outside := [run.name for run in runs if _leaves(run, terms)]):
        ends = f"{terms.range.low:.3g} to {terms.range.high:.3g}"
        found.append(f"rewards lie outside of the range of {ends} ({terms.range.origin}): {listed(outside)}")
    values = [value for value in counted.values() if value is not None]
    near = _NEAR_SHARE * terms.margin
    end = _which_end(values, terms, near)
    if end and len(set(values)) > 1:
        found.append(f"all runs are within {near:.2g} of one value{end}: {_cannot_tell(terms)}")
    return found


def _of_lengths(runs: Sequence[History], ruler: Ruler) -> list[str]:
    finished = [run for run in runs if run.finished]
    found = []
    planned = _by_variant(finished, lambda run: f"{run.num_planned or '?'}")
    made = sorted({int(run.columns["step"][-1]) for run in finished})
    area = f"the area is over steps {ruler.start:g} to {ruler.end:g}, which all finished runs have"
    if len({run.num_planned for run in finished}) > 1:
        said = ", ".join(f"{variant} {steps}" for variant, steps in planned.items())
        found.append(
            f"runs were planned for different numbers of steps: {said}; final is at the end of each, and {area}"
        )
    elif made and made[-1] - made[0] > ruler.distance:
        found.append(
            f"runs have different lengths, as their recipes say: {', '.join(map(str, made))} steps; final is at the "
            f"end of each, and {area}"
        )
    distances = _by_variant(runs, lambda run: f"{usual_distance(run.points('reward')[0]):g}")
    if len(set(distances.values())) > 1:
        said = ", ".join(f"{variant} every {steps}" for variant, steps in distances.items())
        found.append(
            f"runs were logged at different distances in steps: {said}; a row that is a mean over its steps lags "
            "behind one that is not, so areas differ a little; time to the threshold is counted every "
            f"{ruler.distance:g} steps"
        )
    return found


def _by_variant(runs: Sequence[History], of: Callable[[History], str]) -> dict[str, str]:
    """By variant the different values of its runs, with " or " between."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        found.setdefault(run.variant, {})[of(run)] = None
    return {variant: " or ".join(values) for variant, values in found.items()}


def _all_end_short(runs: Sequence[History]) -> tuple[float, int] | None:
    """The step at which all runs end alike before the planned one, and the planned one, where nobody said what it is.

    They may have been planned so, or all cut: the files of another program do not say.
    """
    if not runs or any(run.recipe or not run.plan_is_guessed for run in runs):
        return None
    ends = {float(run.columns["step"][-1]) for run in runs}
    if len(ends) == 1 and all(run.outcome.failed for run in runs) and runs[0].num_planned > max(ends):
        return max(ends), runs[0].num_planned
    return None


def _which_end(values: Sequence[float], terms: Terms, near: float) -> str:
    """Which end of the range all values are at; empty where they are at neither, or where the range is not known."""
    if terms.range and values:
        if max(values) <= terms.range.low + near:
            return f", the floor of the reward ({terms.range.low:.4g})"
        if min(values) >= terms.range.high - near:
            return f", the ceiling of the reward ({terms.range.high:.4g})"
    return ""


def _cannot_tell(terms: Terms) -> str:
    other = (
        "the area (--measure auc) or the time to a threshold" if terms.measure == "final" else "the time to a threshold"
    )
    return f"the measure {terms.measure} cannot tell variants apart here; {other} may"


def _leaves(run: History, terms: Terms) -> bool:
    rewards = run.points("reward")[1]
    slack = 1e-6 * terms.range.width
    return bool(len(rewards) and (rewards.min() < terms.range.low - slack or rewards.max() > terms.range.high + slack))
