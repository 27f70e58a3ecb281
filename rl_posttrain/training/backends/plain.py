"""Plain PyTorch: one copy of the policy a process, under DDP where there are several."""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes


class PlainPyTorch:
    """fp32 weights, under bf16 autocast where the recipe says bfloat16; what LoRA freezes is bf16 then."""

    zero_stage = None
    fp32_gradients = False
    keeps_own_state = False

    def __init__(self, recipe: Recipe, sizes: Sizes):
        self._autocasts = recipe.model.dtype == "bfloat16"
        self.weights_dtype = recipe.model.dtype if recipe.model.lora else "float32"
        self.precision = "fp32 weights"
        if self._autocasts:
            self.precision += ", which are their own masters, under bf16 autocast"
        if self.weights_dtype == "bfloat16":
            self.precision = "frozen bf16 weights and fp32 adapters, which are their own masters, under bf16 autocast"

    def start(self, *, on_cpu: bool) -> None:
        forget_deepspeed()
        _let_torch_load_to_numbered_cpus()

    def trl_fields(self) -> dict[str, Any]:
        return {"deepspeed": None, "bf16": self._autocasts, "model_init_kwargs": {"dtype": self.weights_dtype}}

    def place(self, trainer: Any) -> None:
        """Every process keeps a copy of its own."""

    def gathered(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """Every process has whole weights."""
        return contextlib.nullcontext()

    def whole_weights(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in parameters:
            yield name, parameter.data


def forget_deepspeed() -> None:
    """An earlier run in this process may have told accelerate to put DeepSpeed under every model, and transformers to
    shard a model while it loads."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    unset_hf_deepspeed_config()


@functools.cache
def _let_torch_load_to_numbered_cpus() -> None:
    """Several processes on a CPU have the device ``cpu:0``. transformers loads the optimizer's state to it, and torch
    knows no such place by itself."""
    torch.serialization.register_package(
        1, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
