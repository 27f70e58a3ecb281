"""pass@k, and evaluation over any number of processes."""

import dataclasses
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from conftest import slowness

from rl_posttrain.recipe.reward_spec import resolve_reward
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards import REWARDS
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.evaluation import evaluate_policy, pass_at_k
from rl_posttrain.scoring.rewards import Reward


@pytest.mark.parametrize("num_samples", [1, 4, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(num_samples):
    for num_correct in range(num_samples + 1):
        for k in range(1, num_samples + 1):
            draws = list(itertools.combinations([True] * num_correct + [False] * (num_samples - num_correct), k))
            by_counting = Fraction(sum(map(any, draws)), len(draws))
            assert pass_at_k(num_samples, num_correct, k) == pytest.approx(float(by_counting), abs=1e-12)


def test_pass_at_k_by_hand_and_with_large_numbers():
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(200, 3, 100) == pytest.approx(1 - (100 * 99 * 98) / (200 * 199 * 198))


ROWS = [{"prompt": f"p{number}", "answer": str(number)} for number in range(5)]


def reward(name, function):
    """The built-in of that name, which says what it judges and what full credit is, with another function.

    Any other name judges nothing.
    """
    built_in = resolve_reward(RewardSection(fn=name if name in REWARDS else "math_accuracy"), f"rewards.{name}")
    judges = built_in.judges if name in REWARDS else None
    return Reward(dataclasses.replace(built_in, name=name, judges=judges, function=function))


def run_processes(world_size: int, *, rewards, num_samples=4, ks=(1, 2, 4), batch_size=3):
    """evaluate_policy on every rank, a thread each; its metrics, and the sizes of each rank's calls of `draw`."""
    calls: list[list[int]] = [[] for _ in range(world_size)]
    parts: list[list] = [[] for _ in range(world_size)]
    barrier = threading.Barrier(world_size, timeout=60 * slowness())

    def process(rank: int) -> dict:
        def draw(rows: list, call: int) -> list[Completion]:
            assert call == len(calls[rank])
            calls[rank].append(len(rows))
            return [Completion([1], [rank], "stop", row=row, text=f"{row['prompt']} by {rank}") for row in rows]

        def gather(own: list) -> list:
            parts[rank] = own
            barrier.wait()
            return list(itertools.chain(*parts))

        options = {"num_samples": num_samples, "ks": ks, "batch_size": batch_size, "world_size": world_size}
        own = [reward(name, function) for name, function in rewards.items()]
        return evaluate_policy(ROWS, draw, own, rank=rank, gather=gather, **options)

    with ThreadPoolExecutor(world_size) as pool:
        first, *others = pool.map(process, range(world_size))
    assert all(other == first for other in others)
    return first, calls


def by_row(completions, prompts, answer, **kwargs):
    """Right on rows 0 and 1 always; never elsewhere. No judgement of row 4."""
    assert [f"p{gold}" for gold in answer] == prompts
    assert all(text.startswith(prompt) for text, prompt in zip(completions, prompts, strict=True))
    return [None if gold == "4" else float(gold in "01") for gold in answer]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_row_counts_once_on_any_number_of_processes(world_size):
    metrics, calls = run_processes(world_size, rewards={"math_accuracy": by_row})
    assert metrics["eval/math_accuracy"] == pytest.approx(8 / 16)  # of those that were judged
    assert metrics["eval/accuracy"] == pytest.approx(8 / 20)  # no judgement is no right answer
    assert [metrics[f"eval/pass@{k}"] for k in (1, 2, 4)] == pytest.approx([2 / 5, 2 / 5, 2 / 5])
    # Generation is a collective under ZeRO-3: every process makes the same calls of the same sizes.
    assert len(set(map(tuple, calls))) == 1
    assert sum(calls[0]) == math.ceil(20 / world_size)
    assert max(calls[0]) <= 3


def test_pass_at_k_counts_draws_of_the_same_row():
    draws = itertools.count()

    def first_draw_only(completions, **kwargs):
        return [float(next(draws) % 4 == 0) for _ in completions]

    metrics, _ = run_processes(1, rewards={"countdown_equation": first_draw_only})
    assert metrics["eval/accuracy"] == 0.25
    assert metrics["eval/pass@1"] == pytest.approx(0.25)
    assert metrics["eval/pass@2"] == pytest.approx(0.5)
    assert metrics["eval/pass@4"] == 1.0


def test_partial_credit_is_no_right_answer_and_other_rewards_tell_only_their_mean():
    rewards = {
        "think_answer_format": lambda completions, **kwargs: [0.5] * len(completions),
        "countdown_equation": lambda completions, **kwargs: [0.1] * len(completions),
    }
    metrics, _ = run_processes(1, rewards=rewards)
    assert metrics["eval/think_answer_format"] == pytest.approx(0.5)
    assert metrics["eval/countdown_equation"] == pytest.approx(0.1)
    assert metrics["eval/accuracy"] == 0.0
    metrics, _ = run_processes(1, rewards={"think_answer_format": rewards["think_answer_format"]})
    assert metrics == {"eval/think_answer_format": pytest.approx(0.5), "eval/well_formed": 0.0}


def test_a_reward_that_judges_nothing_is_null():
    metrics, _ = run_processes(1, rewards={"mine": lambda completions, **kwargs: [None] * len(completions)})
    assert metrics == {"eval/mine": None}
