"""Seeds that are a function of the run's seed and of what is sampled, so that a resumed run samples the same again."""

import collections
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**31) from its parts; the same on every machine, unlike `hash`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def seeds_of_samples(
    rows: Sequence[Mapping[str, Any]], *parts: int | str, rank: int, gather: Callable[[list], list]
) -> list[int]:
    """A seed for a sample of each row, from `parts`, its question and its number among that question's samples.

    So a sample has the same seed wherever it stands in a batch, and however many processes share the batch.

    Args:
        rows: of this process, each with its ``prompt``.
        parts: what else decides the seeds: the run's seed and the step.
        rank: this process's number.
        gather: concatenates a list over processes; all of them call this function.
    """
    questions = [json.dumps(row["prompt"], sort_keys=True) for row in rows]
    counts = collections.Counter(question for others in gather([questions])[:rank] for question in others)
    seeds = []
    for question in questions:
        seeds.append(derive_seed(*parts, question, counts[question]))
        counts[question] += 1
    return seeds
