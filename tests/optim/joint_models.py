"""A tiny policy with a critic as its child, as the joint optimizer wants it, and fixed batches for both."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

CONFIG = LlamaConfig(
    vocab_size=61, hidden_size=30, intermediate_size=37, num_hidden_layers=1, num_attention_heads=3,
    num_key_value_heads=1, head_dim=10, tie_word_embeddings=False, initializer_range=0.2,
)  # fmt: skip


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CONFIG.hidden_size) / CONFIG.hidden_size)


class Critic(nn.Module):
    """`backbone` may be missing: the policy's own is used then."""

    def __init__(self, backbone: nn.Module | None):
        super().__init__()
        if backbone is not None:
            self.backbone = backbone
        self.head = Head()

    def forward(self, ids):
        """The loss of the values, whose targets are the token ids over 61."""
        values = self.backbone(ids).last_hidden_state @ self.head.weight
        return (values - ids / 61).square().mean()


class Policy(LlamaForCausalLM):
    """Its loss is its own, and the critic's where it has one: no parameter has a gradient of both."""

    def forward(self, ids):
        loss = super().forward(input_ids=ids, labels=ids).loss
        return loss + self.critic(ids) if hasattr(self, "critic") else loss


def make_policy(*, critic: bool = True) -> Policy:
    """Both halves in fp32, the same each time."""
    torch.manual_seed(0)
    policy = Policy(CONFIG)
    if critic:
        policy.critic = make_critic()
    return policy


def make_critic() -> Critic:
    torch.manual_seed(1)
    return Critic(LlamaModel(CONFIG))


def batches(num_steps: int) -> list[torch.Tensor]:
    """Token ids of each step: two sequences."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 61, (2, 17), generator=generator) for _ in range(num_steps)]


def weights(model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same, to the bit."""
    assert found.keys() == expected.keys()
    return all(torch.equal(weight, expected[name]) for name, weight in found.items())
