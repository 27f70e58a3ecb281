"""Accuracy and pass@k of a policy over a task's rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = Callable[[list, int], list]


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that at least one of k samples is right, from n samples of which c are; unbiased.

    arXiv:2107.03374, eq. 1.

    Args:
        num_samples: n, at least k.
        num_correct: c.
    """
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def evaluate_policy(
    rows: list[dict],
    sample: Sample,
    rewards: Mapping[str, Callable],
    *,
    judge: str | None,
    num_samples: int,
    ks: Sequence[int],
    batch_size: int,
    rank: int,
    world_size: int,
    gather: Callable[[list], list],
) -> dict[str, float]:
    """Draw `num_samples` completions of every row's prompt and score them.

    Args:
        rows: the task's eval rows, the same on every process.
        sample: draws one completion a prompt, given the prompts and the number of the call, for its seed.
        rewards: by name.
        judge: the reward whose full credit is a right answer; without one only the mean rewards are told.
        batch_size: prompts a call of `sample`, on each process.
        gather: concatenates a list over processes, in rank order.

    Returns:
        ``eval/<reward>`` for each reward, ``eval/accuracy`` and ``eval/pass@k`` for each k.
    """
    places = list(range(len(rows) * num_samples))
    # The same number of calls on every process: under ZeRO-3 generation is a collective. What is over is dropped.
    share = -(-len(places) // world_size)
    mine = [places[(rank * share + offset) % len(places)] for offset in range(share)]
    scored: list[dict[str, Any]] = []
    for start in range(0, share, batch_size):
        batch = mine[start : start + batch_size]
        batch_rows = [rows[place // num_samples] for place in batch]
        completions = sample([row["prompt"] for row in batch_rows], start // batch_size)
        columns = {name: [row[name] for row in batch_rows] for name in rows[0] if name != "prompt"}
        values = {
            name: reward(prompts=[row["prompt"] for row in batch_rows], completions=completions, **columns)
            for name, reward in rewards.items()
        }
        scored += [{"place": place} | {name: values[name][i] for name in values} for i, place in enumerate(batch)]
    by_place = {entry["place"]: entry for entry in gather(scored)}
    metrics = {}
    for name in rewards:
        known = [entry[name] for entry in by_place.values() if entry[name] is not None]
        metrics[f"eval/{name}"] = sum(known) / len(known) if known else None
    if judge is not None:
        right = [
            sum((by_place[row * num_samples + draw][judge] or 0.0) >= 1.0 for draw in range(num_samples))
            for row in range(len(rows))
        ]
        metrics["eval/accuracy"] = sum(right) / (len(rows) * num_samples)
        for k in ks:
            metrics[f"eval/pass@{k}"] = sum(pass_at_k(num_samples, correct, k) for correct in right) / len(rows)
    return metrics
