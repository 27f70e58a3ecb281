"""The policy on its device, as engines and rollouts see it; they know nothing of the trainer."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.models.utils import unwrap_model_for_generation

from rl_posttrain.rollout.prompts import tokenize
from rl_posttrain.training.adapters import is_adapted
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.dropout import without_dropout
from rl_posttrain.training.lora import whole_weights


class Placed:
    """A trainer's policy: its weights, its tokenizer, and the whole model for generation."""

    def __init__(self, trainer: Any, backend: Backend):
        self._trainer, self.backend = trainer, backend
        self.tokenizer = trainer.processing_class
        self.eos_token_ids: list[int] = trainer.eos_token_ids

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of every whole weight, under its checkpoint name; every process must walk all of them.

        A critic's weights are not among them, and adapters are merged in.
        """
        policy = self._trainer.accelerator.unwrap_model(self._trainer.model)
        return whole_weights(policy, self.backend)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that a file of the model has, a critic's part too, in main memory; every process must call it.

        Of a policy with adapters that is what is trained. The main process alone gets weights.
        """
        policy = self._trainer.accelerator.unwrap_model(self._trainer.model)
        is_main = self._trainer.accelerator.is_main_process
        saved = (item for item in policy.named_parameters() if item[1].requires_grad or not is_adapted(policy))
        state = {}
        for name, tensor in self.backend.whole_weights(saved):
            if is_main:
                state[name] = tensor.cpu()
        return state

    def tokenize(self, prompts: list) -> list[list[int]]:
        """Token ids of prompts, which are text or chat messages."""
        return tokenize(self.tokenizer, prompts, self._trainer.chat_template_kwargs)

    def decode(self, token_ids: list[list[int]]) -> list[str]:
        """Text of token ids, without special tokens."""
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[PreTrainedModel]:
        """The unwrapped model, ready to generate and without dropout.

        Sharded weights are gathered for the length of the block.
        """
        trainer = self._trainer
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as model,
            self.backend.gathered(model),
            without_dropout(model),
        ):
            yield model
