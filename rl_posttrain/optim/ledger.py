"""Bytes of weights, gradients, masters and optimizer state on each device, predicted from a model's shapes.

Weights, masters and state are counted between two steps. Gradients are counted after they are reduced and before the
optimizer's step, after which DeepSpeed and `zero_grad` free them. Not counted: activations, logits, the fp32 copy of
gradients that DeepSpeed makes during its step, and its buffers. ZeRO-3 has a bucket of 5e8 gradient values by default;
offloading has a copy of the shard's weights and of two parameters.

`rl_posttrain.cost.measure` counts the same on real objects.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from rl_posttrain.errors import class_and_message
from rl_posttrain.optim.joint import JointSpec, part_of
from rl_posttrain.optim.spec import OptimizerSpec

Offload = Literal["none", "optimizer", "parameters"]
KEPT_WHOLE = "kept_whole"
"""The name of a buffer in a model without weights: bytes that belong to weights and that no engine shards."""
_FP32 = 4
_COMPONENTS = ("weights", "gradients", "masters", "optimizer_state")
# ZeRO-1 and -2 pad a flat group to this many values a device.
_ALIGNMENT = 2
# ZeRO-3 keeps parameters of at most so many values whole on every device, once they were gathered: DeepSpeed's default
# of stage3_param_persistence_threshold.
PERSISTENT_VALUES = 100_000


@dataclass(frozen=True)
class MemoryLedger:
    """Bytes that the process of one device holds.

    ``optimizer_state`` is None if it is not known; ``unknown`` then says why. ``on_host`` names the components that
    offloading keeps in host memory.
    """

    weights: int
    gradients: int
    masters: int
    optimizer_state: int | None
    on_host: tuple[str, ...] = ()
    unknown: str = ""

    def components(self) -> dict[str, int | None]:
        """Bytes of each component, on device or host."""
        return {name: getattr(self, name) for name in _COMPONENTS}

    def total(self) -> int | None:
        """Bytes on device and host together."""
        return _sum(self.components().values())

    def weights_and_state(self) -> int | None:
        """Bytes of weights and optimizer state, which papers on optimizers compare."""
        return _sum([self.weights, self.optimizer_state])

    def on_device(self) -> int | None:
        """Bytes on the device alone."""
        return _sum(value for name, value in self.components().items() if name not in self.on_host)


def offloaded(offload: Offload) -> tuple[str, ...]:
    """The components that offload keeps in host memory: all that the update reads and writes, and maybe weights."""
    return () if offload == "none" else _COMPONENTS[offload == "optimizer" :]


def predict_memory(
    model: nn.Module,
    optimizer: OptimizerSpec | JointSpec,
    *,
    zero_stage: int | Literal["fsdp2"] | None,
    num_processes: int = 1,
    offload: Offload = "none",
    fp32_gradients: bool = False,
) -> MemoryLedger:
    """The bytes that training `model` holds on the fullest of `num_processes` devices.

    The state is not computed by a formula: the optimizer takes one step on the meta device, on tensors of the shapes
    that plain PyTorch or the ZeRO stage would hand it. This works for any class whose step reads no values; for the
    others the state is unknown. An optimizer with a `find_shards` is counted on whole parameters, and a shard has its
    part of that.

    Args:
        model: on the meta device, in the dtype of its weights; of frozen parameters only the weights are counted, and
            buffers of the name `KEPT_WHOLE`.
        optimizer: with its arguments; a joint one is for a model with a child ``critic``, which is counted too.
        zero_stage: DeepSpeed's: 0 shards nothing, 1 and 2 state, masters and reduced gradients, 3 weights too. None is
            plain PyTorch, which updates weights in their own dtype. ``fsdp2`` shards rows of fp32 weights, which are
            the masters.
        offload: ``optimizer`` for DeepSpeed's stages 1 to 3; ``parameters``, the optimizer with them, for stage 3
            and FSDP2.
        fp32_gradients: whether DeepSpeed sums bf16 gradients in fp32 (stages 2 and 3).
    """
    built = optimizer.build(model)
    groups = [list(group["params"]) for group in built.param_groups]
    trained = [parameter for group in groups for parameter in group]
    kept_whole = sum(buffer.nbytes for name, buffer in model.named_buffers() if name.endswith(KEPT_WHOLE))
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    width = trained[0].element_size()
    gradient_width = _FP32 if fp32_gradients else width
    weights = gradients = sum(parameter.nbytes for parameter in trained)
    # Where nothing is sharded, fp32 weights are their own masters.
    masters = 0 if zero_stage is None or (zero_stage == 0 and width == _FP32) else sum(p.numel() for p in trained)
    if zero_stage in (1, 2):
        shards = [_flat_shard(group, num_processes) for group in groups]
        masters = sum(shards)
        weights = masters * num_processes * width
        # A parameter across the edge of a shard keeps its whole gradient in bf16; in fp32 only the shard's part.
        gradients = masters * _FP32 if fp32_gradients else width * _values_touching_a_shard(groups, num_processes)
    elif zero_stage == 3:
        shards = [sum(-(-parameter.numel() // num_processes) for parameter in group) for group in groups]
        masters = sum(shards)
        weights, gradients = masters * width, masters * gradient_width
        frozen = sum(
            p.element_size() * -(-p.numel() // num_processes) for p in model.parameters() if not p.requires_grad
        )
        if num_processes > 1:
            weights += sum(p.nbytes for p in model.parameters() if p.numel() <= PERSISTENT_VALUES)
    elif zero_stage == "fsdp2":
        shards = [sum(map(math.prod, _rows(group, num_processes))) for group in groups]
        weights = gradients = sum(shards) * _FP32
        others = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        frozen = sum(
            parameter.element_size() * math.prod(rows)
            for parameter, rows in zip(others, _rows(others, num_processes), strict=True)
        )
        masters = 0
    if offload != "none" and zero_stage != "fsdp2":
        # The update takes fp32 gradients on the host; ZeRO-3 also keeps those that it received.
        gradients = masters * _FP32 + (gradients if zero_stage == 3 else 0)
    whole = [hasattr(part_of(built, group), "find_shards") for group in built.param_groups]
    for index, group in enumerate(built.param_groups):
        if zero_stage == "fsdp2" and not whole[index]:
            group["params"] = [_meta(*shape) for shape in _rows(group["params"], num_processes)]
        elif zero_stage and not whole[index]:
            group["params"] = [_meta(shards[index])]
        elif masters or zero_stage == "fsdp2":
            group["params"] = [_meta(*parameter.shape) for parameter in group["params"]]
    try:
        by_group = _state_after_a_step(built)
    except Exception as error:  # a user's class may raise anything when tensors have no values
        state, unknown = None, class_and_message(error)
    else:
        unknown = ""
        for index in range(len(groups)):
            if zero_stage and whole[index]:
                size = sum(parameter.numel() for parameter in groups[index])
                by_group[index] = -(-by_group[index] * shards[index] // size)
        state = sum(by_group)
    weights += frozen + kept_whole
    return MemoryLedger(weights, gradients, masters * _FP32, state, offloaded(offload), unknown)


def state_bytes(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor] | None = None) -> int:
    """Bytes of the tensors in the state of `optimizer`, for `parameters` or for all; step counters included."""
    states = optimizer.state.values() if parameters is None else [optimizer.state.get(p, {}) for p in parameters]
    return sum(_bytes(leaf) for leaf in tree_leaves(list(states)) if torch.is_tensor(leaf))


def _bytes(tensor: torch.Tensor) -> int:
    """Of this process's part of a DTensor; of the tensors inside, where one stands for values in another form, such as
    torchao's in 8 bits."""
    if hasattr(tensor, "to_local"):
        return _bytes(tensor.to_local())
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes


