"""Bytes that forward and backward passes of one micro batch hold on top of weights, gradients and state.

Counted by what autograd keeps of transformers' own layers of Llama's kind (two RMS norms, grouped attention, a gated
MLP), attention without a stored matrix of weights, and log-probabilities without the whole of the logits.
`tests/cost/test_activations.py` counts the same on real forward passes.
"""

from typing import Literal, NamedTuple

from rl_posttrain.cost.model_shape import ModelShape

Precision = Literal["bfloat16", "float32", "autocast"]

# training/logprobs.py holds at most this many fp32 logits at a time on a CPU, in five tensors of that size in its
# backward pass: logits, log-probabilities, probabilities, their gradient, and that in bf16 with one more.
_CPU_TILE_BYTES = 5 * 4 * 2**22
# TRL's kernel (trl/kernels/chunked_logprob.py) folds tiles of 4,096 tokens x 32,768 logits at most in bf16, and sums
# the output layer's gradient in fp32.
_GPU_TILE_BYTES = 2 * 4096 * 32768


class Activations(NamedTuple):
    """Bytes at the peak, in the backward pass of the last layer."""

    layers: int
    logits: int


def kept_by_a_layer(shape: ModelShape, *, sequences: int, length: int, precision: Precision) -> int:
    """Bytes that autograd keeps of one layer of a forward pass of `sequences` of `length` tokens, padding included.

    A token keeps, in bf16: in each of two norms its fp32 copy and the normalized value (4 + 2 bytes of each hidden
    dimension), and the norm's result, which the products take (2): 16 h. Queries, keys and values, which are repeated
    for every head, and attention's result: 8 a. Of the MLP gate, activated gate, up, and their product: 8 i. In fp32
    the first copy is the residual itself: 4 + 4 + 4 bytes in each norm, 24 h, and twice the rest. Under autocast each
    of five products casts the norm's result for itself: 8 + 8 + 10 = 26 h. Attention also keeps the logarithm of each
    head's normalizer, each norm a scale, and a mask row of the sequence's length for each token.
    """
    of_hidden = {"bfloat16": 16, "float32": 24, "autocast": 26}[precision]
    width = 4 if precision == "float32" else 2
    token = of_hidden * shape.hidden
    token += 4 * width * (shape.attention_width + shape.intermediate)
    token += 4 * shape.heads + 8 + width * length
    return sequences * length * token


def activations(
    shape: ModelShape,
    *,
    sequences: int,
    length: int,
    scored: int,
    precision: Precision,
    checkpointing: bool,
    on_cpu: bool,
    trained_head: bool = True,
) -> Activations:
    """Bytes of a micro batch of `sequences`, each of `length` tokens, of which the last `scored` are completion.

    Args:
        checkpointing: layers keep their input alone, and one layer at a time is computed again.
        trained_head: whether the output layer gets a gradient, which TRL's kernel sums in fp32.
    """
    layer = kept_by_a_layer(shape, sequences=sequences, length=length, precision=precision)
    tokens, width = sequences * length, 2 if precision == "bfloat16" else 4
    layers = shape.layers * layer
    if checkpointing:
        layers = shape.layers * tokens * width * shape.hidden + layer
    # Gradients on their way back: those of the MLP's four tensors and of a few as wide as the hidden state.
    layers += tokens * (2 if precision != "float32" else 4) * (3 * shape.intermediate + 2 * shape.hidden)
    if precision == "autocast":  # the products take bf16 copies of the weights
        layers += 2 * (shape.layers * shape.layer_parameters + shape.head_parameters)
    rows = sequences * scored
    hidden = rows * shape.hidden * (4 + 2)  # what is scored, and its gradient in fp32
    if on_cpu:
        return Activations(
            layers,
            _CPU_TILE_BYTES + hidden + (2 if precision != "float32" else 4) * shape.head_parameters * trained_head,
        )
    tile = min(_GPU_TILE_BYTES, 2 * rows * shape.vocabulary)
    return Activations(layers, tile + hidden + 4 * shape.head_parameters * trained_head)
