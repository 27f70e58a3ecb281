"""The critic: a backbone and a scalar head, inside the policy's module, so that one engine trains both.

The policy stays the model that TRL, DeepSpeed and vLLM know. The critic is its child `critic`, and a forward pass of
the policy gives values too where they are asked for, so that a step has one forward and one backward pass of one
module. That holds under DDP and under every ZeRO stage; two engines would need two of everything.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from rl_posttrain.machine.hub import hub
from rl_posttrain.models.find import resolve_model
from rl_posttrain.models.folder import CRITIC_PREFIX
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.training.adapters import bare, four_bits, settle_quantized, sized_in_4_bits, with_adapters


class ValueHead(nn.Module):
    """A scalar for each hidden state, computed in fp32. The weight is a vector, so optimizers treat it as one.

    It starts from a normal distribution of standard deviation 1 / (hidden size + 1): first values are near 0.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size))

    def initialize(self, seed: int) -> None:
        """Draw the weight; equal seeds give equal weights on every process."""
        generator = torch.Generator().manual_seed(seed)
        size = len(self.weight)
        with torch.no_grad():
            self.weight.copy_(torch.randn(size, generator=generator) / (size + 1))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., H) in any dtype to (...) float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ self.weight.float()


class Critic(nn.Module):
    """Values of the states of completions.

    Args:
        backbone: a transformer without an output layer; None takes the policy's.
        hidden_size: of the backbone.
    """

    def __init__(self, backbone: nn.Module | None, hidden_size: int):
        super().__init__()
        self.backbone = backbone
        self.head = ValueHead(hidden_size)
        self._num_tokens: int | None = None
        self._taken: list[torch.Tensor] = []

    @contextlib.contextmanager
    def watching(self, num_tokens: int) -> Iterator[list[torch.Tensor]]:
        """Within it, each forward pass of the policy adds its values of the last `num_tokens` tokens: (B, T + 1)."""
        self._num_tokens, self._taken = num_tokens, []
        try:
            yield self._taken
        finally:
            self._num_tokens = None

    def forward(self, hidden: torch.Tensor | None, num_tokens: int, **inputs: torch.Tensor) -> torch.Tensor:
        """Values (B, T + 1) float32, of the state before each of the last T tokens and after the last one.

        Args:
            hidden: (B, P + T, H), the policy's last hidden states where the backbone is shared.
            num_tokens: T.
            **inputs: of the backbone, `input_ids` and `attention_mask` (B, P + T).
        """
        if self.backbone is not None:
            hidden = self.backbone(**inputs, use_cache=False).last_hidden_state
        return self.head(hidden[:, -num_tokens - 1 :])


def make_critic(recipe: Recipe, policy: PreTrainedModel) -> Critic:
    """The critic that a recipe asks for, on the policy's device and in its dtype.

    With `model.lora` its own backbone is frozen too, in 4 bits where the policy is, and has adapters of its own. They
    and the head have the dtype of the policy's adapters: ZeRO-3 takes one dtype.

    Args:
        policy: wrapped by peft alone.
    """
    from trl.trainer.utils import disable_dropout_in_model

    backbone, lora, seed = None, recipe.model.lora, derive_seed(recipe.run.seed, "critic")
    trained = policy.dtype
    if lora is not None:
        trained = next(parameter.dtype for parameter in policy.parameters() if parameter.requires_grad)
    if not recipe.critic.shared_backbone:
        how = four_bits(lora)
        name = recipe.critic.model or recipe.model.name
        location = resolve_model(name, key="critic.model")
        with hub(location):
            backbone = AutoModel.from_pretrained(
                location,
                dtype=policy.dtype,
                attn_implementation=policy.config._attn_implementation,
                trust_remote_code=recipe.model.trust_remote_code,
                quantization_config=how.config(recipe.model.dtype) if how else None,
            )
        if lora is not None:
            with torch.random.fork_rng():
                torch.manual_seed(seed)  # equal on every process
                backbone = with_adapters(backbone, lora, fp32=trained == torch.float32)
            settle_quantized(backbone)
    config = (policy if backbone is None else backbone).config.get_text_config()
    critic = Critic(backbone, config.hidden_size)
    critic.head.initialize(seed)
    critic.to(device=policy.device)
    critic.head.to(dtype=trained)
    disable_dropout_in_model(critic)
    for module in critic.modules():
        # Attention keeps its rate as a number, in no module of its own.
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return critic


def critic_without_weights(
    config: PretrainedConfig,
    dtype: str,
    *,
    shared_backbone: bool = False,
    trust_remote_code: bool = False,
    lora: LoraSection | None = None,
    fp32: bool = False,
) -> Critic:
    """The critic whose backbone `config` describes, on the meta device: shapes and dtypes without values.

    Args:
        lora: of its backbone.
        fp32: with `lora`, what is trained is fp32, as plain PyTorch trains it; else of `dtype`.
    """
    options = {"dtype": getattr(torch, dtype), "trust_remote_code": trust_remote_code}
    with torch.device("meta"):
        backbone = None if shared_backbone else AutoModel.from_config(config, **options)
        critic = Critic(backbone, config.get_text_config().hidden_size)
        if lora is not None and backbone is not None:
            critic.backbone = with_adapters(backbone, lora, fp32=fp32)
            if how := four_bits(lora):
                sized_in_4_bits(critic.backbone, AutoModel.from_config(config, **options), how)
    critic.head.to(dtype=torch.float32 if fp32 and lora else getattr(torch, dtype))
    return critic


def attach_critic(policy: PreTrainedModel | PeftModel, critic: Critic) -> None:
    """Make `critic` a child of `policy`, and let the policy's forward pass give values.

    ``policy(input_ids=..., attention_mask=..., values_of=T)`` returns values alone, (B, T + 1). Any other call inside
    `Critic.watching` gives them beside its own output.
    """
    policy.critic = critic
    original, transformer = policy.forward, bare(policy).base_model

    # transformers and TRL look into the signature for what a model takes, such as `logits_to_keep`.
    @functools.wraps(original)
    def forward(*args: Any, values_of: int | None = None, **kwargs: Any) -> Any:
        inputs = {name: kwargs.get(name) for name in ("input_ids", "attention_mask")}
        shared = critic.backbone is None
        if values_of is not None:
            hidden = transformer(**inputs, use_cache=False).last_hidden_state if shared else None
            return critic(hidden, values_of, **inputs)
        if critic._num_tokens is None:
            return original(*args, **kwargs)
        with _last_hidden(transformer) if shared else contextlib.nullcontext([None]) as hidden:
            output = original(*args, **kwargs)
        critic._taken.append(critic(hidden[-1], critic._num_tokens, **inputs))
        return output

    policy.forward = forward


def policy_parameters(policy: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of the policy alone, as `named_parameters` gives them."""
    return ((name, parameter) for name, parameter in policy.named_parameters() if not name.startswith(CRITIC_PREFIX))


@contextlib.contextmanager
def _last_hidden(backbone: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The last hidden states of each call of `backbone` within it."""
    seen: list[torch.Tensor] = []
    hook = backbone.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    try:
        yield seen
    finally:
        hook.remove()
