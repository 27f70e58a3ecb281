"""The rollout engine that a recipe names, made once the policy is placed."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_posttrain.evaluation.blocks import BLOCK_SIZE
from rl_posttrain.models.find import kv_cache_bytes_per_token
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.rollout.engine import RolloutEngine
from rl_posttrain.rollout.served_run import ServedRun
from rl_posttrain.rollout.transformers import TransformersEngine
from rl_posttrain.rollout.vllm import VLLMEngine, require_vllm
from rl_posttrain.rollout.vllm_server import VLLMServers
from rl_posttrain.rollout.weight_files import default_folder
from rl_posttrain.training.agree import of_main_process
from rl_posttrain.training.placed import Placed

MakeEngine = Callable[[Placed], RolloutEngine]


def engine_for(
    recipe: Recipe, sizes: Sizes, *, model: str, config: Any, longest: int, note: Callable[[str], None]
) -> MakeEngine:
    """What makes the engine of `rollout.engine`.

    Args:
        model: local folder or hub name.
        config: of the model.
        longest: tokens of the longest prompt and a completion together.
        note: tells the user what takes a while.

    Raises:
        EngineError: vLLM is asked for and cannot be imported, or a server is not there, or is not for this run. Nothing
            has been loaded by then.
    """

    def vllm(placed: Placed) -> RolloutEngine:
        note("starting vLLM")
        max_sequences = sizes.completions_per_process
        if recipe.eval.is_on:
            # The same at any number of processes: the batch that the engine forms has an influence on its numbers.
            max_sequences = max(max_sequences, BLOCK_SIZE)
        per_sequence = kv_cache_bytes_per_token(config, recipe.model.dtype) * longest
        return VLLMEngine(
            model,
            dtype=recipe.model.dtype,
            max_tokens_per_sequence=longest,
            max_sequences=max_sequences,
            kv_cache_bytes=per_sequence * max_sequences,
            gpu_memory_share=recipe.rollout.gpu_memory_share,
            seed=recipe.run.seed,
            trust_remote_code=recipe.model.trust_remote_code,
            # What samples beside an update cannot have torch's own generator.
            seed_each=recipe.run.deterministic or recipe.rollout.max_staleness > 0,
        )

    def transformers(placed: Placed) -> RolloutEngine:
        return TransformersEngine(placed.whole_model, placed.tokenizer, placed.eos_token_ids)

    if recipe.rollout.engine == "transformers":
        return transformers
    if recipe.rollout.engine == "vllm_server":
        servers = VLLMServers(recipe.rollout.servers, _served(recipe, config, longest), note)
        return lambda placed: servers.joined(of_main_process)
    require_vllm()
    return vllm


def _served(recipe: Recipe, config: Any, longest: int) -> ServedRun:
    rollout = recipe.rollout
    run = str(recipe.run_path.absolute())
    return ServedRun(
        run=f"{recipe.run.name}-{hashlib.sha256(run.encode()).hexdigest()[:8]}",
        config=config.get_text_config(),
        dtype=recipe.model.dtype,
        max_tokens_per_sequence=longest,
        folder=Path(rollout.weights_folder) if rollout.weights_folder else default_folder(),
        timeout_s=rollout.server_timeout_s,
        lease_s=rollout.server_lease_s,
        weight_transfer=rollout.weight_transfer,
        trainer_address=rollout.trainer_address,
        one_by_one=recipe.run.deterministic,
    )
