"""The record of one completion: made by the engine, filled on the way to the loss, written to `rollouts/`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]


@dataclass(slots=True)
class Completion:
    """One sampled completion and all that is known about it.

    Attributes:
        prompt_ids: tokens of the prompt, as the engine got them.
        token_ids: sampled tokens, the end-of-sequence token included.
        finish_reason: ``stop`` (an end-of-sequence token or a stop string), or ``length`` (cut at the token limit).
        logprobs: log-probability of each sampled token in nats, under the distribution that was sampled from; None
            where the engine gives none.
        weights_step: steps that the sampler's weights had behind them; None where nobody counts.
        row: the task's row: ``prompt``, ``answer`` and the columns that rewards take.
        text: the tokens as text, without special tokens.
        rewards: by the reward's name; None where a reward gave none.
        reward: weighted sum of the rewards; None where no reward gave a value.
        advantage: of the completion; where an algorithm gives one per token, their mean.
        extra: further columns that reward functions logged by `log_extra`.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[float] | None = None
    weights_step: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    rewards: dict[str, float | None] = field(default_factory=dict)
    reward: float | None = None
    advantage: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def reply(self) -> str | list[dict[str, str]]:
        """What a reward function is handed: the text, or one assistant message where the prompt is a chat."""
        if isinstance(self.row["prompt"], str):
            return self.text
        return [{"role": "assistant", "content": self.text}]

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and completion together."""
        return len(self.prompt_ids) + len(self.token_ids)

    def as_rollout(self, step: int) -> dict[str, Any]:
        """The row of `rollouts/` that holds this completion; `step` is the update that trains on it."""
        rollout = {
            "step": step,
            "prompt": self.row["prompt"],
            "completion": self.reply,
            "answer": self.row.get("answer"),
            "rewards": self.rewards,
            "reward": self.reward,
            "advantage": self.advantage,
            "num_tokens": len(self.token_ids),
            "finish_reason": self.finish_reason,
        }
        return rollout | ({"extra": self.extra} if self.extra else {})
