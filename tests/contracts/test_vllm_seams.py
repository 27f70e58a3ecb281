"""The seams of vLLM that rollout/vllm.py uses, private ones above all, so that an upgrade fails here, by name."""

import dataclasses
import inspect


def names(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_vllm_takes_the_sampling_that_we_ask_for():
    from vllm import SamplingParams

    from rl_posttrain.rollout.engine import Sampling

    given = {name: value for name, value in vars(Sampling(max_tokens=4)).items() if name != "other"}
    assert {*given, "n", "logprobs", "detokenize", "seed"} <= set(names(SamplingParams))
    SamplingParams(n=1, logprobs=0, detokenize=False, seed=3, **given)


def test_vllm_takes_the_engine_arguments_that_we_give():
    from vllm import LLM, EngineArgs

    given = {
        "model", "dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "distributed_executor_backend",
        "load_format", "logprobs_mode", "disable_log_stats", "seed", "gpu_memory_utilization", "enforce_eager",
    }  # fmt: skip
    assert given <= set(names(LLM.__init__)) | {field.name for field in dataclasses.fields(EngineArgs)}
    assert "use_tqdm" in names(LLM.generate)
    assert callable(LLM.reset_prefix_cache)


def test_vllm_reloads_weights_from_an_iterator():
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert "weights_iterator" in names(GPUModelRunner.reload_weights)
    assert callable(GPUModelRunner.get_model)


def test_vllms_shutdown_is_made_of_the_parts_that_we_call():
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.core_client import InprocClient

    assert "self._finalizer = weakref.finalize(self, self.engine_core.shutdown)" in inspect.getsource(InprocClient)
    source = inspect.getsource(EngineCore.shutdown)
    assert "self.model_executor.shutdown()" in source
    assert "cleanup_dist_env_and_memory()" in source, "if it leaves the process group alone now, call it whole"


def test_vllm_names_the_log_probabilities_that_we_ask_for():
    from typing import get_args

    from vllm.config.model import LogprobsMode

    assert "processed_logprobs" in get_args(LogprobsMode)


def test_an_output_holds_what_we_read():
    from vllm.outputs import CompletionOutput, RequestOutput

    assert {"token_ids", "logprobs", "finish_reason"} <= set(names(CompletionOutput))
    assert "outputs" in names(RequestOutput)


def test_the_engines_parts_are_where_we_take_them():
    """llm_engine.model_executor.driver_worker.model_runner, and the client of an engine in this process."""
    from vllm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher, UniProcExecutor
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    assert "self.llm_engine" in inspect.getsource(LLM.__init__)
    source = inspect.getsource(LLMEngine)
    assert "self.model_executor = self.engine_core.engine_core.model_executor" in source
    assert issubclass(ExecutorWithExternalLauncher, UniProcExecutor)
    assert "self.driver_worker = WorkerWrapperBase(" in inspect.getsource(UniProcExecutor)
    assert "return getattr(self.worker, attr)" in inspect.getsource(WorkerWrapperBase.__getattr__)


def test_a_cpu_engine_multiplies_by_a_packed_copy_of_the_head():
    from vllm.model_executor.layers import utils
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    assert "layer.cpu_linear = " in inspect.getsource(utils.dispatch_cpu_unquantized_gemm)
    assert names(UnquantizedEmbeddingMethod.process_weights_after_loading) == ["self", "layer"]


def test_vllm_freezes_what_close_frees():
    from vllm.v1.engine import core

    assert "freeze_gc_heap()" in inspect.getsource(core)


def test_vllm_reads_the_variables_that_we_set():
    from vllm import envs

    ours = {"VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_KVCACHE_SPACE"}
    assert ours | {"VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"} <= set(envs.environment_variables)


def test_weights_are_read_back_from_the_layers_that_we_know():
    """vllm_weights.py: fused parts by name and size, the kernel that a layer multiplies by, and the vocabulary."""
    from vllm.model_executor.layers.linear import (
        LinearBase,
        MergedColumnParallelLinear,
        QKVParallelLinear,
        UnquantizedLinearMethod,
    )
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )
    from vllm.model_executor.models.llama import LlamaForCausalLM
    from vllm.model_executor.models.utils import WeightsMapper

    assert LlamaForCausalLM.packed_modules_mapping["qkv_proj"] == ["q_proj", "k_proj", "v_proj"]
    assert WeightsMapper()._map_name("model.norm.weight") == "model.norm.weight"
    for fused in (MergedColumnParallelLinear, QKVParallelLinear):
        assert issubclass(fused, LinearBase)
        assert "self.output_sizes = " in inspect.getsource(fused.__init__)
    assert issubclass(ParallelLMHead, VocabParallelEmbedding)
    for method in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod):
        assert names(method.apply) == ["self", "layer", "x", "bias"]
    source = inspect.getsource(VocabParallelEmbedding.__init__)
    assert all(f"self.{name} = " in source for name in ("org_vocab_size", "embedding_dim", "params_dtype", "tp_size"))
    source = inspect.getsource(LinearBase.__init__)
    assert all(f"self.{name} = " in source for name in ("input_size", "params_dtype", "tp_size"))


def test_vllms_sampler_that_leaves_torchs_generator_alone_draws_as_the_one_for_a_cpu_does():
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, random_sample

    assert names(TopKTopPSampler.forward_native) == names(TopKTopPSampler.forward_cpu)
    assert "random_sample(probs, generators" in inspect.getsource(TopKTopPSampler.forward_native)
    assert "if len(generators) != probs.shape[0]:\n        q.exponential_()" in inspect.getsource(random_sample)
