"""What formulas of time and memory need of a model: a few numbers of its config."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """A decoder of Llama's kind: attention with grouped keys, and a gated MLP of three matrices.

    ``tied``: the output layer and the embedding have one weight.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tensors: int
    num_parameters: int
    tied: bool = False

    @property
    def attention_width(self) -> int:
        return self.heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        """Values of one layer's matrices."""
        key_value = self.key_value_heads * self.head_size
        attention = self.hidden * (2 * self.attention_width + 2 * key_value)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def head_parameters(self) -> int:
        """Values of the output layer, whether the embedding has them too or not."""
        return self.vocabulary * self.hidden


def shape_of(config: Any, *, num_parameters: int, tensors: int) -> ModelShape | None:
    """The shape of a config of transformers; None where it has not what the formulas need.

    Args:
        num_parameters: values of the whole model, tied ones once.
        tensors: parameters of the whole model.
    """
    text = config.get_text_config()
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    values = [getattr(text, name, None) for name in needed]
    if not all(isinstance(value, int) and value > 0 for value in values):
        return None
    layers, hidden, intermediate, heads, vocabulary = values
    return ModelShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or hidden // heads,
        vocabulary=vocabulary,
        tensors=tensors,
        num_parameters=num_parameters,
        tied=bool(getattr(text, "tie_word_embeddings", False)),
    )
