"""DeepSpeed: ZeRO stages 0 to 3, on any device."""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from rl_posttrain.errors import EngineError, class_and_message
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes


class DeepSpeed:
    """bf16 weights with fp32 masters, or fp32 weights, sharded as `distributed.zero_stage` says."""

    keeps_own_state = False

    def __init__(self, recipe: Recipe, sizes: Sizes):
        self.zero_stage = recipe.distributed.zero_stage
        self.weights_dtype = recipe.model.dtype
        self._offload = recipe.distributed.offload
        half = self.weights_dtype == "bfloat16"
        # DeepSpeed can sum bf16 gradients in fp32 at stages 2 and 3; with one micro batch there is nothing to sum.
        self.fp32_gradients = half and self.zero_stage >= 2 and sizes.gradient_accumulation > 1
        self.precision = "fp32 weights"
        if half:
            what = (
                "frozen bf16 weights and bf16 adapters, whose masters are fp32"
                if recipe.model.lora
                else ("bf16 weights, fp32 masters")
            )
            self.precision = f"{what} under DeepSpeed ZeRO-{self.zero_stage}"

    def start(self, *, on_cpu: bool) -> None:
        start_deepspeed(on_cpu=on_cpu)

    def trl_fields(self) -> dict[str, Any]:
        return {
            "deepspeed": self._config(),
            "bf16": self.weights_dtype == "bfloat16",
            "model_init_kwargs": {"dtype": self.weights_dtype},
        }

    def place(self, trainer: Any) -> None:
        """DeepSpeed shards when training begins."""

    def gathered(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """TRL gathers weights under ZeRO-3."""
        return contextlib.nullcontext()

    def whole_weights(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Under ZeRO-3 each weight is gathered in turn: no more than one layer's worth stands beside the shards."""
        if self.zero_stage < 3:
            for name, parameter in parameters:
                yield name, parameter.data
            return
        import deepspeed

        for name, parameter in parameters:
            with deepspeed.zero.GatheredParameters([parameter]):
                # A copy: the engine keeps a layer's tensors until the layer is whole, and this one is freed before.
                yield name, parameter.data.clone()

    def _config(self) -> dict[str, Any]:
        """DeepSpeed's configuration, "auto" where transformers fills in the trainer's value."""
        return {
            **({"data_types": {"grad_accum_dtype": "fp32"}} if self.fp32_gradients else {}),
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "zero_optimization": {
                "stage": self.zero_stage,
                # Checkpoints and the final model hold whole weights, whatever the stage.
                "stage3_gather_16bit_weights_on_model_save": True,
                **offload_config(self._offload),
            },
            # The optimizer is the recipe's; without these two DeepSpeed refuses it, or puts its own in its place.
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }


def offload_config(offload: str) -> dict[str, Any]:
    """What DeepSpeed's section `zero_optimization` says of `distributed.offload`."""
    where = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    parts = {"none": (), "optimizer": ("offload_optimizer",), "parameters": ("offload_optimizer", "offload_param")}
    return {part: dict(where) for part in parts[offload]}


def start_deepspeed(*, on_cpu: bool) -> None:
    """Join the process group. ZeRO-3 shards a model while it loads, and so needs the group before that.

    Raises:
        EngineError: DeepSpeed is missing or does not start.
    """
    try:
        import deepspeed
    except Exception as error:  # its import probes compilers and devices, which fail in their own ways
        raise EngineError(
            f"distributed.engine=deepspeed: DeepSpeed cannot be imported ({class_and_message(error)}); "
            "pip install deepspeed, see `rl-posttrain doctor`, or set distributed.engine=none"
        ) from error
    if on_cpu:
        # Its shared-memory collectives are compiled on first use, which takes a minute; gloo serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)


def wrap(model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> tuple[Any, Any]:
    """A DeepSpeed engine around `model`, without a trainer; and its wrapper of `optimizer`. After `start_deepspeed`.

    Args:
        config: DeepSpeed's configuration.
    """
    import deepspeed

    engine, wrapped, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine, wrapped
