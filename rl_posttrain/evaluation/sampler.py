"""A model that draws completions for an evaluation outside of training, on vLLM or transformers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rl_posttrain.evaluation.blocks import BLOCK_SIZE
from rl_posttrain.evaluation.subjects import Subject
from rl_posttrain.machine.hub import hub
from rl_posttrain.models.find import kv_cache_bytes_per_token, load_config, whole_model
from rl_posttrain.recipe.evaluation import Evaluation
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import RolloutEngine, Sampling
from rl_posttrain.rollout.prompts import load_tokenizer, tokenize
from rl_posttrain.rollout.transformers import TransformersEngine
from rl_posttrain.rollout.vllm import VLLMEngine

# Sequences that a GPU draws at the same time; vLLM's own default.
_SEQUENCES_ON_GPU = 256


class Sampler:
    """One model on one engine.

    Args:
        subject: the model.
        evaluation: says the engine and its dtype.
        longest: tokens of the longest prompt and completion together.

    Raises:
        RecipeError, EngineError: the model cannot be loaded, or the engine does not start here.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation, longest: int):
        self.subject, self._longest = subject, longest
        self._trusts = evaluation.model.trust_remote_code
        self._kind = self._kind_of(subject, evaluation)
        if evaluation.rollout.engine == "vllm":
            max_sequences = _SEQUENCES_ON_GPU if torch.cuda.is_available() else BLOCK_SIZE
            config = load_config(subject.location, trust_remote_code=self._trusts)
            per_sequence = kv_cache_bytes_per_token(config, evaluation.model.dtype) * longest
            self._engine: RolloutEngine = VLLMEngine(
                subject.location,
                dtype=evaluation.model.dtype,
                max_tokens_per_sequence=longest,
                max_sequences=max_sequences,
                kv_cache_bytes=per_sequence * max_sequences,
                gpu_memory_share=evaluation.rollout.gpu_memory_share,
                seed=evaluation.run.seed,
                weights="model",
                trust_remote_code=self._trusts,
            )
        else:
            self._engine = _transformers_engine(subject, evaluation)
        self._take_tokenizer(subject)

    @property
    def depends_on_batch(self) -> bool:
        """Of the engine, see `RolloutEngine`."""
        return self._engine.depends_on_batch

    def can_become(self, subject: Subject, evaluation: Evaluation, longest: int) -> bool:
        """Whether `become` would make this the sampler of another model, without starting an engine."""
        is_there = subject == self.subject
        can_load = evaluation.rollout.engine == "vllm" and bool(_weight_files(Path(subject.location)))
        same = self._kind == self._kind_of(subject, evaluation)
        return (is_there or can_load) and same and longest <= self._longest

    def become(self, subject: Subject) -> None:
        """Take the weights of another model of the same architecture; nothing happens where they are there."""
        if subject != self.subject:
            self._engine.load_weights(_weights(Path(subject.location)))
            self._take_tokenizer(subject)
            self.subject = subject

    def draw(
        self,
        rows: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        sampling: Sampling,
        chat_options: Mapping[str, Any],
    ) -> list[Completion]:
        """One completion a row."""
        prompts = tokenize(self._tokenizer, [row["prompt"] for row in rows], chat_options)
        completions = self._engine.generate(prompts, seeds, sampling)
        texts = self._tokenizer.batch_decode(
            [completion.token_ids for completion in completions], skip_special_tokens=True
        )
        for completion, row, text in zip(completions, rows, texts, strict=True):
            completion.row, completion.text = row, text
        return completions

    def close(self) -> None:
        """Give back the engine's memory."""
        self._engine.close()

    def _take_tokenizer(self, subject: Subject) -> None:
        self._tokenizer = load_tokenizer(subject.location, name=subject.name, trust_remote_code=self._trusts)

    @staticmethod
    def _kind_of(subject: Subject, evaluation: Evaluation) -> tuple:
        """What two models must have in common to take turns in one engine."""
        trusts = evaluation.model.trust_remote_code
        config = load_config(subject.location, trust_remote_code=trusts).to_dict()
        architecture = sorted(
            item for item in config.items() if item[0] not in ("_name_or_path", "transformers_version")
        )
        rollout = evaluation.rollout
        engine = (rollout.engine, evaluation.model.dtype, rollout.gpu_memory_share, evaluation.run.seed)
        # An engine reads the tokens that end a completion once, at its start.
        return *engine, repr(architecture), _end_tokens(subject, trusts)


def _transformers_engine(subject: Subject, evaluation: Evaluation) -> TransformersEngine:
    from transformers import AutoModelForCausalLM

    trusts = {"trust_remote_code": evaluation.model.trust_remote_code}

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, evaluation.model.dtype)
    with hub(subject.location), whole_model(subject.name, "MODEL"):
        model = AutoModelForCausalLM.from_pretrained(subject.location, dtype=dtype, **trusts).to(device).eval()
    tokenizer = load_tokenizer(subject.location, name=subject.name, **trusts)
    if tokenizer.pad_token_id is None:
        # Padding is masked, so that any token will do where the model has no end of sequence either.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    ends = dict.fromkeys(end for end in (tokenizer.eos_token_id, *ends) if end is not None)
    return TransformersEngine(lambda: contextlib.nullcontext(model), tokenizer, list(ends))


def _end_tokens(subject: Subject, trust_remote_code: bool) -> tuple:
    """What ends a completion: the tokenizer's end of sequence, and what the model's generation config names."""
    from transformers import GenerationConfig

    try:
        with hub(subject.location):
            named = GenerationConfig.from_pretrained(subject.location).eos_token_id
    except OSError:  # it has none
        named = None
    tokenizer = load_tokenizer(subject.location, name=subject.name, trust_remote_code=trust_remote_code)
    return tokenizer.eos_token_id, repr(named)


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                yield name, file.get_tensor(name)
