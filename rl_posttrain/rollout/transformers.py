"""Rollouts by transformers' `generate`, from the trainer's own weights."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation import GenerationMode
from transformers.integrations import is_deepspeed_zero3_enabled

from rl_posttrain.errors import EngineError
from rl_posttrain.machine.process import world_size
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import Held, Sampling
from rl_posttrain.rollout.seeds import derive_seed


class TransformersEngine:
    """Samples with the model that is trained: slower than vLLM, with no second copy of the weights.

    Args:
        model: opens the whole policy for generation; under ZeRO-3 that gathers its weights.
        tokenizer: gives the padding token.
        eos_token_ids: tokens that end a completion.
    """

    gives_logprobs = False
    depends_on_batch = True  # its kernels round otherwise with more rows and more padding
    shares_weights = True

    def __init__(
        self,
        model: Callable[[], AbstractContextManager[PreTrainedModel]],
        tokenizer: PreTrainedTokenizerBase,
        eos_token_ids: Sequence[int],
    ):
        self._model, self._tokenizer, self._eos_token_ids = model, tokenizer, list(eos_token_ids)
        self.samples_alone = not _goes_together()
        self.metrics: dict[str, float] = {}

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """As `RolloutEngine.generate`; the prompts are one batch, padded on the left."""
        drawn = {"do_sample": False}
        if sampling.temperature:
            drawn = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": max(0, sampling.top_k),
                "min_p": sampling.min_p or None,
            }
        config = GenerationConfig(
            **drawn,
            max_new_tokens=sampling.max_tokens,
            repetition_penalty=sampling.repetition_penalty,
            pad_token_id=self._tokenizer.pad_token_id,
            bos_token_id=self._tokenizer.bos_token_id,
            eos_token_id=self._eos_token_ids,
            disable_compile=True,
            **sampling.other,
        )
        longest = max(map(len, prompts))
        padded = torch.full((len(prompts), longest), self._tokenizer.pad_token_id)
        mask = torch.zeros_like(padded)
        for place, prompt in enumerate(prompts):
            padded[place, longest - len(prompt) :] = torch.tensor(prompt)
            mask[place, longest - len(prompt) :] = 1
        # Beams and the like, which `other` may ask for, draw from one generator.
        samples = config.get_generation_mode() == GenerationMode.SAMPLE
        with self._model() as model, torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(derive_seed(*seeds))
            sequences = model.generate(
                input_ids=padded.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                custom_generate=_sampling_from(seeds) if samples else None,
            )
        return [
            self._completion(prompt, tokens)
            for prompt, tokens in zip(prompts, sequences[:, longest:].tolist(), strict=True)
        ]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Nothing to load: the weights are the trainer's own."""

    def fingerprint(self, columns: Mapping[str, Sequence[int] | None]) -> Iterator[Held]:
        """Nothing to compare: there is no second copy."""
        return iter(())

    def close(self) -> None:
        """Nothing to give back: the model is the trainer's own."""

    def _completion(self, prompt: list[int], tokens: list[int]) -> Completion:
        """The tokens up to the first end-of-sequence token; behind it transformers pads to the longest completion."""
        end = next((place for place, token in enumerate(tokens) if token in self._eos_token_ids), None)
        if end is None:
            return Completion(prompt_ids=prompt, token_ids=tokens, finish_reason="length")
        return Completion(prompt_ids=prompt, token_ids=tokens[: end + 1], finish_reason="stop")


def _goes_together() -> bool:
    """Whether the processes go through the layers together: ZeRO-3 gathers a layer's weights from all of them."""
    return is_deepspeed_zero3_enabled() and world_size() > 1


def _sampling_from(seeds: Sequence[int]) -> Callable[..., torch.Tensor]:
    """transformers' sampling loop with a generator for each row, as `generate(custom_generate=...)` takes it."""

    def sample(
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        generation_config: Any,
        **options: Any,
    ) -> torch.Tensor:
        generation_config.do_sample = False  # the last processor leaves one token
        return model._sample(
            input_ids,
            logits_processor=LogitsProcessorList([*logits_processor, DrawFromSeeds(seeds)]),
            generation_config=generation_config,
            synced_gpus=_goes_together(),  # to the longest completion of all, as transformers decides it
            **options,
        )

    return sample


class DrawFromSeeds(LogitsProcessor):
    """Draws the next token of each row from that row's own generator, and leaves no other token to choose.

    Args:
        seeds: of the B rows.
    """

    def __init__(self, seeds: Sequence[int]):
        self._generators = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) scores to scores of the same shape, 0 for the drawn token and -inf for the others.

        Raises:
            EngineError: the model's scores are no numbers.
        """
        drawn = [generator.random() for generator in self._generators]
        # Summed in float64: in float32 the tail of a large vocabulary would be lost.
        cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        if not cumulative[:, -1].isfinite().all():
            raise EngineError(
                "model: its probabilities of the next token are not finite, so nothing can be sampled; its weights, or "
                "numbers on the way through it, are inf or NaN; use a checkpoint from before, or a lower optimizer.lr"
            )
        places = cumulative[:, -1:] * torch.tensor(drawn, dtype=torch.float64, device=scores.device)[:, None]
        # To the right of what is equal: a token without probability is never drawn.
        tokens = torch.searchsorted(cumulative, places, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)