def _sum(values: Iterable[int | None]) -> int | None:
    values = list(values)
    return None if None in values else sum(values)


def _meta(*shape: int) -> nn.Parameter:
    """An fp32 master of that shape, without values: DeepSpeed puts it in the place of a parameter."""
    return nn.Parameter(torch.empty(shape, dtype=torch.float32, device="meta"))


def _state_after_a_step(optimizer: torch.optim.Optimizer) -> list[int]:
    """Bytes of state for each group."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return [state_bytes(optimizer, group["params"]) for group in optimizer.param_groups]


def _rows(parameters: Iterable[torch.Tensor], num_processes: int) -> list[tuple[int, ...]]:
    """The largest shape that a process has of each: FSDP2 shares out rows."""
    return [(-(-p.shape[0] // num_processes), *p.shape[1:]) for p in parameters]


def _flat_shard(group: list[torch.Tensor], num_processes: int) -> int:
    multiple = _ALIGNMENT * num_processes
    return -(-sum(parameter.numel() for parameter in group) // multiple) * _ALIGNMENT


def _values_touching_a_shard(groups: list[list[torch.Tensor]], num_processes: int) -> int:
    """The most values that the parameters in one shard have, counting those across its edges whole."""
    touching = [0] * num_processes
    for group in groups:
        shard, end = _flat_shard(group, num_processes), 0
        for parameter in group:
            start, end = end, end + parameter.numel()
            for rank in range(start // shard, -(-end // shard)):
                touching[rank] += parameter.numel()
    return max(touching)
