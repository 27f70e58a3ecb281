"""Accuracy and pass@k of a policy over a task's rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.completions import score
from rl_posttrain.scoring.rewards import Reward, judging_rewards

Draw = Callable[[Sequence[Mapping[str, Any]], int], list[Completion]]


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that at least one of k samples is right, from n samples of which c are; unbiased.

    arXiv:2107.03374, eq. 1.

    Args:
        num_samples: n, at least k.
        num_correct: c.
    """
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def shares_of_full_credit(
    rewards: Sequence[Mapping[str, float | None]], judge: RewardSpec | None, form: RewardSpec | None
) -> dict[str, float | None]:
    """Right answers, completions in the form asked for, and those that are both, each as a share.

    Full credit only: a partial credit shapes the reward and is no right answer. A completion without a reward is left
    out.

    Args:
        rewards: by name, of each completion.
        judge: the reward that says which answers are right, for ``accuracy``, or None.
        form: the reward that says which completions have the right form, for ``well_formed``, or None.
    """

    def share(*specs: RewardSpec) -> float | None:
        known = [row for row in rewards if all(row[spec.name] is not None for spec in specs)]
        full = [all(spec.gives_full_credit(row[spec.name]) for spec in specs) for row in known]
        return sum(full) / len(full) if full else None

    shares = {"accuracy": (judge,), "well_formed": (form,), "right_and_well_formed": (judge, form)}
    return {name: share(*needed) for name, needed in shares.items() if None not in needed}


def evaluate_policy(
    rows: Sequence[Mapping[str, Any]],
    draw: Draw,
    rewards: Sequence[Reward],
    *,
    num_samples: int,
    ks: Sequence[int],
    batch_size: int,
    rank: int,
    world_size: int,
    gather: Callable[[list], list],
) -> dict[str, float]:
    """Draw `num_samples` completions of every row and score them.

    Args:
        rows: the task's eval rows, the same on every process.
        draw: draws one completion a row, given the rows and the number of the call, from 0, for its seed.
        rewards: of the recipe. The first that judges answers decides what is right; without one there is no accuracy.
        batch_size: rows of a call of `draw`, on each process.
        gather: concatenates a list over processes, in rank order.

    Returns:
        ``eval/<reward>`` for each reward, ``eval/accuracy`` and ``eval/pass@k`` for each k, ``eval/well_formed``, and
        ``eval/right_and_well_formed``.
    """
    places = list(range(len(rows) * num_samples))
    # The same number of calls on every process: under ZeRO-3 generation is a collective. What is over is dropped.
    share = -(-len(places) // world_size)
    mine = [places[(rank * share + offset) % len(places)] for offset in range(share)]
    scored: list[tuple[int, dict[str, float | None]]] = []
    for start in range(0, share, batch_size):
        batch = mine[start : start + batch_size]
        completions = draw([rows[place // num_samples] for place in batch], start // batch_size)
        score(completions, rewards)
        scored += [(place, completion.rewards) for place, completion in zip(batch, completions, strict=True)]
    by_place = dict(gather(scored))
    metrics: dict[str, float | None] = {}
    for reward in rewards:
        known = [earned[reward.spec.name] for earned in by_place.values() if earned[reward.spec.name] is not None]
        metrics[f"eval/{reward.spec.name}"] = sum(known) / len(known) if known else None
    judge, form = judging_rewards([reward.spec for reward in rewards])
    shares = shares_of_full_credit(list(by_place.values()), judge, form)
    metrics |= {f"eval/{name}": share for name, share in shares.items() if name != "accuracy"}
    if judge is not None:
        right = [
            sum(judge.gives_full_credit(by_place[row * num_samples + draw][judge.name]) for draw in range(num_samples))
            for row in range(len(rows))
        ]
        metrics["eval/accuracy"] = sum(right) / (len(rows) * num_samples)
        for k in ks:
            metrics[f"eval/pass@{k}"] = sum(pass_at_k(num_samples, correct, k) for correct in right) / len(rows)
    return metrics
