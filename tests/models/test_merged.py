"""The arithmetic of adapters, by hand."""

import torch

from rl_posttrain.models.lora import merged_weight


def test_a_merged_weight_by_hand():
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    lora_a, lora_b = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[10.0], [0.5]])
    merged = merged_weight(weight, lora_a, lora_b, 2.0)
    assert merged.tolist() == [[21.0, 2.0, -17.0], [5.0, 5.0, 5.0]]
    assert weight[0, 0] == 1
    transposed = merged_weight(weight.t().contiguous(), lora_a, lora_b, 2.0, transposed=True)
    assert torch.equal(transposed, merged.t())


def test_it_is_rounded_once():
    """B A is 1 + 2^-8, which bf16 would round to 1; with W = -1 the sum is 2^-8."""
    weight = torch.tensor([[-1.0]], dtype=torch.bfloat16)
    lora_a = torch.tensor([[1.0], [2**-8]], dtype=torch.bfloat16)
    lora_b = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)
    merged = merged_weight(weight, lora_a, lora_b, 1.0)
    assert merged.dtype == torch.bfloat16
    assert merged.item() == 2**-8
    assert merged_weight(weight, lora_a, lora_b, 1.0, dtype=torch.float32).dtype == torch.float32
