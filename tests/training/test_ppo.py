"""PPO's advantages, returns and metrics against plain Python, on one process and several."""

import math
import random
import statistics

import pytest
import torch
from several_processes import advantages_on
from test_gae import by_hand

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.training.algorithms.algorithm import Scored, make_algorithm

NAN = math.nan
# Six completions of 4, 2, 5, 1, 3 and 5 tokens; the second one was not judged; the last two were cut at the limit.
LENGTHS, REWARDS, TRUNCATED = (4, 2, 5, 1, 3, 5), (1.0, NAN, 0.0, 2.0, -1.0, 0.5), (0, 0, 0, 0, 1, 1)
NUM_TOKENS = 5
_random = random.Random(0)
VALUES = [[_random.gauss(0.3, 1) for _ in range(NUM_TOKENS + 1)] for _ in LENGTHS]
PENALTIES = [[_random.gauss(0, 0.2) for _ in range(NUM_TOKENS)] for _ in LENGTHS]


def ppo(*overrides, num_processes=1, penalty=False, left_out=()):
    """Advantages, returns, and the metrics of each process."""
    mask = (torch.arange(NUM_TOKENS) < torch.tensor(LENGTHS)[:, None]).long()
    mask[list(left_out)] = 0
    recipe = load_recipe("quickstart_ppo", ["algorithm.group_size=1", *overrides])
    scored = Scored(
        rewards=torch.tensor(REWARDS)[:, None], weights=torch.tensor([0.5]), group_size=1, start=0, mask=mask,
        kl_penalty=torch.tensor(PENALTIES) * mask if penalty else None,
        values=torch.tensor(VALUES), truncated=torch.tensor(TRUNCATED).bool(),
    )  # fmt: skip
    parts = advantages_on(num_processes, make_algorithm(recipe), scored)
    values, returns = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "returns"))
    return values, returns, [part.metrics for part in parts]


def expected(gamma=1.0, lambda_=1.0, value_lambda=None, alpha=None, bootstrap=False, penalty=False, left_out=()):
    """By row: the mask as tokens that count, advantages before whitening, and returns."""
    rows = []
    for row, (length, reward) in enumerate(zip(LENGTHS, REWARDS, strict=True)):
        length = 0 if row in left_out else length
        mask = [int(t < length) for t in range(NUM_TOKENS)]
        paid = [-PENALTIES[row][t] * mask[t] * penalty for t in range(NUM_TOKENS)]
        if length:
            paid[length - 1] += 0.5 * reward
        own = lambda_ if alpha is None else max(0.0, 1 - 1 / (alpha * max(1, length)))
        ends = bootstrap and TRUNCATED[row]
        if math.isnan(reward):  # not judged
            rows.append((mask, [0.0] * NUM_TOKENS, [value * m for value, m in zip(VALUES[row], mask, strict=False)]))
            continue
        advantages = by_hand(paid, VALUES[row], mask, gamma, own, ends)
        towards = by_hand(paid, VALUES[row], mask, gamma, lambda_ if value_lambda is None else value_lambda, ends)
        rows.append((mask, advantages, [m * (a + v) for m, a, v in zip(mask, towards, VALUES[row], strict=False)]))
    return rows


def counted(rows, which):
    """The values that count in a mean: of tokens in the mask of completions that were judged."""
    judged = [row for row, reward in zip(rows, REWARDS, strict=True) if not math.isnan(reward)]
    return [value for row in judged for value, counts in zip(which(row), row[0], strict=False) if counts]


CASES = {
    "plain": ({}, ()),
    "gamma-lambda": ({"gamma": 0.9, "lambda_": 0.8}, ("critic.gamma=0.9", "critic.gae_lambda=0.8")),
    "value-lambda": ({"lambda_": 0.5, "value_lambda": 0.95}, ("critic.gae_lambda=0.5", "critic.value_lambda=0.95")),
    "length-adaptive": ({"alpha": 0.5, "lambda_": 0.9}, ("critic.length_adaptive_alpha=0.5", "critic.gae_lambda=0.9")),
    "bootstrap": ({"bootstrap": True, "gamma": 0.9}, ("critic.bootstrap_truncated=true", "critic.gamma=0.9")),
    "penalty": ({"penalty": True}, ("algorithm.kl_coef=0.1",)),
    "left-out": ({"left_out": (4, 5)}, ()),
}


@pytest.mark.parametrize("whitens", [True, False], ids=["whitened", "plain"])
@pytest.mark.parametrize("num_processes", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_advantages_returns_and_metrics(case, num_processes, whitens):
    options, overrides = CASES[case]
    rows = expected(**options)
    handed = {name: options[name] for name in ("penalty", "left_out") if name in options}
    advantages, returns, metrics = ppo(
        *overrides, f"critic.whiten_advantages={whitens}", num_processes=num_processes, **handed
    )
    everywhere = counted(rows, lambda row: row[1])
    mean, std = statistics.fmean(everywhere), statistics.pstdev(everywhere)
    wanted = [row[1] for row in rows]
    if whitens:
        judged = [not math.isnan(reward) for reward in REWARDS]
        wanted = [
            [judged[place] * m * (value - mean) / std for value, m in zip(row[1], row[0], strict=True)]
            for place, row in enumerate(rows)
        ]
    torch.testing.assert_close(advantages, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(returns, torch.tensor([row[2] for row in rows]), rtol=1e-4, atol=1e-5)

    every_return = counted(rows, lambda row: row[2])
    values = counted([(row[0], VALUES[place]) for place, row in enumerate(rows)], lambda row: row[1])
    errors = [a - b for a, b in zip(every_return, values, strict=True)]
    assert (
        metrics
        == [
            pytest.approx(
                {
                    "advantage_mean": mean,
                    "advantage_std": std,
                    "return_mean": statistics.fmean(every_return),
                    "value_mean": statistics.fmean(values),
                    "explained_variance": 1 - statistics.pvariance(errors) / statistics.pvariance(every_return),
                },
                rel=1e-4,
                abs=1e-5,
            )
        ]
        * num_processes
    )


def test_returns_are_not_whitened_and_do_not_take_the_policys_lambda():
    """At value_lambda 1 a return is what the completion was paid, whatever the policy's lambda and the whitening."""
    _, returns, _ = ppo("critic.gae_lambda=0.3", "critic.value_lambda=1.0")
    assert returns[2].tolist() == pytest.approx([0.0] * 5, abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.5] * 4 + [0.0], abs=1e-6)


def test_equal_returns_leave_nothing_to_explain_and_nothing_divides_by_zero():
    ones = torch.ones(2, 3, dtype=torch.long)
    algorithm = make_algorithm(load_recipe("quickstart_ppo"))
    for mask in (ones, 0 * ones):
        scored = Scored(torch.ones(2, 1), torch.ones(1), 1, 0, mask, values=torch.full((2, 4), 0.5))
        found = algorithm.advantages(scored)
        assert math.isnan(found.metrics["explained_variance"])
        assert found.values.abs().max() < 1e-6
        assert torch.equal(found.returns, mask.float())
