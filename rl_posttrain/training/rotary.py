"""Rotary positions in fp32, also under ZeRO-3.

While a model loads under ZeRO-3, DeepSpeed makes every new tensor bf16. The frequencies of rotary positions then have 8
bits, and the angle at position p is wrong by up to p / 512 radians: the trainer's policy would not be the one that the
sampler has, and that is exported.
"""

import torch


def restore_frequencies(model: torch.nn.Module) -> None:
    """Compute the frequencies of `model` again where they are not fp32; every other model stays as it is."""
    for module in model.modules():
        frequencies = getattr(module, "inv_freq", None)
        if not isinstance(frequencies, torch.Tensor) or frequencies.dtype == torch.float32:
            continue
        fresh = type(module)(module.config)
        for name, buffer in fresh.named_buffers(recurse=False):
            setattr(module, name, buffer.to(frequencies.device))
