"""Seconds of one step by phase, as pure functions: arithmetic, memory traffic and links.

N is the number of a model's values that multiply each token. A product with N values costs a token 2 N operations
forward and 4 N backward (arXiv:2001.08361, section 2.1).
"""

from dataclasses import dataclass

from rl_posttrain.cost.devices import Speeds
from rl_posttrain.cost.model_shape import ModelShape


def forward_flops(shape: ModelShape, *, tokens: float, context: float, scored: float) -> float:
    """Operations of a forward pass.

    Args:
        tokens: that go through the layers, padding included.
        context: tokens that each attends to in the mean; queries times keys and weights times values take 2 each for
            every head's dimension. Kernels that take a padding mask compute the whole square: the sequence's length.
        scored: tokens that go through the output layer.
    """
    layers = shape.layers * (2.0 * shape.layer_parameters + 4.0 * context * shape.attention_width)
    return tokens * layers + 2.0 * scored * shape.head_parameters


def training_flops(
    shape: ModelShape, *, tokens: float, context: float, scored: float, recomputes: bool, frozen: bool = False
) -> float:
    """Operations of forward and backward passes: three forward passes, or four where activations are recomputed.

    Args:
        recomputes: gradient checkpointing runs the layers forward once more. The output layer's logits are computed
            again in the backward pass in any case (training/logprobs.py, and TRL's kernel).
        frozen: the weights need no gradient, as under LoRA: the backward pass is one forward pass, not two.
    """
    layers = forward_flops(shape, tokens=tokens, context=context, scored=0)
    head = forward_flops(shape, tokens=0, context=0, scored=scored)
    backward = 1 if frozen else 2
    return layers * (1 + backward + recomputes) + head * (2 + backward)


@dataclass(frozen=True)
class Rollout:
    """What one engine samples for a step, on `devices` that share its weights by tensor parallelism."""

    completions: int
    distinct_prompts: int
    prompt_tokens: float
    mean_new_tokens: float
    longest_new_tokens: float
    devices: int = 1


def sequences_that_fit(kv_bytes: float, *, kv_token_bytes: float, tokens: float) -> int:
    """Sequences of so many tokens in a KV cache of `kv_bytes`; one at least, which an engine insists on."""
    return max(1, int(kv_bytes // (kv_token_bytes * tokens)))


def token_steps(rollout: Rollout, at_once: int) -> float:
    """Token steps until the last completion ends, with `at_once` sequences in the cache.

    Where all fit, the longest completion decides. Otherwise the engine fills free places at once (continuous batching),
    so all tokens take turns on `at_once` places; the longest completion is still a lower limit.
    """
    return max(rollout.longest_new_tokens, rollout.completions * rollout.mean_new_tokens / at_once)


def token_step_s(
    shape: ModelShape,
    sequences: float,
    *,
    context: float,
    width: int,
    kv_token_bytes: float,
    devices: int,
    speeds: Speeds,
) -> float:
    """Seconds in which each of `sequences` gets one more token.

    Every weight and the keys and values of every sequence are read once, or the arithmetic takes longer (the roofline).

    Args:
        context: tokens of a sequence in the cache, in the mean.
        width: bytes of a weight.
        kv_token_bytes: of one token in the cache.
        devices: that share the weights, the cache and the work.
    """
    values = shape.layers * shape.layer_parameters + shape.head_parameters
    read_s = (width * values + sequences * context * kv_token_bytes) / (devices * speeds.memory_bytes_per_s)
    flops = forward_flops(shape, tokens=sequences, context=context, scored=sequences)
    return max(read_s, flops / (devices * speeds.decode_flops_per_s)) + speeds.token_step_s


def rollout_s(
    shape: ModelShape, rollout: Rollout, *, at_once: int, width: int, kv_token_bytes: float, speeds: Speeds
) -> float:
    """Seconds to sample: prompts forward once each (the prefix cache), then token steps at their mean batch."""
    prompts = rollout.distinct_prompts * rollout.prompt_tokens
    prefill = forward_flops(shape, tokens=prompts, context=rollout.prompt_tokens / 2, scored=rollout.distinct_prompts)
    steps = token_steps(rollout, at_once)
    batch = rollout.completions * rollout.mean_new_tokens / steps
    step_s = token_step_s(
        shape,
        batch,
        context=rollout.prompt_tokens + rollout.mean_new_tokens / 2,
        width=width,
        kv_token_bytes=kv_token_bytes,
        devices=rollout.devices,
        speeds=speeds,
    )
    return prefill / (rollout.devices * speeds.forward_flops_per_s) + steps * step_s


def passes_s(flops: float, *, passes: float, layers: int, flops_per_s: float, layer_s: float) -> float:
    """Seconds of forward and backward passes: their arithmetic, or the start of their kernels where that takes longer.

    Args:
        passes: through all layers; a backward pass counts two.
        layer_s: to start the kernels of one layer's forward pass.
    """
    return max(flops / flops_per_s, passes * layers * layer_s)


def engine_bytes(*, deepspeed: bool, gradient_width: int) -> int:
    """Bytes for each value that an engine reads and writes around an optimizer's step.

    Plain PyTorch: the gradient is read for its norm, then read and written to clip it. DeepSpeed: it is cast to fp64
    for its norm (and read there), put into one flat tensor, cast to fp32 if it is not, and clipped; then the masters
    are read to make weights of them (deepspeed/runtime/zero/stage_1_and_2.py, `step`).
    """
    if not deepspeed:
        return 3 * gradient_width
    cast = gradient_width + 4 if gradient_width < 4 else 0
    return (gradient_width + 8 + 8) + 2 * gradient_width + cast + 2 * 4 + 4


def optimizer_s(
    *,
    values: float,
    state_bytes: float,
    weight_width: int,
    gradient_width: int,
    bytes_per_s: float,
    around: int = 0,
) -> float:
    """Seconds of an optimizer's step, which memory bounds: all is read once, and written once but the gradients.

    Args:
        values: trained parameters of this device's shard.
        state_bytes: of optimizer state and fp32 masters of the shard.
        weight_width: bytes of a weight that the model runs with; 0 where that is the master.
        gradient_width: bytes of a gradient.
        bytes_per_s: of the memory that holds them.
        around: bytes for each value that the engine moves besides, see `engine_bytes`.
    """
    return (2.0 * state_bytes + values * (gradient_width + weight_width + around)) / bytes_per_s


def step_s(*, rollout: float, update: float, sync: float, max_staleness: int) -> float:
    """Seconds a step in the long run, from the seconds of its parts.

    With rollouts that run ahead on devices of their own, sampling and updates overlap and the slower one decides
    (arXiv:2410.18252); otherwise one waits for the other. Handing the weights over stops both.
    """
    return sync + (max(rollout, update) if max_staleness else rollout + update)
