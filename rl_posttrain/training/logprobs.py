"""Log-probabilities and entropies of completions on a CPU, without the whole of the logits.

TRL computes these with a Triton kernel; without Triton it goes through every position of prompt and completion in fp32
tiles, which on a CPU costs more than the rest of the model together. Here only completions are projected, the matrix
products stay in the model's dtype, and the backward pass makes each gradient tile once.
"""

import types
from contextlib import nullcontext
from typing import Any

import torch

from rl_posttrain.training.adapters import bare

# Logits held at a time. 2**22 fp32 values are 16 MiB: about a last-level cache.
_TILE_VALUES = 2**22


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, inverse_temperature):
        ctx.set_materialize_grads(False)
        rows = max(1, _TILE_VALUES // weight.size(0))
        logprobs, entropies, log_z = [], [], []
        for start in range(0, hidden.size(0), rows):
            logits = hidden[start : start + rows] @ weight.t()
            z = logits.float().mul_(inverse_temperature)
            target = z.gather(1, targets[start : start + rows, None]).squeeze(1)
            normalizer = z.logsumexp(1)
            # H = log Z - sum_v p_v z_v
            expected = torch.softmax(z, 1).mul_(z).sum(1)
            logprobs.append(target - normalizer)
            entropies.append(normalizer - expected)
            log_z.append(normalizer)
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden, weight, targets, torch.cat(log_z), entropy)
        ctx.inverse_temperature = inverse_temperature
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx, grad_logprob, grad_entropy):
        hidden, weight, targets, log_z, entropy = ctx.saved_tensors
        scale = ctx.inverse_temperature
        grad_hidden = torch.zeros(hidden.shape, dtype=torch.float32)
        with _gathered(weight):
            grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
            columns = max(1, _TILE_VALUES // hidden.size(0))
            for start in range(0, weight.size(0), columns):
                part = weight[start : start + columns]
                logits = (hidden @ part.t()).float().mul_(scale)
                log_p = logits.sub_(log_z[:, None])
                p = log_p.exp()
                grad = torch.zeros_like(p)
                if grad_logprob is not None:
                    # d log p_target / dz = onehot - p; the one is put in after the products with p.
                    grad.addcmul_(p, grad_logprob[:, None], value=-1)
                if grad_entropy is not None:
                    # dH / dz = -p (log p + H)
                    grad.sub_(p.mul_(log_p.add_(entropy[:, None])).mul_(grad_entropy[:, None]))
                if grad_logprob is not None:
                    here = ((targets >= start) & (targets < start + part.size(0))).nonzero().squeeze(1)
                    grad[here, targets[here] - start] += grad_logprob[here]
                grad = grad.mul_(scale).to(hidden.dtype)
                grad_hidden += grad @ part
                if grad_weight is not None:
                    torch.mm(grad.t(), hidden, out=grad_weight[start : start + columns])
        return grad_hidden.to(hidden.dtype), grad_weight, None, None


def linear_logprobs(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of its distribution under softmax(hidden @ weight.T / temperature).

    Args:
        hidden: (N, H) in the dtype that the products are computed in.
        weight: (V, H) in the same dtype.
        targets: (N,) int64, in [0, V).
        temperature: above 0.

    Returns:
        Log-probabilities and entropies, both (N,) float32 in nats; both carry gradients to `hidden` and `weight`.
    """
    return _LinearLogProbs.apply(hidden, weight, targets, 1.0 / temperature)


def _gathered(weight: torch.Tensor):
    """The whole of a weight that ZeRO-3 has sharded, for the length of a block; nothing to do for any other."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    from trl.trainer.utils import maybe_gather_lm_head_ctx

    return maybe_gather_lm_head_ctx(weight)


def can_score(model: torch.nn.Module) -> bool:
    """Whether the model's logits are a plain product of its last hidden state and its output weight."""
    config = model.config.get_text_config()
    shaped = any(getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    head = model.get_output_embeddings()
    return not shaped and type(head) is torch.nn.Linear and head.bias is None and hasattr(model, "base_model")


def add_completion_scoring(model: torch.nn.Module, temperature: float) -> None:
    """Let ``model(input_ids, attention_mask, completion_tokens=T)`` return (B, T) log-probabilities and entropies.

    It is a call of the model itself, so that DDP's and DeepSpeed's hooks around it run as for any forward pass.
    """
    original = model.forward

    def forward(self, *args, completion_tokens: int | None = None, **kwargs):
        if completion_tokens is None:
            return original(*args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}  # peft passes on what it may not
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        hidden = hidden[:, -completion_tokens - 1 : -1]
        targets = kwargs["input_ids"][:, -completion_tokens:]
        weight = self.get_output_embeddings().weight
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        with _gathered(weight), torch.autocast("cpu", enabled=False):
            logprobs, entropies = linear_logprobs(
                hidden.reshape(-1, hidden.size(-1)).to(dtype), weight.to(dtype), targets.reshape(-1), temperature
            )
        return logprobs.view(targets.shape), entropies.view(targets.shape)

    model.forward = types.MethodType(forward, model)


def score_on_cpu(trainer: Any) -> bool:
    """Let a trainer's models score completions this way, where they are on a CPU and their form allows it.

    Args:
        trainer: of TRL; its policy, and its reference model if there is one, are changed.

    Returns:
        Whether `completion_logprobs` takes its models.
    """
    plain_head = not (trainer.args.cast_lm_head_to_fp32 or trainer.aux_loss_enabled)
    if trainer.accelerator.device.type != "cpu" or not plain_head or not can_score(trainer.model):
        return False
    for model in filter(None, (trainer.model, trainer.ref_model)):
        add_completion_scoring(bare(trainer.accelerator.unwrap_model(model)), trainer.temperature)
    return True


def completion_logprobs(
    model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, num_tokens: int, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor, None]:
    """Log-probabilities and entropies of completions by a model of `add_completion_scoring`, in TRL's form.

    Args:
        input_ids: (B, P + T) int64, completions at the end.
        attention_mask: (B, P + T).
        num_tokens: T.
        batch_size: completions of one forward pass.

    Returns:
        Both (B, T) float32 in nats; and None, in the place of a loss that only mixtures of experts have.
    """
    parts = [
        model(input_ids=ids, attention_mask=mask, completion_tokens=num_tokens)
        for ids, mask in zip(input_ids.split(batch_size), attention_mask.split(batch_size), strict=True)
    ]
    logprobs, entropies = (torch.cat(values) for values in zip(*parts, strict=True))
    return logprobs, entropies, None
