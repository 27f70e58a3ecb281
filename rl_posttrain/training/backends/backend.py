"""The protocol of backends, and the one place that chooses one by the recipe."""

from collections.abc import Iterable, Iterator
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

    def start(self, *, on_cpu: bool) -> None:
        """Prepare the process; call before TRL's arguments are built and before a model is loaded.

        Raises:
            EngineError: the backend is missing or does not start.
        """

    def trl_fields(self) -> dict[str, Any]:
        """Fields of GRPOConfig that this backend decides."""

    def whole_weights(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The whole weights of `parameters`; every process walks all of them.

        Args:
            parameters: names of the checkpoint, and parameters of the unwrapped model.

        Yields:
            Name, and tensor in the parameter's shape.
        """


def make_backend(recipe: Recipe, sizes: Sizes) -> Backend:
    """The backend that `distributed.engine` names."""
    return load_object(recipe.distributed.engine, table=BACKENDS, key="distributed.engine")(recipe, sizes)
