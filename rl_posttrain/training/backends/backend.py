"""The protocol of backends, and the one place that chooses one by the recipe."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from rl_posttrain.plugins import load_object
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.training.backends import BACKENDS


class Backend(Protocol):
    """Made as ``Class(recipe, sizes)``; making one imports nothing heavy."""

    zero_stage: int | None
    """DeepSpeed's ZeRO stage; None where the optimizer gets plain parameters."""
    weights_dtype: str
    """``bfloat16`` or ``float32``: of the weights that run forward. An optimizer always steps on fp32."""
    fp32_gradients: bool
    """Whether gradients of bf16 weights are summed over micro batches in fp32."""
    precision: str
    """In what precision weights are kept and updated, in words."""
    keeps_own_state: bool
    """Whether it writes weights and optimizer state of a checkpoint itself, as `OwnState`; else transformers does."""

    def start(self, *, on_cpu: bool) -> None:
        """Prepare the process; call before TRL's arguments are built and before a model is loaded.

        Raises:
            EngineError: the backend is missing or does not start.
        """

    def trl_fields(self) -> dict[str, Any]:
        """Fields of GRPOConfig that this backend decides."""

    def place(self, trainer: Any) -> None:
        """Shard the policy and the reference model of a trainer that was just made, where no other engine does it."""

    def gathered(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """Inside, the weights of the unwrapped `model` are whole, where TRL does not gather them by itself."""

    def whole_weights(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The whole weights of `parameters`; every process walks all of them.

        Args:
            parameters: names of the checkpoint, and parameters of the unwrapped model.

        Yields:
            Name, and tensor in the parameter's shape.
        """


class OwnState(Protocol):
    """What a backend with `keeps_own_state` does too. Every process calls each, and all wait for each other."""

    def write_state(self, trainer: Any, folder: str) -> None:
        """Write weights and optimizer state into a checkpoint."""

    def read_weights(self, trainer: Any, folder: str) -> None:
        """Give the model, a critic inside, the weights of a checkpoint."""

    def read_optimizer(self, trainer: Any, folder: str) -> None:
        """Give the optimizer the state of a checkpoint."""


def make_backend(recipe: Recipe, sizes: Sizes) -> Backend:
    """The backend that `distributed.engine` names."""
    return load_object(recipe.distributed.engine, table=BACKENDS, key="distributed.engine")(recipe, sizes)
