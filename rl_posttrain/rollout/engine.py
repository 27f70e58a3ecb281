"""The door to generation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; the fields are vLLM's SamplingParams by name, and `other` holds more of them."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    other: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completions:
    """What was drawn: token ids and the log-probability, in nats, that the engine gave to each.

    The log-probabilities are those of the distribution that was sampled from, after temperature and top-p.
    """

    token_ids: list[list[int]]
    logprobs: list[list[float]]
