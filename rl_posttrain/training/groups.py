"""Groups that teach nothing: found by what each reward pays, left out of the update, or drawn anew.

A group whose completions all got the same has no advantage. What decides is each reward on its own, and for drawing
anew the correctness alone, never the weighted sum: a shaped sum varies in every group, and where it does not, it hides
right answers among wrong ones. Selecting groups by it has ruined policies.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch


def equally_paid(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Completions of groups in which every reward paid all completions the same.

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


class Drawn(NamedTuple):
    """Completions of one process, in the order of its rows; `logprobs` is None where the engine gives none."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list
    logprobs: list[list[float]] | None


def draw_anew(
    rows: list[dict[str, Any]],
    drawn: Drawn,
    *,
    pool: Sequence[dict[str, Any]],
    group_size: int,
    max_rounds: int,
    is_right: Callable[[list[dict], list], list[bool]],
    complete: Callable[[list[dict], int], Drawn],
    any_process: Callable[[bool], bool],
    seed: int,
) -> tuple[int, int]:
    """Replace groups that are all right or all wrong by groups of new prompts, in place (DAPO, arXiv:2503.14476).

    What is still all right or all wrong after `max_rounds` stays. Every process makes the same number of calls of
    `complete`, because generation can be a collective; one that needs none throws its group away.

    Args:
        rows: B task rows, each `group_size` times; those of a replaced group are exchanged.
        drawn: the completions of these rows; its lists are changed likewise.
        pool: the task's rows to draw new prompts from; those that stand in `rows` are not drawn.
        is_right: tells of rows and completions whether each is right; never a shaped reward.
        complete: draws a completion of each row, given the number of the round, from 0.
        any_process: whether something holds on any process.
        seed: decides which prompts are drawn.

    Returns:
        How many groups of the final batch are new, and how many tokens were drawn for it and thrown away.
    """
    generator = random.Random(seed)
    dull = _dull_groups(range(0, len(rows), group_size), is_right(rows, drawn.completions), group_size)
    replaced, wasted_tokens = set(), 0
    for round_number in range(max_rounds):
        if not any_process(bool(dull)):
            break
        fresh = [dict(row) for row in _other_rows(pool, rows, max(1, len(dull)), generator) for _ in range(group_size)]
        answer = complete(fresh, round_number)
        right = is_right(fresh, answer.completions)
        still_dull = []
        for number, start in enumerate(dull):
            new, old = (slice(at, at + group_size) for at in (number * group_size, start))
            wasted_tokens += _count_tokens(drawn, old)
            rows[old] = fresh[new]
            for mine, others in zip(drawn, answer, strict=True):
                if mine is not None:
                    mine[old] = others[new]
            replaced.add(start)
            still_dull += [start] * (len(set(right[new])) == 1)
        if not dull:
            wasted_tokens += _count_tokens(answer, slice(None))
        dull = still_dull
    return len(replaced), wasted_tokens


def _dull_groups(starts: range, right: list[bool], group_size: int) -> list[int]:
    return [start for start in starts if len(set(right[start : start + group_size])) == 1]


def _other_rows(pool: Sequence[dict], rows: list[dict], count: int, generator: random.Random) -> list[dict]:
    """Rows of the pool whose prompts the step does not have yet; any, where there are not enough."""
    taken = [row["prompt"] for row in rows]
    order = generator.sample(range(len(pool)), min(len(pool), count + len(taken)))
    others = [pool[place] for place in order if pool[place]["prompt"] not in taken]
    others += [pool[place] for place in order]
    return [others[number % len(others)] for number in range(count)]


def _count_tokens(drawn: Drawn, where: slice) -> int:
    return sum(len(ids) for name in ("prompt_ids", "completion_ids") for ids in getattr(drawn, name)[where])
