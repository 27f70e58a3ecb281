"""From samples to the numbers of an evaluation, each with its standard error over questions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.evaluation.samples import Sample
from rl_posttrain.evaluation.statistics import Estimate, majority_at_k, mean_over_questions, pass_at_k
from rl_posttrain.evaluation.votes import RIGHT

# Columns of rows by which results are broken down, where the rows have them.
BREAKDOWNS = ("task", "difficulty", "level", "subject", "category", "type", "year", "num_numbers", "dataset")
# A column with more values than this is no kind of question.
MOST_VALUES = 30
Samples = Sequence[Sample]


def question_metrics(samples: Samples, ks: Sequence[int], *, judged: bool, formed: bool) -> dict[str, float | None]:
    """The metrics of one question.

    Args:
        samples: of the question, at least as many as the largest of `ks`.
        ks: for pass@k and maj@k.
        judged: whether a reward judges answers; without one there are none of ``accuracy``, pass@k and maj@k.
        formed: whether a reward judges form.

    Returns:
        ``accuracy`` (a sample that the reward could not judge is not right), ``pass@k``, ``maj@k`` for k above 1,
        ``unreadable``, ``well_formed``, ``right_and_well_formed``, ``reward`` and each reward by name, ``length`` in
        tokens, and ``truncated``. None where no sample has the value.
    """
    metrics: dict[str, float | None] = {}
    if judged:
        num_right = sum(sample.right is True for sample in samples)
        metrics["accuracy"] = num_right / len(samples)
        metrics |= {f"pass@{k}": pass_at_k(len(samples), num_right, k) for k in ks}
        votes = Counter(sample.vote for sample in samples)
        unreadable = votes.pop(None, 0)
        votes.pop(RIGHT, None)
        wrong = list(votes.values())
        metrics |= {f"maj@{k}": majority_at_k(num_right, wrong, unreadable, k) for k in ks if k > 1}
        metrics["unreadable"] = unreadable / len(samples)
    if formed:
        metrics["well_formed"] = _share([sample.well_formed for sample in samples])
    if judged and formed:
        known = [sample for sample in samples if None not in (sample.right, sample.well_formed)]
        metrics["right_and_well_formed"] = _share([sample.right and sample.well_formed for sample in known])
    for name in samples[0].rewards:
        metrics[name] = _mean([sample.rewards[name] for sample in samples])
    metrics["reward"] = _mean([sample.reward for sample in samples])
    metrics["length"] = _mean([sample.num_tokens for sample in samples])
    metrics["truncated"] = _share([sample.truncated for sample in samples])
    return metrics


def overall(questions: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Each metric's mean over questions, with its standard error."""
    return {name: mean_over_questions([question[name] for question in questions]) for name in questions[0]}


def breakdown(
    rows: Sequence[Mapping[str, Any]], questions: Sequence[Mapping[str, float | None]], columns: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Results by the values of columns, such as ``{"level": {"1": {"num_questions": 10, "metrics": {...}}}}``.

    Args:
        rows: the first of them are those of the questions, in the same order.
        columns: those that are looked for; one that has a single value, or more than `MOST_VALUES`, is left out.
    """
    found = {}
    for column in columns:
        groups: dict[str, list[Mapping[str, float | None]]] = {}
        for row, question in zip(rows, questions, strict=False):
            if row.get(column) is not None:
                groups.setdefault(str(row[column]), []).append(question)
        if 1 < len(groups) <= MOST_VALUES:
            found[column] = {
                value: {"num_questions": len(groups[value]), "metrics": as_json(overall(groups[value]))}
                for value in sorted(groups, key=_numbers_first)
            }
    return found


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Estimates as plain data."""
    return {name: {"value": estimate.value, "error": estimate.error} for name, estimate in estimates.items()}


def _numbers_first(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _share(values: Sequence[bool | None]) -> float | None:
    return _mean([None if value is None else float(value) for value in values])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
