"""LoRA in training: a policy's weights with its adapters merged in, its files, and its reference model.

Every engine and every folder gets whole weights under the names of the checkpoint, so that nothing else has to know of
adapters.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from rl_posttrain.models.lora import merged_weight
from rl_posttrain.models.quantized import dequantized, is_transposed, quantized_layers
from rl_posttrain.training.adapters import BASE, bare, checkpoint_name, is_adapted
from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.critic import policy_parameters


def whole_weights(policy: torch.nn.Module, backend: Backend) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of every whole weight, under its checkpoint name; every process must walk all of them.

    A critic's weights are not among them. Adapters are merged into copies, one weight at a time.

    Args:
        policy: unwrapped but for peft's wrapper.
    """
    if not is_adapted(policy):
        yield from backend.whole_weights(policy_parameters(policy))
        return
    layers = _layers(policy)
    in_4_bits = {f"{name}.weight": layer for name, layer in quantized_layers(bare(policy))}

    def walk() -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The adapters of a layer stand right before its frozen weight."""
        for name, parameter in bare(policy).named_parameters():
            if name in layers:
                (adapter,) = layers[name].active_adapters
                yield f"{name} A", layers[name].lora_A[adapter].weight
                yield f"{name} B", layers[name].lora_B[adapter].weight
            if BASE in name or ".lora_" not in name:
                yield name, parameter

    adapters: list[torch.Tensor] = []
    num_merged = 0
    for name, tensor in backend.whole_weights(walk()):
        if name.endswith((" A", " B")):
            adapters.append(tensor)
            continue
        if name in in_4_bits:
            tensor = dequantized(in_4_bits[name], tensor)
        if (layer := layers.get(name)) is not None:
            (adapter,) = layer.active_adapters
            transposed = is_transposed(layer.get_base_layer())
            tensor = merged_weight(tensor, *adapters, layer.scaling[adapter], transposed=transposed)
            adapters, num_merged = [], num_merged + 1
        yield checkpoint_name(name), tensor
    assert num_merged == len(layers), "an adapter was not merged"


def save_adapter(
    policy: PeftModel, tokenizer: Any, folder: str, state_dict: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapters of `policy` as peft loads them, and the tokenizer.

    Args:
        state_dict: of the policy, where an engine has gathered it.
    """
    # Embeddings are never trained; left to itself, peft asks the hub whether they were resized.
    policy.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
    Path(folder, "README.md").unlink()  # peft's form of a card, not filled in
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def reference_model(trainer: Any) -> Iterator[torch.nn.Module | None]:
    """The model that a KL penalty is to: TRL's copy, or the policy itself with its adapters switched off; else None."""
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if not is_adapted(policy) or trainer.args.beta == 0:
        yield trainer.ref_model
        return
    with policy.disable_adapter():
        yield trainer.model


def _layers(policy: PeftModel) -> dict[str, LoraLayer]:
    """The layers with adapters, by the name of their frozen weight in `bare(policy)`."""
    return {
        f"{name}{BASE}weight": module for name, module in bare(policy).named_modules() if isinstance(module, LoraLayer)
    }
