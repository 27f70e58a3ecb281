"""Frozen weights in 4 bits, as QLoRA has them (arXiv:2305.14314): by bitsandbytes, loaded by transformers.

The values of a weight are cut into blocks of 64. Of a block its largest magnitude is kept, in fp32, and of each value
which of 16 numbers between -1 and 1 it is nearest to, as a share of that magnitude. With double quantization the
magnitudes are 8-bit numbers themselves, in blocks of 256.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rl_posttrain.errors import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn

KINDS = ("nf4", "fp4")
_BLOCK, _BLOCK_OF_MAGNITUDES = 64, 256
_FP32 = 4


@dataclass(frozen=True)
class FourBits:
    """How weights are kept in 4 bits.

    Attributes:
        kind: ``nf4``, whose 16 numbers suit a normal distribution; or ``fp4``, whose are those of a 4-bit float.
        double: keep the magnitudes of blocks in 8 bits.
    """

    kind: str
    double: bool

    @classmethod
    def of_recipe(cls, lora: dict[str, Any] | None) -> "FourBits | None":
        """What the section ``model.lora`` of a run's recipe asks for; None where the weights stay as they are."""
        if lora is None or lora.get("quantize") is None:
            return None
        return cls(lora["quantize"], lora["double_quant"])

    def config(self, dtype: str) -> Any:
        """The `BitsAndBytesConfig` of a model that computes in `dtype`."""
        import torch
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.kind,
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )

    def num_bytes(self, num_values: int) -> tuple[int, int]:
        """Bytes of the 4 bits of so many values; and of their magnitudes, with the tables that bitsandbytes keeps."""
        blocks = -(-num_values // _BLOCK)
        table = 16 * _FP32
        # With double quantization a second table, of the 256 numbers that magnitudes are near to, and their mean.
        second = blocks + _FP32 * (-(-blocks // _BLOCK_OF_MAGNITUDES) + 256 + 1)
        return -(-num_values // 2), (second if self.double else _FP32 * blocks) + table


def check_bitsandbytes(kind: str, *, key: str = "model.lora.quantize") -> None:
    """Fail where the package is missing.

    Args:
        key: that asks for it, for errors.

    Raises:
        RecipeError: with the command that installs it.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"{key}={kind}: it needs the package bitsandbytes, which is not installed; pip install "
            "'rl_posttrain[qlora]', or leave it out"
        )


def quantized_layers(model: "nn.Module") -> Iterator[tuple[str, "nn.Module"]]:
    """Name and module of each layer of `model` whose weight is in 4 bits."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "source_cls"))


def is_transposed(module: "nn.Module") -> bool:
    """Whether a layer's weight is (inputs, outputs) in a checkpoint, as GPT-2 has it; in 4 bits, too."""
    from transformers.pytorch_utils import Conv1D

    return getattr(module, "source_cls", type(module)) is Conv1D


def dequantized(layer: "nn.Module", held: "torch.Tensor | None" = None) -> "torch.Tensor":
    """The weight of a layer in 4 bits as the layer computes with it, in its form and dtype of a checkpoint.

    Args:
        held: its 4 bits, where the layer has only a part of them.
    """
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(layer.weight.data if held is None else held, layer.weight.quant_state)
    return weight.t() if is_transposed(layer) else weight


def held_tensors(layer: "nn.Module") -> Iterator["torch.Tensor"]:
    """All tensors that stand for the weight of a layer in 4 bits."""
    import torch

    state = layer.weight.quant_state
    of_state = [vars(state), vars(state.state2) if state.nested else {}]
    yield layer.weight.data
    yield from (value for values in of_state for value in values.values() if isinstance(value, torch.Tensor))


def layers_in_4_bits(model: "nn.Module", how: FourBits) -> set[str]:
    """The names of the layers that transformers puts into 4 bits: linear ones, without the output layer.

    Args:
        model: on the meta device; it is of no use afterwards.
    """
    _replace_layers(model, how)
    return {name for name, _ in quantized_layers(model)}


def put_into_4_bits(model: "nn.Module", how: FourBits) -> None:
    """Do to a model of transformers in memory what transformers does while it loads one."""
    from bitsandbytes.nn import Params4bit

    before = dict(model.named_modules())
    dtype = str(model.dtype).removeprefix("torch.")
    _replace_layers(model, how, dtype)
    for name, layer in quantized_layers(model):
        weight = before[name].weight.data
        weight = weight.t() if is_transposed(layer) else weight
        layer.weight = Params4bit(weight, requires_grad=False, **vars(layer.weight)).to(weight.device)
        layer.bias = before[name].bias
    model.is_loaded_in_4bit = True


def rounded_to_4_bits(model: "nn.Module", layers: Iterable[str], how: FourBits) -> None:
    """Give the named layers of a plain model the weights that they have once they were in 4 bits, one at a time.

    A GPU does it where there is one, as in training.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in layers:
        layer = model.get_submodule(name)
        weight = layer.weight.data.t() if is_transposed(layer) else layer.weight.data
        held, state = quantize_4bit(weight.contiguous().to(device), quant_type=how.kind, compress_statistics=how.double)
        weight = dequantize_4bit(held, state).to(layer.weight.device)
        layer.weight.data = weight.t().contiguous() if is_transposed(layer) else weight


def _replace_layers(model: "nn.Module", how: FourBits, dtype: str = "float32") -> None:
    """Put layers for 4 bits, without weights, in the place of those of `model`."""
    from transformers.quantizers import AutoHfQuantizer

    AutoHfQuantizer.from_config(how.config(dtype), pre_quantized=False).preprocess_model(model=model, device_map=None)
