"""Two models on the same questions: paired differences with an interval, and a verdict as for runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_posttrain.errors import RunError
from rl_posttrain.runs.evaluations import read_questions
from rl_posttrain.study.equivalence import Comparison, judge_differences, too_few
from rl_posttrain.study.estimates import Estimate

FEWEST_QUESTIONS = 10
DEFAULT_MARGIN = 0.05
# Metrics that count samples; pass@k and maj@k are others.
COUNTED = ("accuracy", "well_formed", "right_and_well_formed", "unreadable", "truncated")


@dataclass(frozen=True)
class Difference:
    """One metric of two models on the same questions: the first minus the second.

    Attributes:
        difference: mean over questions.
        low, high: its 95 % confidence interval.
        num_questions: that have the metric for both.
    """

    difference: float
    low: float
    high: float
    num_questions: int


def paired_estimate(one: Sequence[float], other: Sequence[float], step: float = 0.0) -> Estimate:
    """The mean difference of two values per question, one minus other, with its standard error.

    Two made-up questions join the real ones: on one of them the first model is better by `step`, on the other the
    second. So a few questions on which two models happen to agree do not prove that they always do. For values of 0 and
    1 with a step of 1 it is the interval of Bonett and Price (2012, doi:10.3102/1076998611411915), which keeps its
    level with few questions.

    Args:
        one, other: values of the same questions, in the same order; at least two.
        step: the smallest difference that a question can show: 1 / samples for accuracy, k / samples for pass@k, 0 for
            a metric without one.
    """
    differences = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    joined = np.concatenate([differences, [step, -step]]) if step else differences
    number = len(joined)
    error = float(joined.std(ddof=0 if step else 1)) / math.sqrt(number)
    mean, measured = float(joined.mean()), float(differences.mean())
    return Estimate(mean, error, len(differences) - 1, len(differences), True, "questions", measured)


def differences(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], num_samples: int
) -> dict[str, Difference]:
    """The paired difference of every metric that both evaluations have.

    Args:
        one, other: questions.jsonl of two evaluations, of the same questions.
        num_samples: of each question, in both.
    """
    found = {}
    for name in one[0]["metrics"]:
        pairs = [
            (mine["metrics"][name], theirs["metrics"][name])
            for mine, theirs in zip(one, other, strict=True)
            if None not in (mine["metrics"][name], theirs["metrics"].get(name))
        ]
        if len(pairs) < 2:
            continue
        estimate = _estimate_of(name, pairs, num_samples)
        low, high = estimate.interval()
        found[name] = Difference(estimate.shown, low, high, len(pairs))
    return found


def compare_on_questions(
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]],
    baseline: str,
    *,
    num_samples: int,
    margin: float = DEFAULT_MARGIN,
    metric: str = "accuracy",
) -> list[Comparison]:
    """Verdicts on models against `baseline`, from the same questions.

    Args:
        evaluations: by model, its questions.jsonl.
        margin: smaller differences do not matter.
        metric: what the verdict is about.

    Raises:
        RunError: the evaluations have no such metric.
    """
    base = evaluations[baseline]
    found: dict[str, Estimate | Comparison] = {}
    for model, questions in evaluations.items():
        if model == baseline:
            continue
        if metric not in questions[0]["metrics"] or metric not in base[0]["metrics"]:
            raise RunError(f"--compare={baseline}: no {metric} to compare; it needs a reward that judges answers")
        pairs = [(q["metrics"][metric], b["metrics"][metric]) for q, b in zip(questions, base, strict=True)]
        if len(pairs) < FEWEST_QUESTIONS:
            reason = f"there are {len(pairs)} questions"
            found[model] = too_few(model, baseline, len(pairs), reason, FEWEST_QUESTIONS)
        else:
            found[model] = _estimate_of(metric, pairs, num_samples)
    return judge_differences(baseline, found, margin)


def _estimate_of(name: str, pairs: Sequence[tuple[float, float]], num_samples: int) -> Estimate:
    step = 0.0
    if name in COUNTED:
        step = 1 / num_samples
    elif name.startswith(("pass@", "maj@")):
        # What one right sample among n adds to pass@k.
        step = int(name.partition("@")[2]) / num_samples
    return paired_estimate(*zip(*pairs, strict=True), step=step)


def comparison_of(results: Sequence[Mapping[str, Any]], baseline: str, margin: float) -> list[dict[str, Any]]:
    """Every other model compared with `baseline`, task by task, as plain data.

    Args:
        results: of evaluations, with the ``folder`` of each, and the ``title`` of its task.

    Raises:
        RunError: an evaluation is of other questions than the baseline's.
    """
    compared = []
    for task in dict.fromkeys(result["title"] for result in results):
        of_task = {result["model"]: result for result in results if result["title"] == task}
        base = of_task[baseline]
        for result in of_task.values():
            if result["task"] != base["task"] or result["num_questions"] != base["num_questions"]:
                raise RunError(f"--compare={baseline}: {result['model']} answered other questions of {task}")
        questions = {model: read_questions(Path(result["folder"])) for model, result in of_task.items()}
        num_samples = base["num_samples"]
        verdicts = compare_on_questions(questions, baseline, num_samples=num_samples, margin=margin)
        for verdict in verdicts:
            found = differences(questions[verdict.variant], questions[baseline], num_samples)
            compared.append(
                {
                    "task": task,
                    "model": verdict.variant,
                    "baseline": baseline,
                    "verdict": verdict.word,
                    "sentence": verdict.sentence,
                    "p_different": verdict.p_different,
                    "p_equivalent": verdict.p_equivalent,
                    "differences": {name: asdict(difference) for name, difference in found.items()},
                }
            )
    return compared
