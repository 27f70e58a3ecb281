"""Bytes that forward and backward passes of one micro batch hold on top of weights, gradients and state.

The peak is the largest of a few moments, each the sum of what autograd keeps until then and of the temporary tensors
of that moment. Counted for transformers' own layers of Llama's kind (two RMS norms, grouped attention, a gated MLP),
attention without a stored matrix of weights, and log-probabilities without the whole of the logits.
`tests/cost/test_activations.py` sets it beside what torch's allocator really hands out.
"""

from typing import Literal, NamedTuple

from rl_posttrain.cost.model_shape import ModelShape

Precision = Literal["bfloat16", "float32", "autocast"]

# training/logprobs.py holds at most so many logits at a time on a CPU.
_CPU_TILE_VALUES = 2**22
# TRL's kernel (trl/kernels/chunked_logprob.py) folds tiles of 4,096 tokens x 32,768 logits at most.
_GPU_TILE_TOKENS, _GPU_TILE_LOGITS = 4096, 32768
# DeepSpeed's defaults of stage3_max_reuse_distance and stage3_prefetch_bucket_size.
_REUSED_VALUES, _PREFETCHED_VALUES = 10**9, 5 * 10**7
# State of torch's random numbers on a CPU, which checkpointing keeps for each layer.
_GENERATOR_BYTES = 5056


class Activations(NamedTuple):
    """Bytes at the moment at which they are most: of the layers, and of the output layer (tiles and gradients)."""

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
    trained: bool = True,
) -> Activations:
    """Bytes of a micro batch of `sequences`, each of `length` tokens, of which the last `scored` are completion.

    It is a later micro batch of an update: gradients are there, and each new one is added to them.

    Args:
        checkpointing: layers keep their input alone, and one layer at a time is computed again.
        on_cpu: a processor without bf16 units, whose bf16 products go through an fp32 buffer of their result.
        trained: whether weights get gradients; those of adapters are not counted.
    """
    tokens, rows = sequences * length, sequences * scored
    hidden, intermediate = shape.hidden, shape.intermediate
    width = 4 if precision == "float32" else 2  # of what products take and give
    residual = 2 if precision == "bfloat16" else 4  # of a value between layers, of a weight, and of its gradient
    buffer = 4 if on_cpu and width == 2 else 0
    layer = kept_by_a_layer(shape, sequences=sequences, length=length, precision=precision)
    # Besides the mask, one byte each, and the state of torch's generator.
    inputs = shape.layers * (tokens * residual * hidden + _GENERATOR_BYTES) + tokens * length
    forward = inputs if checkpointing else shape.layers * layer
    # Where layers run again, fp32 norms keep the very input that was kept already.
    backward = inputs + layer - (precision != "bfloat16") * tokens * 4 * hidden if checkpointing else forward
    scoring = forward + tokens * hidden * (6 if precision == "bfloat16" else 8)  # what the last norm keeps
    copies, of_head = 0, 0
    if precision == "autocast":  # the products take bf16 copies of the weights; checkpointing makes a layer's anew
        copies, of_head = 2 * shape.layers * shape.layer_parameters, 2 * shape.head_parameters
        backward += 2 * shape.layer_parameters if checkpointing else copies
    # The gradient of a tied output layer waits for the embedding's, and then the two are added.
    of_output = trained * residual * shape.head_parameters
    waiting = of_output if shape.tied else 0
    scored_hidden = rows * hidden * width + of_head
    tile_forward, tile_backward = (_cpu_tiles if on_cpu else _gpu_tiles)(shape, rows, width, trained)
    of_weight = trained * hidden * intermediate
    moments = (
        Activations(scoring + copies, scored_hidden + tile_forward),
        Activations(scoring + (0 if checkpointing else copies), scored_hidden + tile_backward),
        # The last norm's backward pass: its fp32 copy, and five more like it.
        Activations((0 if checkpointing else backward) + 24 * tokens * hidden, waiting),
        # The last layer's MLP from behind. Its last product: the weight's gradient, then the input's. Residuals have
        # one, which autocast casts for the product.
        Activations(
            backward
            + tokens * hidden * (residual + 2 * (precision == "autocast"))
            + of_weight * width
            + max(of_weight * buffer, tokens * intermediate * (width + buffer)),
            waiting,
        ),
        # Then the product's input is free, and gate and up have gradients.
        Activations(backward + tokens * (hidden * residual + 2 * intermediate * width), waiting),
        Activations(tokens * hidden * residual, waiting + of_output),
    )
    return max(moments, key=sum)


def gathered_weights(shape: ModelShape, engine: Literal["zero3", "fsdp2"], *, sharded_values: int, width: int) -> int:
    """Bytes of whole weights that an engine of sharded ones has gathered between forward and backward pass.

    DeepSpeed keeps what it needs again within so many values, forward and backward together (its
    stage3_max_reuse_distance), and gathers a bucket ahead. FSDP2 keeps its outermost unit, which has the output layer,
    and in a backward pass has a layer and the next.

    Args:
        sharded_values: of the parameters that no device has whole in any case.
        width: bytes of a gathered value.
    """
    if engine == "zero3":
        return width * min(sharded_values, _REUSED_VALUES // 2 + _PREFETCHED_VALUES)
    return width * min(sharded_values, shape.head_parameters + 2 * shape.layer_parameters)


def _cpu_tiles(shape: ModelShape, rows: int, width: int, trained: bool) -> tuple[int, int]:
    """Bytes of the forward and of the backward pass of training/logprobs.py, its inputs left out."""
    first = min(rows, max(1, _CPU_TILE_VALUES // shape.vocabulary)) * shape.vocabulary
    # Logits, the same in fp32, and what logsumexp and softmax make of them.
    forward = first * (10 if width == 2 else 8)
    columns = min(shape.vocabulary, max(1, _CPU_TILE_VALUES // rows))
    tile, second = rows * columns, rows * min(columns, shape.vocabulary - columns)
    if width == 2:
        # Logits, probabilities and their gradient in fp32, which is then rounded to bf16; or the fp32 buffer of the
        # weight's gradient; or the next tile's logits, while this one's are still there.
        most = max(14 * tile, 10 * tile + 4 * shape.hidden * max(trained * columns, 1.5 * rows), 10 * tile + 6 * second)
    else:
        most = 12 * tile + max(4 * rows * shape.hidden, 4 * second)
    gradients = 4 * rows * shape.hidden + trained * width * shape.head_parameters
    return forward, int(most) + gradients


def _gpu_tiles(shape: ModelShape, rows: int, width: int, trained: bool) -> tuple[int, int]:
    """Bytes of the forward and of the backward pass of TRL's kernel, its inputs left out."""
    tile = width * min(_GPU_TILE_TOKENS, rows) * min(_GPU_TILE_LOGITS, shape.vocabulary)
    # Gradients are summed in fp32, and cast at the end.
    summed = 4 + (width if width < 4 else 0)
    return tile, tile + summed * (rows * shape.hidden + trained * shape.head_parameters)
