"""Importance corrections: what each token's loss is multiplied by where the sampler is not the policy that is updated.

The sampler has other weights than the policy (`rollout.max_staleness`), or the same ones in another arithmetic. The
ratio of a token is p(token | policy before the update) / p(token | sampler); the mean of ratio x loss over what the
sampler drew is the mean of the loss over what the policy would draw. Ratios are noisy, so every correction bounds them.

All functions take

    ratio: (B, T) float, of `token_ratios`; 1 where there is no difference.
    mask: (B, T), nonzero on the completion's tokens.
    low, high: limits of the ratio.

and give (B, T) weights, of which those outside of the mask have no meaning.
"""

from collections.abc import Callable

import torch

from rl_posttrain.recipe.schema import RolloutSection
from rl_posttrain.training.losses import MAX_LOG_RATIO

Correction = Callable[[torch.Tensor, torch.Tensor, float | None, float | None], torch.Tensor]


def token_ratios(trained: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The ratio of each token, (B, T).

    >>> trained, sampled = torch.tensor([[0.5, 0.2, 0.9]]).log(), torch.tensor([[0.25, 0.4, 0.1]]).log()
    >>> [round(ratio, 4) for ratio in token_ratios(trained, sampled, torch.tensor([[1, 1, 0]]))[0].tolist()]
    [2.0, 0.5, 1.0]

    Args:
        trained: (B, T) log-probabilities under the policy before the update, in nats.
        sampled: (B, T) log-probabilities that the sampler drew with; NaN, where it gave none, counts as no difference.
        mask: (B, T), nonzero on the completion's tokens.
    """
    difference = torch.where(mask.bool(), trained - sampled, 0.0).nan_to_num(nan=0.0)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def tis(ratio: torch.Tensor, mask: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """Truncated importance sampling: a ratio outside of the limits is moved to the limit.

    Its authors have the upper limit only: "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training",
    https://fengyao.notion.site/off-policy-rl, after Ionides (2008).

    >>> tis(torch.tensor([[2.5, 0.2]]), torch.ones(1, 2), None, 2.0).tolist() == [[2.0, torch.tensor(0.2).item()]]
    True
    """
    return ratio.clamp(min=low, max=high)


def mis(ratio: torch.Tensor, mask: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """Masked importance sampling, a token at a time: a token whose ratio is above the limit is left out.

    From "When Speed Kills Stability", https://yingru.notion.site/When-Speed-Kills-Stability, which has it for tokens
    and for whole completions. There is no lower limit: a small ratio is a small weight already.

    >>> mis(torch.tensor([[2.5, 0.25]]), torch.ones(1, 2), None, 2.0).tolist()
    [[0.0, 0.25]]
    """
    return _within(ratio, ratio, low, high)


def icepop(ratio: torch.Tensor, mask: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """IcePop: a token whose ratio is outside of [low, high] on either side is left out (Ring-1T, arXiv:2510.18855).

    >>> icepop(torch.tensor([[5.5, 0.25, 1.5]]), torch.ones(1, 3), 0.5, 5.0).tolist()
    [[0.0, 0.0, 1.5]]
    """
    return _within(ratio, ratio, low, high)


def sequence_mask(ratio: torch.Tensor, mask: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """A completion whose ratio is outside of [low, high] is left out; in the others each token has its own ratio.

    A completion's ratio is the geometric mean of its tokens' ratios, not their product, so that limits mean the same
    at any length (the filter of OpenRLHF's `seq-mask-tis`). A product leaves any range as completions grow longer.

    >>> sequence_mask(torch.tensor([[9.0, 1.0], [0.25, 4.0]]), torch.ones(2, 2), 0.5, 2.0).tolist()
    [[0.0, 0.0], [0.25, 4.0]]
    """
    kept = mask.bool()
    total = torch.where(kept, ratio.log(), 0.0).sum(dim=1, keepdim=True)
    return _within(ratio, (total / kept.sum(dim=1, keepdim=True).clamp(min=1)).exp(), low, high)


CORRECTIONS: dict[str, Correction] = {"tis": tis, "mis": mis, "icepop": icepop, "sequence_mask": sequence_mask}


def corrected(
    section: RolloutSection,
    trained: torch.Tensor,
    sampled: torch.Tensor,
    mask: torch.Tensor,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, dict[str, float]]:
    """A step's weights by the recipe's correction, and what there is to tell of them; every process calls it.

    Args:
        section: of the recipe; its correction is not ``none``.
        trained, sampled, mask: as of `token_ratios`.
        gather: the tensors of all processes, one after the other.

    Returns:
        (B, T) weights; and over the tokens of all processes the share whose weight is not their ratio, and the mean
        ratio.
    """
    ratio = token_ratios(trained, sampled, mask)
    weights = CORRECTIONS[section.importance_correction](ratio, mask, section.importance_min, section.importance_max)
    kept = mask.bool()
    sums = torch.stack([kept.sum(), ((weights != ratio) & kept).sum(), (ratio * kept).sum()]).float()
    total, changed, ratios = gather(sums[None]).sum(dim=0).tolist()
    return weights, {"corrected_share": changed / max(total, 1.0), "importance_ratio": ratios / max(total, 1.0)}


def _within(weights: torch.Tensor, ratio: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """(B, T) `weights`, 0 where `ratio`, (B, T) or (B, 1), is outside of the limits."""
    low, high = -torch.inf if low is None else low, torch.inf if high is None else high
    return torch.where((ratio < low) | (ratio > high), 0.0, weights)
