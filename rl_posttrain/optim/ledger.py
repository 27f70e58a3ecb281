"""Bytes of weights, gradients, masters and optimizer state on each device, predicted from a parameter count."""

from dataclasses import dataclass

# fp32 values of optimizer state a parameter. An optimizer that is not here is not predicted, rather than guessed at.
STATE_VALUES = {"adams": 1, "adamw": 2, "sgd": 1, "lion": 1}
_FP32 = 4


@dataclass(frozen=True)
class MemoryLedger:
    """Bytes on one device. `optimizer_state` is None for an optimizer whose state is not known here."""

    weights: int
    gradients: int
    masters: int
    optimizer_state: int | None
    reference_model: int
    rollout_weights: int

    def total(self) -> int | None:
        parts = vars(self).values()
        return None if None in parts else sum(parts)


def predict_memory(
    num_parameters: int,
    *,
    optimizer: str,
    dtype: str,
    engine: str,
    zero_stage: int,
    world_size: int,
    reference_model: bool,
    rollout_copy: bool,
    fp32_gradients: bool = False,
) -> MemoryLedger:
    """What training holds on each device between steps; activations, logits and the KV cache come on top.

    Args:
        num_parameters: parameters of the policy, tied weights counted once.
        dtype: the recipe's model.dtype.
        engine: ``deepspeed`` (bf16 weights with fp32 masters) or ``none`` (fp32 weights, which are their own masters).
        zero_stage: what DeepSpeed shards: 1 state and masters, 2 gradients too, 3 weights too.
        rollout_copy: whether the rollout engine holds weights of its own.
        fp32_gradients: whether bf16 gradients are summed in fp32.
    """
    deepspeed = engine == "deepspeed"
    low_precision = dtype == "bfloat16" and deepspeed
    width = 2 if low_precision else _FP32

    def sharded(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if deepspeed and zero_stage >= from_stage else num_bytes

    state_values = STATE_VALUES.get(optimizer)
    # ZeRO keeps an fp32 copy of the weights that it updates, except at stage 0 in fp32, where there is nothing to copy.
    has_masters = low_precision or (deepspeed and zero_stage > 0)
    return MemoryLedger(
        weights=sharded(num_parameters * width, 3),
        gradients=sharded(num_parameters * (_FP32 if fp32_gradients else width), 2),
        masters=sharded(num_parameters * _FP32, 1) if has_masters else 0,
        optimizer_state=None if state_values is None else sharded(num_parameters * _FP32 * state_values, 1),
        reference_model=sharded(num_parameters * width, 3) if reference_model else 0,
        rollout_weights=num_parameters * (2 if dtype == "bfloat16" else _FP32) if rollout_copy else 0,
    )
