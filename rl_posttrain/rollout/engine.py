"""The protocol of rollout engines. Whoever calls one does not know where it runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from rl_posttrain.rollout.completion import Completion


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. The fields are vLLM's SamplingParams by name; `other` holds more of the engine's own.

    Attributes:
        max_tokens: the most tokens of a completion.
        temperature: 0 takes the likeliest token.
        top_p, top_k, min_p: limits of the sampled distribution; 1, 0 and 0 are off.
        repetition_penalty: 1 is off.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    other: Mapping[str, Any] = field(default_factory=dict)

    def is_whole_distribution(self) -> bool:
        """Whether the model's own distribution is sampled, so that its log-probabilities are the trainer's."""
        reshaped = self.min_p or self.repetition_penalty != 1.0 or self.other
        return self.top_p == 1.0 and self.top_k in (0, -1) and not reshaped


@dataclass(frozen=True)
class Held:
    """Values of a weight as an engine uses it.

    Attributes:
        name: of the weight in the policy's checkpoint.
        place: where the engine has it; a tied weight is in two places, embedding and output layer.
        values: in the engine's dtype; (outputs, columns) of a matrix, in the order asked for, (n,) of a vector.
    """

    name: str
    place: str
    values: torch.Tensor


class RolloutEngine(Protocol):
    """Draws completions under the weights it was last given."""

    gives_logprobs: bool
    """Whether completions carry the log-probabilities that they were sampled with."""
    depends_on_batch: bool
    """Whether a completion changes with the prompts beside it. On a GPU it does not, as far as its kernels allow."""
    shares_weights: bool
    """Whether it samples from the policy's own tensors, so that no sync can fail."""
    samples_alone: bool
    """Whether a process samples without the others, so that it may stop on its own in `generate`."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the last call of `generate`, for `metrics.jsonl`; empty where an engine has none."""

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order; the same for the same prompts, seeds and weights.

        What was generated before has no influence: nothing is cached from one call to the next. With
        `rollout.max_staleness` a thread calls it; nothing else of the engine is called meanwhile.

        Args:
            prompts: token ids of each prompt.
            seeds: of each prompt, in [0, 2**31). An engine that draws a whole batch from one generator seeds that
                from all of them.

        Returns:
            Completions with their tokens, log-probabilities and finish reason; row and text are filled by the caller.
        """

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the policy's whole weights, named as in its checkpoint; `weights` is walked to its end."""

    def fingerprint(self, columns: Mapping[str, Sequence[int] | None]) -> Iterator[Held]:
        """What the engine really multiplies by, read back from its tensors or through its kernels.

        A weight that cannot be read back, or that the engine does not have, is left out.

        Args:
            columns: by the policy's names, places along the inputs of a matrix (outputs, inputs); None: a whole vector.
        """

    def close(self) -> None:
        """Give back memory and processes. The engine is not used after this."""
