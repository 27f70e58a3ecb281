"""Groups that teach nothing: found by what each reward pays, left out of the update, or resampled.

A group whose completions all got the same reward has no advantage. Skipping looks at each reward on its own, and
resampling at the right answers alone. Neither looks at the weighted sum: a shaped sum varies in almost every group, and
where it does not, it may hide right answers among wrong ones. Selecting groups by it has ruined policies.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rl_posttrain.rollout.completion import Completion


def equally_paid(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Which completions are in groups in which every reward paid all completions the same.

    Args:
        rewards: (B, R) float, one column a reward; NaN where it gave none. Groups stand together.
        group_size: G, a divisor of B.

    Returns:
        (B,) bool.
    """
    groups = rewards.view(-1, group_size, rewards.size(1))
    first = groups[:, :1]
    same = (groups == first) | (groups.isnan() & first.isnan())
    return same.flatten(1).all(dim=1).repeat_interleave(group_size)


def without_skipped(inputs: dict[str, Any], loss_type: str, num_rows: int) -> tuple[dict[str, Any], float]:
    """A micro batch without the completions of its `skipped` rows, and what its loss is to be multiplied by.

    TRL's losses divide by completions or tokens of the micro batch; the factor turns that into a division by those of
    the whole one, so that the gradient is the one with all rows. Where fewer than `num_rows` teach something, the
    shortest of the others stay, their advantages set to zero.

    Args:
        inputs: of TRL's loss; tensors of B rows, and some without rows. `skipped`: (B,) bool.
        loss_type: TRL's name of the loss.
        num_rows: how many rows go forward: as many on every process, at least 1, because TRL gathers values a row, and
            a sharded model's forward is a collective.
    """
    skipped, mask = inputs["skipped"], inputs["completion_mask"]
    if num_rows == len(skipped):
        return inputs, 1.0
    # Taught rows first, then the others by length; in the order in which they stood.
    order = torch.where(skipped, mask.sum(dim=1), -1).argsort(stable=True)
    chosen = order[:num_rows].sort().values
    is_batched = {name: isinstance(value, torch.Tensor) and value.dim() > 0 for name, value in inputs.items()}
    rows = {name: value[chosen] if is_batched[name] else value for name, value in inputs.items()}
    rows["advantages"] = rows["advantages"].masked_fill(rows["skipped"], 0.0)
    if loss_type in ("cispo", "dapo", "vespo"):  # divided by the tokens of the whole step
        return rows, 1.0
    if loss_type == "bnpo":
        return rows, (rows["completion_mask"].sum() / mask.sum().clamp(min=1)).item()
    return rows, len(rows["skipped"]) / len(skipped)


Rows = Sequence[Mapping[str, Any]]


def resample(
    completions: list[Completion],
    *,
    pool: Rows,
    group_size: int,
    max_rounds: int,
    is_right: Callable[[list[Completion]], list[bool]],
    draw: Callable[[Rows, int], list[Completion]],
    rank: int,
    gather: Callable[[list], list],
    seed: int,
) -> tuple[list[Completion], int]:
    """Replace groups that are all right or all wrong by groups of new prompts (DAPO, arXiv:2503.14476).

    What is still all right or all wrong after `max_rounds` stays. Every process makes the same number of calls of
    `draw`, because generation can be a collective; one that needs no new group throws away what it drew. Which prompts
    replace which does not depend on how many processes share the step.

    Args:
        completions: B of this process; groups stand together.
        pool: the task's rows to draw new prompts from; prompts that the step has already are not drawn.
        group_size: G, a divisor of B.
        is_right: whether each completion's answer is right; never a shaped reward.
        draw: a completion of each row, given the number of the round, from 0.
        rank: this process's number.
        gather: concatenates a list over processes.
        seed: decides which prompts are drawn; the same on every process.

    Returns:
        The B completions of the final batch, and how many of its groups are new.
    """
    generator = random.Random(seed)
    kept = list(completions)
    dull = _dull_groups(range(0, len(kept), group_size), is_right(kept), group_size)
    replaced = set()
    for round_number in range(max_rounds):
        counts = gather([len(dull)])
        if not any(counts):
            break
        taken = gather([completion.row["prompt"] for completion in kept[::group_size]])
        others = _other_rows(pool, taken, sum(counts), generator)
        start = sum(counts[:rank])
        # A process that needs none draws what it has again: another row would change the samples' numbers elsewhere.
        rows = others[start : start + len(dull)] or [kept[0].row]
        drawn = draw([dict(row) for row in rows for _ in range(group_size)], round_number)
        right = is_right(drawn)
        still_dull = []
        for number, place in enumerate(dull):
            new = slice(number * group_size, (number + 1) * group_size)
            kept[place : place + group_size] = drawn[new]
            replaced.add(place)
            still_dull += [place] * (len(set(right[new])) == 1)
        dull = still_dull
    return kept, len(replaced)


def _dull_groups(starts: range, right: list[bool], group_size: int) -> list[int]:
    return [start for start in starts if len(set(right[start : start + group_size])) == 1]


def _other_rows(pool: Rows, taken: list[Any], count: int, generator: random.Random) -> Rows:
    """Rows of the pool whose prompts are not `taken`; any, where there are not enough."""
    order = generator.sample(range(len(pool)), min(len(pool), count + len(taken)))
    others = [pool[place] for place in order if pool[place]["prompt"] not in taken]
    others += [pool[place] for place in order]
    return [others[number % len(others)] for number in range(count)]
