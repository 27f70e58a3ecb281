"""DeepSpeed from the recipe: its configuration, and starting it on any device."""

import os

import torch

from rl_posttrain.errors import EngineError
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes, sums_gradients_in_fp32


def deepspeed_config(recipe: Recipe, sizes: Sizes) -> dict | None:
    """DeepSpeed's configuration, "auto" where transformers fills in the trainer's value; None without DeepSpeed."""
    if recipe.distributed.engine == "none":
        return None
    return {
        **({"data_types": {"grad_accum_dtype": "fp32"}} if sums_gradients_in_fp32(recipe, sizes) else {}),
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": recipe.distributed.zero_stage,
            # Checkpoints and the final model hold whole weights, whatever the stage.
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        # The optimizer is the recipe's; without these two DeepSpeed refuses it, or puts its own in its place.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def start_deepspeed(on_cpu: bool) -> None:
    """Join the process group. It must stand before TrainingArguments is built: ZeRO-3 shards a model while it loads.

    Raises:
        EngineError: DeepSpeed is missing or does not start.
    """
    try:
        import deepspeed
    except Exception as error:  # its import probes compilers and devices, which fail in their own ways
        raise EngineError(
            f"distributed.engine=deepspeed: DeepSpeed cannot be imported ({type(error).__name__}: {error}); "
            "pip install deepspeed, see `rl-posttrain doctor`, or set distributed.engine=none"
        ) from error
    if on_cpu:
        # Its shared-memory collectives are compiled on first use, which takes a minute; gloo serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)


def leave_deepspeed() -> None:
    """Undo what an earlier run in this process told accelerate, which would put DeepSpeed under a run without it."""
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
