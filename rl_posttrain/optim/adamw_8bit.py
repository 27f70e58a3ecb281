"""AdamW with both averages in 8 bits, one scale for each block of 256 values (arXiv:2110.02861): torchao's class.

torchao keeps fp32 averages for tensors below 4,096 values, and for those whose size is no multiple of 256.
"""

from collections.abc import Callable

import torch
import torchao.optim

from rl_posttrain.optim.packaged import Packaged


class AdamW8bit(Packaged, torchao.optim.AdamW8bit):
    """torchao's AdamW8bit, which refuses sparse and complex gradients in one line. Its first step is compiled."""

    # Of parts whose size is no multiple of a block, as ZeRO-1 to 3 make them, it would silently keep fp32 averages.
    needs_whole_matrices = True

    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss."""
        for group in self.param_groups:
            # torchao takes tensors alone, and engines put numbers there.
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
        return super().step(closure)
